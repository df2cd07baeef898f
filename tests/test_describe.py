"""Methods describe themselves: what stands at each agrees with its signature, docstring and work."""

import inspect
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai._frame import describe
from jaxai._frame.describe import Description, Passes, Size

TABLE = describe.table()
# They take a network, images and targets, and are no methods.
NO_METHODS = {"completeness_gap": "it measures the result of a method"}


def methods_by_signature():
    """Return the public functions that explain what a network says of images."""
    found = set()
    for name in jaxai.__all__:
        function = getattr(jaxai, name)
        if inspect.isfunction(function):
            names = list(inspect.signature(function).parameters)
            if names[:3] == ["model", "images", "targets"]:
                found.add(name)
    return found


def test_every_method_is_described():
    assert methods_by_signature() - set(NO_METHODS) == set(TABLE) - {"forgrad", "grad_cam_all_classes"}
    for name, description in TABLE.items():
        assert getattr(jaxai, name) is description.function and description.name == name
    assert {name for name, d in TABLE.items() if d.left_out} == {
        "full_gradients",
        "feature_permutation",
        "grad_cam_all_classes",
    }
    assert len({description.title.lower() for description in TABLE.values()}) == len(TABLE)
    assert {description.family for description in TABLE.values()} == {
        "cam",
        "gradients",
        "rules",
        "perturbation",
    }


@pytest.mark.parametrize("name", TABLE)
def test_facts_agree_with_signature_and_docstring(name):
    description = TABLE[name]
    assert description.summary.endswith(".") and len(description.summary) < 110
    assert description.paper and "\n" not in description.paper and len(description.paper) < 60
    assert isinstance(description.passes(), Passes) and isinstance(description.has_signs(), bool)
    assert set(description.arguments) == set(description.parameters), "the docstring's arguments"
    text = str(
        description.passes(num_baselines=8, targets=2, segments=50, channels=64, positions=49, layers=4)
    )
    assert not set("kSCPLB") & set(text.replace("backward", "").replace("about", ""))
    returned = inspect.signature(description.function).return_annotation
    if description.result == "segments":
        assert {"values", "weights"} & set(dir(returned)) | set(getattr(returned, "__annotations__", ()))
    elif description.result == "heatmap" and name not in ("forgrad", "grad_cam_all_classes"):
        # Those of a layer or a grid are of its size where they stay so.
        own_size = "upsample" in description.parameters
        assert ("rows columns" if own_size else "height width") in str(returned)


def test_signs_and_cost_follow_the_options():
    assert not TABLE["grad_cam"].has_signs() and TABLE["grad_cam"].has_signs(relu=False)
    assert not TABLE["recipro_cam"].has_signs() and TABLE["recipro_cam"].has_signs(probability=False)
    assert TABLE["saliency"].has_signs()
    assert TABLE["integrated_gradients"].passes(steps=10, targets=3) == Passes(11, backward=30)
    assert TABLE["occlusion"].passes(window=8, strides=(4, 8), height=16, width=20) == Passes(1 + 3 * 3)
    assert TABLE["sobol"].passes(num_designs=2, grid=(3, 4)) == Passes(2 * 14)
    assert TABLE["exact_shapley"].passes(segments=5) == Passes(32)


def test_a_cost_in_letters():
    k, s = Size("k"), Size("S")
    assert str(Passes()) == "1" and str(Passes(1, backward=k)) == "1 + k backward"
    assert str(Passes(1, heads=1 * k)) == "1 + k heads" and str(Passes(2 * k, heads=0.5)) == "2 k + 0.5 heads"
    assert str(Passes(20 * (s - 1) + 2)) == "20 (S - 1) + 2"
    assert str(Passes(3 + 2 * s, heads=1 + 2 * k)) == "3 + 2 S + (1 + 2 k) heads"
    assert str(Passes(2 * s**2 / 3, rough=True)) == "about 2 S^2 / 3" and str(2**s) == "2^S"
    assert str((1 + s) * k) == "(1 + S) k"


def _documented():
    """Weight what counts: the first line.

    A second paragraph.

    Args:
        model: A network
            of any kind.
        **more: Others.

    Returns:
        Nothing.

    References:
        As somebody's tool.
        LeCun, O'Neil: A title: with a colon. JMLR 2019,
        arXiv 2010.01234, section 2.
        Shapley: A Value. 1953.
    """


