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
    """

    method: str
    network: str
    batch: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    repeats: int = 3

    @property
    def name(self) -> str:
        """The row's name, sizes included."""
        sizes = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"{self.method}{f' ({sizes})' if sizes else ''}"

    def message(self) -> dict[str, Any]:
        """The case as JSON."""
        return asdict(self)


def cases(*, quick: bool, networks: tuple[str, ...] = NETWORKS) -> list[Case]:
    """Return the rows: all of them, or with `quick` the cheap ones on the small network."""
    rows = []
    for network in networks:
        light = network == "efficientnet_lite0"
        batch = 16 if light else 4
        rows += [
            Case("forward", network, 1, repeats=7),
            Case("forward", network, batch, repeats=5),
            Case("gradient", network, batch, repeats=3),
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
            ),
            Case("lime", network, 1, {"samples": 100 if light else 50}),
            Case("kernel_shap", network, 1, {"samples": 100 if light else 50}),
            Case("lrp", network, 1),
        ]
        if quick:
            continue
        rows += [
            Case("integrated_gradients", network, 1, {"steps": 50}, repeats=3 if light else 1),
            Case("smooth_grad", network, 1, {"samples": 50}, repeats=3 if light else 1),
            Case("lrp", network, batch, repeats=2),
            Case("ablation_cam", network, 1, repeats=1),
            Case("visualize", network, 1, {"steps": 16}),
            Case("deep_dream", network, 1, {"steps": 5}),
            Case("rise", network, 1, {"samples": 200 if light else 50}),
        ]
        if light:
            rows.append(Case("score_cam", network, 1, repeats=1))
    return rows
