"""What is timed: a method on a network, with the sizes that both sides get."""

from dataclasses import asdict, dataclass, field
from typing import Any

NETWORKS = ("efficientnet_lite0", "vgg16")


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        method: The name of a row.
        network: `efficientnet_lite0` or `vgg16`.
        batch: Images explained at once.
        options: Sizes: samples, steps, targets, window.
        repeats: Timed pairs; heavy rows get few.
        note: What the two sides do not share, for the table; empty where they compute the same.
    """

    method: str
    network: str
    batch: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    repeats: int = 3
    note: str = ""

    @property
    def name(self) -> str:
        """The row's name, sizes included."""
        sizes = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"{self.method}{f' ({sizes})' if sizes else ''}"

    def message(self) -> dict[str, Any]:
        """The case as JSON."""
        return asdict(self)


_HOOKS = "as shipped, Captum's hooks miss ReLU6 and it computes the plain gradient; tuned, ReLU6 is respelled"
_DRAWS = "different random draws"
_SIGN = "principal components have no sign: the peer keeps what its SVD gives, jaxai fixes it"
_RIVALS = "random dense layers leave the rivals probabilities of 1e-9, and the peer adds 1e-9 to their sum"
_POOLS = "Captum's contributions do not sum to the difference of the scores on networks with max-pools"


def _light(network: str) -> list[Case]:
    """Return one small row for each of the other gradient, CAM and rule methods that a peer has."""
    lite = network == "efficientnet_lite0"
    hooks = _HOOKS if lite else ""
    some = 16 if lite else 8
    names = (
        "input_x_gradient", "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "element_wise_grad_cam",
        "layer_cam", "fem", "shapley_cam", "layer_gradient_x_activation", "excitation_backprop",
    )  # fmt: skip
    rows = [Case(name, network) for name in names]
    rows += [Case(name, network, note=_SIGN) for name in ("eigen_cam", "eigen_grad_cam", "kpca_cam")]
    rows += [
        Case(
            "full_grad",
            network,
            note="the peer scales each channel of each layer to [0, 1] before it adds them",
        ),
        Case("finer_cam", network, note="" if lite else _RIVALS),
        Case("guided_backprop", network, note=hooks),
        Case("deconvnet", network, note=hooks),
        Case("guided_grad_cam", network, note=hooks),
        Case("deep_lift", network, note=hooks if lite else _POOLS),
        Case("deep_lift_shap", network, note=hooks if lite else _POOLS),
        Case("gradient_shap", network, 1, {"samples": some}, note=_DRAWS),
        Case("smooth_grad_squared", network, 1, {"samples": some}, note=_DRAWS),
        Case("var_grad", network, 1, {"samples": some}, note=_DRAWS),
        Case("layer_integrated_gradients", network, 1, {"steps": some}),
        Case("internal_influence", network, 1, {"steps": some}),
        Case("conductance", network, 1, {"steps": some}),
    ]
    composites = (
        "epsilon",
        "epsilon_plus",
        "epsilon_gamma_box",
        "epsilon_alpha2_beta1",
        "epsilon_alpha2_beta1_flat",
    )
    rows += [Case("lrp", network, 1, {"composite": name}) for name in composites]
    return rows


def cases(*, quick: bool, full: bool = False, networks: tuple[str, ...] = NETWORKS) -> list[Case]:
    """Return the rows: all of them, or with `quick` the cheap ones of the methods most in use.

    With `full` black-box methods get as many samples as papers use, and VGG16 as many images as the other.
    """
    rows = []
    for network in networks:
        light = network == "efficientnet_lite0"
        batch = 16 if light or full else 4
        lime, rise = (1000, 4000) if full else (100, 200) if light else (50, 50)
        sobol, hsic = (32, 500) if full else (8, 100) if light else (2, 50)
        pairs = 1 if full else 3 if light else 2
        few = pairs if light else 1
        rows += [
            Case("forward", network, 1, repeats=7),
            Case("forward", network, batch, repeats=5),
            Case("grad_cam", network, 1, repeats=7),
            Case("grad_cam", network, batch, repeats=3),
            Case("grad_cam", network, 1, {"targets": 10}, repeats=3),
            Case("saliency", network, 1, repeats=5),
            Case("saliency", network, batch, repeats=3),
            Case(
                "occlusion",
                network,
                1,
                {"window": 32, "stride": 16} if light else {"window": 64, "stride": 32},
                repeats=3 if light else 2,
            ),
            Case("lime", network, 1, {"samples": lime}, repeats=pairs),
            Case(
                "kernel_shap",
                network,
                1,
                {"samples": 100},
                repeats=3 if light else 1,
                note=_DRAWS,
            ),
            Case("lrp", network, 1),
        ]
        if quick:
            continue
        rows += [
            Case("integrated_gradients", network, 1, {"steps": 50}, repeats=3 if light else 1),
            Case("smooth_grad", network, 1, {"samples": 50}, repeats=3 if light else 1, note=_DRAWS),
            Case("lrp", network, batch, repeats=2),
            Case("ablation_cam", network, 1, repeats=1),
            Case("visualize", network, 1, {"steps": 16}, repeats=3 if light else 1, note=_DRAWS),
            Case("deep_dream", network, 1, {"steps": 5}),
            Case("maco", network, 1, {"steps": 8 if light else 2}, repeats=few, note=_DRAWS),
            Case("rise", network, 1, {"samples": rise}, repeats=few, note=_DRAWS),
            Case("sobol", network, 1, {"designs": sobol}, repeats=few),
            Case("hsic", network, 1, {"designs": hsic}, repeats=few),
        ]
        rows += _light(network)
        rows.append(Case("score_cam", network, 1, repeats=1))
    return rows
