"""Every metric of maps, as MetaQuantus asks: a noisier map is worse, and a random one scores chance.

The score adds up the pixels of a square less those of another, elsewhere in every image: the truth is known.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxai import metrics
from jaxai.metrics import _references

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
COUNT, SIDE, SQUARE = 32, 16, 5
NOISE = (0.0, 0.5, 1.5, 6.0)


def _data():
    rng = np.random.default_rng(0)
    squares = np.zeros((2, COUNT, SIDE, SIDE), bool)
    half = SIDE // 2
    for index, (row, left, right) in enumerate(rng.integers(0, half - SQUARE + 1, (COUNT, 3))):
        squares[0, index, row : row + SQUARE, left : left + SQUARE] = True
        squares[1, index, half + row : half + row + SQUARE, half + right : half + right + SQUARE] = True
    images = 0.2 * rng.random((COUNT, SIDE, SIDE, 3))
    images += (squares[0] * 1.0 - squares[1] * 0.9)[..., None] * (1 + rng.random((COUNT, 1, 1, 3)))
    # Every second image is turned, so that no place is better than another.
    images, squares = images.astype(np.float32), squares
    images[::2], squares[:, ::2] = images[::2, ::-1], squares[:, ::2, ::-1]
    return jnp.asarray(images), squares[0]


IMAGES, MASKS = _data()


def evidence(x):
    """Return what is brighter than 1/2, for the class, less what is darker than -1/2, against it."""
    return jax.nn.relu(x - 0.5) - jax.nn.relu(-0.5 - x)


def squares(scale, x):
    total = scale * evidence(x).sum((1, 2, 3))
    return jnp.stack([total, 1.0 + 0 * total], 1)


MODEL = Partial(squares, jnp.float32(0.1))
TRUTH = np.asarray(evidence(IMAGES).sum(-1)) * 0.1
OPTIONS = {
    "sensitivity_n": {"sizes": (10, 40), "num_samples": 60},
    "faithfulness_correlation": {"subset_size": 30, "num_samples": 60},
    "irof": {"segments": jnp.arange(SIDE * SIDE).reshape(SIDE, SIDE) // 3},
    "region_perturbation": {"window": 2, "steps": 32},
    "selectivity": {"window": 2},
    "top_k_intersection": {"k": 25},
    "infidelity": {"normalize": True},
    "relevance_gain": {"fill": 0.0},
    "deletion": {"fill": 0.0},
    "insertion": {"fill": 0.0},
    "sic": {"fill": 0.0, "compression": "png"},
    "aic": {"fill": 0.0, "compression": "png"},
    "pointing_game": {"tolerance": 0},
    "road": {"noise": 0.0},
}
OF_MAPS = {metric.name: metric for metric in metrics.METRICS if metric.takes != "method"}
# The model sums up, so that the order in which regions are shown changes nothing; and it looks for bright
# pixels everywhere, so that noise in any region counts: test_metrics_axioms.py has the closed form of that.
BLIND = ("monotonicity", "non_sensitivity")
COSTLY = ("monotonicity_correlation", "road", "region_perturbation", "sensitivity_n", "selectivity", "aic")
COSTLY += ("infidelity", "irof", "sic", "deletion", "insertion", "faithfulness_estimate")
# By chance 0; those of localization have chance levels of their own (test_metrics_maps.py).
CHANCE = [name for name, metric in OF_MAPS.items() if "chance 0" in metric.range]


def scores(name, maps):
    """Return a metric's scores of maps, float64 [images]."""
    metric, given = OF_MAPS[name], dict(OPTIONS.get(name, {}))
    if metric.random:
        given["key"] = KEY
    arguments = {
        "scores": (MODEL, IMAGES, maps, 0),
        "maps": (maps,),
        "masks": (maps, MASKS),
    }[metric.takes]
    return np.asarray(metric.read(metric.function(*arguments, **given)), np.float64)


def params(names):
    return [pytest.param(n, marks=pytest.mark.slow) if n in COSTLY else n for n in names if n not in BLIND]


@pytest.mark.sampled
@pytest.mark.parametrize("name", params(OF_MAPS))
def test_a_noisier_map_is_worse(name):
    rng = np.random.default_rng(1)
    noise = rng.normal(size=TRUTH.shape) * TRUTH.std()
    means = np.array([np.nanmean(scores(name, TRUTH + size * noise)) for size in NOISE])
    means *= 1 if OF_MAPS[name].better == "higher" else -1
    spread = means[0] - means[-1]
    assert spread > 0 and (np.diff(means) < 0.02 * spread).all(), means


@pytest.mark.parametrize("name", params(CHANCE))
def test_a_random_map_scores_chance(name):
    maps = np.random.default_rng(2).normal(size=TRUTH.shape)
    found = scores(name, maps)
    found = found[np.isfinite(found)]
    assert abs(found.mean()) < 3 * found.std() / len(found) ** 0.5


@pytest.mark.sampled
@pytest.mark.parametrize(
    "name",
    [
        "max_sensitivity",
        "average_sensitivity",
        "local_lipschitz",
        "continuity",
        "relative_input_stability",
        "relative_output_stability",
    ],
)
def test_a_noisier_method_is_less_robust(name):
    """Noise that every image draws anew, however close to another it is."""
    (metric,) = (metric for metric in metrics.METRICS if metric.name == name)
    noise = _references.method("random", jax.random.key(7))
    given = {"key": KEY, "num_samples": 4} if metric.random else {"steps": 3}
    found = []
    for size in (0.0, 0.1, 0.3, 1.0):

        def method(model, x, targets, size=size):
            return evidence(x).sum(-1) + size * noise(model, x, targets)

        values = metric.function(method, MODEL, IMAGES[:6], 0, **given)
        found.append(float(np.mean(metric.read(values))))
    assert (np.diff(found) > 0).all(), found


def test_monotonicity_of_a_sum_is_the_share_of_regions_that_do_not_count_against():
    """Whatever the order: a weakness of the metric."""
    cells = np.asarray(evidence(IMAGES)).sum(-1).reshape(COUNT, 8, 2, 8, 2).sum((2, 4)).reshape(COUNT, -1)
    expected = (cells >= 0).mean(-1)
    rng = np.random.default_rng(3)
    for maps in (TRUTH, -TRUTH, rng.normal(size=TRUTH.shape)):
        found = metrics.monotonicity(MODEL, IMAGES, maps, 0, fill=0.0, probability=False)
        np.testing.assert_allclose(found, expected, atol=0.02)
