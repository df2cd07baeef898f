"""The table of methods and metrics: references, paired intervals, agreement, files, bad input."""

import csv
import functools
import itertools
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
from jaxai.metrics import _agreement, _comparison, _greedy, _references, _table

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


@pytest.mark.slow
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


def test_one_image_has_no_interval():
    scores = np.array([[[0.5, np.nan], [0.5, 0.25]], [[np.nan, np.nan], [0.75, 1.0]]])
    draws = np.random.default_rng(2).integers(0, 2, (100, 2))
    found = _comparison.Comparison(("a", "b"), (), ("x", "y"), ("higher",) * 2, scores, {}, {}, draws, 0.9)
    assert np.isnan(found.intervals[:, 0]).all() and np.isfinite(found.intervals[:, 1]).all()
    mean, low, high = found.difference("x", "a", "a")
    assert mean == 0 and np.isnan([low, high]).all()
    assert "0.500 [-]" in str(found) and "nan" not in str(found)
    assert json.loads(found.to_json())["intervals"][0][0] == [None, None]
    first = list(csv.reader(found.to_csv().splitlines()))[1]
    assert first == ["a", "x", "higher", "0.5", "", "", "1"]
    unknown, known = (axes for axes in jaxai.plots.comparison(found).axes if axes.axison)
    assert len(unknown.collections) == 0 and len(known.collections) == 2
    assert sum(line.get_marker() == "o" for line in unknown.lines) == 1


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
    assert _agreement.kendall(*ties) == pytest.approx(scipy.stats.kendalltau(*ties)[0])
    assert np.isnan(table(methods={"s": jaxai.saliency}, metrics=("gini",), options={}).agreement).all()


def test_krippendorffs_alpha():
    """The author's example: four observers, twelve units, values missing; ordinal 0.815."""
    nan = np.nan
    values = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    assert _agreement.krippendorff(values) == pytest.approx(0.815, abs=5e-4)
    order = np.arange(6.0)
    assert _agreement.krippendorff(np.stack([order, order, order])) == 1
    # Two raters of opposite orders.
    assert _agreement.krippendorff(np.stack([order, order[::-1]])) < -0.7
    assert np.isnan(_agreement.krippendorff(np.ones((3, 4)))) and np.isnan(
        _agreement.krippendorff(order[None])
    )
    drawn = [_agreement.krippendorff(_agreement.ranks(RNG.normal(size=(4, 8)))) for _ in range(200)]
    # Chance draws without replacement from all 32 values, so that independent orders have 1 / 32.
    assert abs(np.mean(drawn) - 1 / 32) < 3 * np.std(drawn) / 200**0.5
    np.testing.assert_array_equal(_agreement.ranks(np.array([3.0, nan, 1, 3])), [1.5, nan, 0, 1.5])


def test_alpha_of_metrics_and_of_images(whole):
    signal = np.linspace(0, 1, 9)[:, None, None]
    names = tuple("abcdefghi")
    noise = RNG.normal(size=(9, 1, 20))
    values = np.concatenate([signal + 0.01 * RNG.normal(size=(9, 1, 20)), -signal + 0 * noise, noise], axis=1)
    draws = np.tile(np.arange(20), (5, 1))
    both = _comparison.Comparison(
        names, (), ("x", "y"), ("higher", "lower"), values[:, :2], {}, {}, draws, 0.9
    )
    assert both.alpha == 1 and both.reliability[0] > 0.95 and both.reliability[1] == 1
    three = _comparison.Comparison(
        names, (), ("x", "y", "z"), ("higher", "lower", "higher"), values, {}, {}, draws, 0.9
    )
    assert three.alpha < 0.9 and abs(three.reliability[2]) < 0.15
    assert f"alpha of metrics {three.alpha:.2f}" in str(three)
    assert three.to_dict()["alpha"] == three.alpha and len(three.to_dict()["reliability"]) == 3
    one = _comparison.Comparison(names, (), ("x",), ("higher",), values[:, :1], {}, {}, draws, 0.9)
    assert np.isnan(one.alpha) and "alpha" not in str(one) and one.to_dict()["alpha"] is None


