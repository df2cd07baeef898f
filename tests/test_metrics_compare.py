"""The table of methods and metrics: references, paired intervals, agreement, files, bad input."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from common import close
from jax.tree_util import Partial

import jaxai
from jaxai import metrics
from jaxai.metrics import _comparison, _references, _table

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
# The class score sees a square of the image alone, so that the truth is known.
MASKS = np.zeros((12, 10, 12), bool)
for index in range(12):
    MASKS[index, index % 5 : index % 5 + 4, index % 7 : index % 7 + 4] = True
IMAGES = jnp.asarray(RNG.random((12, 10, 12, 2)), jnp.float32) + MASKS[..., None]
WEIGHTS = jnp.asarray([[3.0, 0.0, 1.0], [3.0, 1.0, 0.0]]) / 20


def bright(weights, x):
    """Look at what is brighter than 1: the square."""
    return jax.nn.relu(x - 1).sum((1, 2)) @ weights - 2


MODEL = Partial(bright, WEIGHTS)
METHODS = {"input x gradient": jaxai.input_x_gradient, "saliency": jaxai.saliency}
OPTIONS = {"relevance_gain": {"steps": 10, "fill": 0.0}, "pointing_game": {"tolerance": 0}}


def table(**options):
    given = {
        "methods": METHODS,
        "metrics": ("relevance_gain", "pointing_game", "mass_accuracy", "gini", "entropy", "emprt"),
        "key": KEY,
        "masks": MASKS,
        "options": OPTIONS,
        "draws": 200,
    }
    return metrics.compare(MODEL, IMAGES, 0, **{**given, **options})


@pytest.fixture(scope="module")
def whole():
    return table()


def test_scores_are_those_of_the_metrics(whole):
    assert whole.rows == ("input x gradient", "saliency", "random", "centre", "edges", "image", "truth")
    assert whole.scores.shape == (7, 6, 12)
    maps = jaxai.input_x_gradient(MODEL, IMAGES, 0)
    gain = metrics.relevance_gain(MODEL, IMAGES, maps, 0, steps=10, fill=0.0).gain
    close(whole.scores[0, 0], gain)
    close(whole.scores[0, 2], metrics.mass_accuracy(maps, MASKS))
    close(whole.scores[0, 3], metrics.gini(maps))
    key = jax.random.fold_in(KEY, 2)
    close(whole.scores[1, 5], metrics.emprt(jaxai.saliency, MODEL, IMAGES, 0, key=key))
    close(whole.means, whole.scores.mean(-1)) if np.isfinite(whole.scores).all() else None
    assert np.isnan(whole.scores[6, 5]).all(), "the truth is no method"


def test_references_and_the_truth(whole):
    place = {name: i for i, name in enumerate(whole.rows)}
    gain, mass = whole.means[:, 0], whole.means[:, 2]
    assert gain[place["input x gradient"]] >= gain[place["image"]] > gain[place["random"]] + 0.1
    assert mass[place["truth"]] == 1 and whole.means[place["truth"], 1] == 1
    assert mass[place["random"]] == pytest.approx(whole.chance["mass_accuracy"], abs=0.05)
    assert whole.chance["pointing_game"] == pytest.approx(16 / 120)
    assert set(whole.seconds) == set(METHODS) and min(whole.seconds.values()) > 0


def test_intervals_are_paired(whole):
    low, high = whole.intervals[:, 0].T
    assert (low <= whole.means[:, 0]).all() and (whole.means[:, 0] <= high).all() and (low < high).all()
    mean, below, above = whole.difference("relevance_gain", "input x gradient", "random")
    apart = whole.scores[0, 0] - whole.scores[2, 0]
    assert mean == pytest.approx(apart.mean()) and 0 < below < mean < above
    means = [apart[draw].mean() for draw in whole.draws]
    assert (below, above) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    # What two rows have in common does not widen the interval of their difference.
    again = whole.difference("relevance_gain", "random", "random")
    assert again == (0, 0, 0)
    wide = table(metrics=("gini",), confidence=0.99, options={}).intervals[0, 0]
    narrow = table(metrics=("gini",), confidence=0.5, options={}).intervals[0, 0]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_bootstrap_intervals_cover_the_mean():
    rng, hits = np.random.default_rng(1), 0
    draws = rng.integers(0, 40, (200, 40))
    for _ in range(200):
        found = _comparison.Comparison(
            ("m",), (), ("x",), ("higher",), rng.normal(size=(1, 1, 40)), {}, {}, draws, 0.9
        )
        low, high = found.intervals[0, 0]
        hits += low < 0 < high
    assert 0.8 < hits / 200 < 0.97


def test_agreement_is_kendalls(whole):
    values = RNG.normal(size=(9, 3, 5))
    values[:, 1] = -values[:, 0]
    names = tuple("abcdefghi")
    found = _comparison.Comparison(
        names, (), ("x", "y", "z"), ("higher", "lower", "higher"), values, {}, {}, whole.draws, 0.9
    ).agreement
    assert found[0, 1] == 1
    expected = scipy.stats.kendalltau(values[:, 0].mean(-1), values[:, 2].mean(-1))[0]
    assert found[0, 2] == pytest.approx(expected)
    ties = np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 2.0, 0.0])
    assert _comparison._kendall(*ties) == pytest.approx(scipy.stats.kendalltau(*ties)[0])
    assert np.isnan(table(methods={"s": jaxai.saliency}, metrics=("gini",), options={}).agreement).all()


def test_text_json_and_csv(whole, tmp_path):
    text = str(whole)
    assert "relevance_gain (max)" in text and "entropy (min)" in text and "12 images" in text
    assert all(row in text for row in whole.rows) and "(chance)" in text
    lines = text.splitlines()
    assert lines[2].startswith("input x gradient") and "*" in lines[2]
    whole.save(tmp_path / "new" / "table.json")
    found = json.loads((tmp_path / "new" / "table.json").read_text())
    assert found["rows"] == list(whole.rows) and found["scores"][6][5][0] is None
    np.testing.assert_allclose(found["means"][0][0], whole.means[0, 0])
    assert found["settings"]["options"]["relevance_gain"] == {"steps": 10, "fill": 0.0}
    whole.save(tmp_path / "table.csv")
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert len(lines) == 7 * 6 and lines[0]["row"] == "input x gradient"
    assert float(lines[0]["mean"]) == whole.means[0, 0] and lines[-1]["mean"] == ""
    with pytest.raises(ValueError, match="must end in .json or .csv; got 'table.txt'"):
        whole.save(tmp_path / "table.txt")


def test_same_scores_at_any_batch_size(whole):
    small = table(batch_size=5)
    np.testing.assert_allclose(small.scores, whole.scores, atol=1e-4)
    np.testing.assert_array_equal(small.draws, whole.draws)


def test_maps_for_methods_and_smaller_maps():
    maps = RNG.random((12, 5, 6)).astype(np.float32)
    found = table(methods={"given": maps}, metrics=("mass_accuracy", "emprt"), options={})
    large = jaxai.maps.upsample(jnp.asarray(maps), (10, 12))
    close(found.scores[0, 0], metrics.mass_accuracy(large, MASKS))
    assert np.isnan(found.scores[0, 1]).all() and found.seconds == {}
    flat = table(methods={"flat": np.ones((12, 10, 12))}, metrics=("rank_accuracy", "gini"), options={})
    assert np.isnan(flat.means[0, 0]) and "-" in str(flat)


def test_a_metric_of_ones_own():
    mine = metrics.Metric(lambda maps: maps.mean((1, 2)), "how large?", "maps", "lower", "any", "0")
    found = table(metrics=(mine, "gini"), options={})
    assert found.better == ("lower", "higher")
    close(found.scores[0, 0], jaxai.input_x_gradient(MODEL, IMAGES, 0).sum(-1).mean((1, 2)))
    wrong = metrics.Metric(lambda maps: maps.mean(), "how large?", "maps", "lower", "any", "0")
    with pytest.raises(ValueError, match=r"must give one number per image; got shape \(\)"):
        table(metrics=(wrong,), options={})


def test_references():
    random = _references.method("random", KEY)
    first = random(MODEL, IMAGES, None)
    close(random(MODEL, IMAGES[3:5], None), first[3:5])
    assert np.unique(np.asarray(first[:, 0, 0])).size == 12 and 0 <= first.min() and first.max() <= 1
    assert np.abs(random(MODEL, IMAGES + 1e-3, None) - first).mean() > 0.2
    centre = np.asarray(_references.method("centre", KEY)(MODEL, IMAGES, None))
    assert (centre == centre[:, ::-1, ::-1]).all() and centre[0].argmax() in (4 * 12 + 5, 4 * 12 + 6)
    step = jnp.zeros((1, 6, 6, 1)).at[:, :, 3:].set(1.0)
    edges = np.asarray(_references.method("edges", KEY)(MODEL, step, None))
    np.testing.assert_array_equal(edges[0, 2], [0, 0, 4, 4, 0, 0])
    close(_references.method("image", KEY)(MODEL, IMAGES, None), IMAGES.mean(-1))


def test_the_list_of_metrics_is_whole():
    """Every function that scores maps is in the list, in the page, and refers to a paper."""
    listed = {metric.name for metric in metrics.METRICS}
    helpers = {"chance", "compare", "linear", "mosaics", "prediction_flips", "similarity", "sufficiency"}
    functions = {name for name in metrics.__all__ if name.islower()}
    assert listed | helpers == functions and not listed & helpers
    for metric in metrics.METRICS:
        assert getattr(metrics, metric.name) is metric.function
        assert "References:" in metric.function.__doc__, metric.name


@pytest.mark.slow
def test_every_metric_runs():
    masks = MASKS[:3]
    segments = jnp.broadcast_to(jnp.arange(12) // 4, (3, 10, 12))
    small = {"num_samples": 4}
    options = {
        "irof": {"segments": segments},
        "top_k_intersection": {"k": 20},
        "sensitivity_n": {"sizes": (3, 30), **small},
        "faithfulness_correlation": {"subset_size": 20, **small},
        "region_perturbation": {"steps": 2, "window": 3},
        "smooth_mprt": {"num_samples": 2},
        "monotonicity_correlation": {"num_samples": 2},
        "relevance_gain": {"steps": 3},
        "infidelity": small,
    }
    found = metrics.compare(
        MODEL,
        IMAGES[:3],
        0,
        methods={"ixg": jaxai.input_x_gradient},
        metrics=[metric.name for metric in metrics.METRICS],
        key=KEY,
        masks=masks,
        references=("random",),
        options=options,
        draws=20,
    )
    known = np.isfinite(found.scores[0]).any(-1)
    assert known.all(), np.array(found.metrics)[~known]


def test_errors():
    with pytest.raises(ValueError, match="unknown metric 'beauty'; the metrics are relevance_gain"):
        table(metrics=("beauty",))
    with pytest.raises(ValueError, match="`metrics` must be different metrics, at least one; got none"):
        table(metrics=())
    with pytest.raises(ValueError, match="`mass_accuracy` needs `masks`"):
        table(masks=None, metrics=("mass_accuracy",), options={})
    with pytest.raises(ValueError, match="`irof` needs `segments`"):
        table(metrics=("irof",), options={})
    with pytest.raises(TypeError, match="`methods` must map names"):
        table(methods=jaxai.saliency)
    with pytest.raises(ValueError, match="names of references; got 'random'"):
        table(methods={"random": jaxai.saliency})
    with pytest.raises(ValueError, match="`references` must be one of random, centre"):
        table(references=("noise",))
    with pytest.raises(ValueError, match="`options` must be of the metrics gini; got 'iou'"):
        table(metrics=("gini",), options={"iou": {}})
    with pytest.raises(ValueError, match=r"`confidence` must be a number in \(0, 1\)"):
        table(confidence=1)
    with pytest.raises(ValueError, match="`targets` must be one for each image"):
        metrics.compare(MODEL, IMAGES, jnp.array([[0, 1]] * 12), methods=METHODS, key=KEY)
    with pytest.raises(ValueError, match="unknown row 'nobody'; there are"):
        table(metrics=("gini",), options={}).difference("gini", "nobody", "random")
    with pytest.raises(ValueError, match="`method` must return maps"):
        table(methods={"bad": lambda m, x, t: x[0]}, metrics=("gini",), options={})


def test_the_page_has_the_table():
    from pathlib import Path

    page = (Path(jaxai.__file__).parent.parent / "docs" / "metrics.md").read_text("utf-8")
    assert _table.markdown() in page