def test_docstrings_are_read_in_parts():
    found = Description(_documented, "x", "heatmap", describe.one_forward)
    assert found.summary == "Weight what counts: the first line."
    assert found.sections[""].endswith("A second paragraph.") and found.sections["Returns"] == "Nothing."
    assert found.arguments == {"model": "A network of any kind.", "more": "Others."}
    assert found.references[1:] == [
        "LeCun, O'Neil: A title: with a colon. JMLR 2019, arXiv 2010.01234, section 2.",
        "Shapley: A Value. 1953.",
    ]
    assert found.paper == "As somebody's tool"


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("grad_cam", "Selvaraju et al. 2017, arXiv 1610.02391"),
        ("layer_cam", "Jiang et al. 2021, doi 10.1109/TIP.2021.3089943"),
        ("is_cam", "Naidu et al. 2020, arXiv 2010.03023"),
        ("occlusion", "Zeiler, Fergus 2014, arXiv 1311.2901"),
        ("owen_values", "Owen 1977"),
        ("lrp", "Bach et al. 2015"),
        ("random_cam", "As pytorch-grad-cam's RandomCAM"),
    ],
)
def test_papers_in_short(name, paper):
    assert TABLE[name].paper == paper


def test_functions_stay_what_they_are():
    def method(model, images, targets=None, *, steps=2):
        """Do nothing.

        Args:
            steps: Of nothing.
        """

    note = describe.describes(title="nothing", result="heatmap", cost=describe.backward_for_each("steps"))
    try:
        assert note(method) is method and method.__dict__ == {}
        assert TABLE["method"].passes(steps=3, targets=1) == Passes(4, backward=3)
        assert TABLE["method"].options == {"steps": 2}
    finally:
        del describe._TABLE["method"]


COUNTED = Counter()


def _counting(name):
    """Return the identity that counts the images which pass it forwards."""

    def tick(x):
        COUNTED[name] += x.shape[0]

    @jax.custom_vjp
    def mark(x):
        jax.debug.callback(tick, x)
        return x

    mark.defvjp(lambda x: (mark(x), None), lambda _, gradient: (gradient,))
    return mark


SMALL = {
    "num_samples": 6,
    "num_masks": 6,
    "num_designs": 3,
    "num_permutations": 2,
    "steps": 4,
    "grid": 2,
    "window": 8,
    "strides": 4,
    "incremental": False,
}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", sorted(set(TABLE) - {"forgrad"}))
def test_cost_is_what_is_run(name):
    """The network runs as often as is said, in whole and behind the layer."""
    description = TABLE[name]
    rng = np.random.default_rng(0)
    kernel, head = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 5), (5, 7)))
    whole, behind = _counting("forward"), _counting("heads")
    if name == "class_activation_map":
        behind = jnp.asarray  # It knows heads by their operations.
    net = jaxai.chain(
        {
            "f": lambda x: jax.nn.relu(whole(x)[:, ::2, ::2] @ kernel),
            "pool": lambda x: behind(x).mean((1, 2)),
            "logits": lambda x: x @ head,
        }
    )
    count = 2 if name == "feature_permutation" else 1
    images = jnp.asarray(rng.random((count, 16, 16, 3)), jnp.float32)
    options = {word: SMALL[word] for word in description.options if word in SMALL}
    if name in ("kernel_shap", "lime"):
        options["num_samples"] = 40
    given = {
        "key": jax.random.key(0),
        "layer": "f",
        "segments": jaxai.segment(images, method="grid", rows=2, columns=3),
        "baselines": images[np.array([0, 0])] / 2,
    }
    given = {word: value for word, value in given.items() if word in description.parameters}
    targets = [] if name == "grad_cam_all_classes" else [jnp.array([[1, 2]] * count)]
    COUNTED.clear()
    jax.block_until_ready(description.function(net, images, *targets, **given, **options))
    jax.effects_barrier()
    sizes = {"targets": 2, "segments": 6, "channels": 5, "positions": 64, "layers": 1, "num_baselines": 2}
    cost = description.passes(**options, **sizes, height=16, width=16)
    runs_rules = description.family == "rules" and name not in ("guided_backprop", "deconvnet")
    if runs_rules or name == "grad_cam_all_classes":
        # They run the program once more in ways that are not counted.
        assert 1 <= COUNTED["forward"] <= cost.forward
    elif cost.rough:
        assert abs(COUNTED["forward"] / cost.forward - 1) < 0.2
    else:
        assert COUNTED["forward"] == count * cost.forward
        # Backward passes of the head are not counted.
        assert COUNTED["heads"] <= count * (cost.forward + cost.heads)


def test_rough_costs_are_whole_numbers():
    assert str(Passes(2 * 40**2 / 3, rough=True)) == "about 1067"
    assert str(Passes(3, 1, 2)) == "3 + 1 backward + 2 heads"