def test_what_methods_cost():
    methods = {
        "gradient": jaxai.saliency,
        "path": functools.partial(jaxai.integrated_gradients, steps=7),
        "mine": lambda model, x, t: x[..., 0],
    }
    found = table(methods=methods, metrics=("gini",), options={}, references=())
    assert found.passes == {"gradient": "1 + 1 backward", "path": "8 + 7 backward"}
    assert found.to_dict()["passes"] == found.passes
    head, *lines = str(found).splitlines()
    assert head.endswith("passes") and "8 + 7 backward" in lines[2] and "backward" not in lines[3]


@pytest.mark.slow
def test_greedy_search_attains_what_can_be_attained():
    """Against all orders of six cells; on a linear model it finds the best one."""
    images = jnp.asarray(RNG.normal(size=(2, 4, 6, 1)), jnp.float32)
    weights = jnp.asarray(RNG.normal(size=(24, 3)), jnp.float32)
    cells = np.kron(np.arange(6).reshape(2, 3), np.ones((2, 2), int))

    def rough(x):
        return jnp.tanh(x.reshape(len(x), -1)) @ weights + jnp.prod(x[:, :2, :2], (1, 2)) * 3

    def orders(model, images):
        every = list(itertools.permutations(range(6)))
        maps = np.stack([np.array(order, np.float32)[cells] for order in every])
        return np.stack(
            [
                metrics.relevance_gain(
                    model, jnp.repeat(image[None], len(every), 0), maps, 0, segments=cells, fill=0.0
                ).gain
                for image in images
            ]
        )

    def gains(model):
        return np.asarray(
            metrics.relevance_gain(model, images, search(model), 0, segments=cells, fill=0.0).gain
        )

    def search(model):
        return _greedy.search(model, images, 0, grid=(2, 3), fill=0.0)

    def flat(x):
        return (x.reshape(len(x), -1) @ weights)[:, :1] * jnp.array([[0.1, 0.0]]) - jnp.array([[0.0, 2.0]])

    every = orders(flat, images)
    np.testing.assert_allclose(gains(flat), every.max(1), atol=1e-4)
    every = orders(rough, images)
    found = gains(rough)
    assert (found <= every.max(1) + 1e-5).all() and (found >= np.quantile(every, 0.9, axis=1)).all()
    close(_greedy.search(rough, images, 0, grid=(2, 3), fill=0.0, batch_size=2), search(rough))


@pytest.mark.slow
def test_greedy_as_a_reference():
    found = table(
        metrics=("relevance_gain", "emprt"),
        references=("random", "greedy"),
        options={"relevance_gain": {"steps": 10}},
        draws=20,
    )
    gain = dict(zip(found.rows, found.means[:, 0], strict=True))
    assert gain["greedy"] > gain["random"] + 0.1
    assert gain["greedy"] > gain["input x gradient"] - 0.1


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
    with pytest.raises(ValueError, match="must end in .json or .csv, or be a folder; got 'table.txt'"):
        whole.save(tmp_path / "table.txt")


@pytest.mark.slow
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
    helpers = {"chance", "compare", "linear", "mosaics", "prediction_flips", "similarity"}
    helpers |= {"consistency", "sufficiency"}
    functions = {name for name in metrics.__all__ if name.islower()}
    assert listed | helpers == functions and not listed & helpers
    for metric in metrics.METRICS:
        assert getattr(metrics, metric.name) is metric.function
        assert "References:" in metric.function.__doc__, metric.name


@pytest.mark.slow
def test_every_metric_runs(dense_net, small_images):
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
        "non_sensitivity": {"num_samples": 2},
        "sic": {"fill": 0.0, "shares": (0.1, 0.4)},
    }
    # A network of one layer has none in between, and this one sees the first class in the blurred image too.
    hidden = ("relative_representation_stability", "aic")
    within = metrics.compare(
        dense_net,
        small_images,
        methods={"ixg": jaxai.input_x_gradient},
        metrics=hidden,
        key=KEY,
        references=(),
        options={"aic": {"fill": 0.0, "shares": (0.1, 0.4)}},
        draws=20,
    )
    assert np.isfinite(within.scores).any(-1).all()
    found = metrics.compare(
        MODEL,
        IMAGES[:3],
        0,
        methods={"ixg": jaxai.input_x_gradient},
        metrics=[metric.name for metric in metrics.METRICS if metric.name not in hidden],
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
