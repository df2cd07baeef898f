"""The study: its data hold their signal where the masks say, runs are resumed, the page is written."""

import json

import jax
import numpy as np
import pytest

from benchmarks.study import boxes, datasets, methods, page, results, training, truth, units

KEY = jax.random.key(3)


def _draw(draw, number, key=KEY):
    return jax.jit(draw, static_argnums=1)(key, number)


def _right(features, labels):
    """Return the accuracy of a least-squares probe on the half of the images that it was not fitted to."""
    half = len(labels) // 2
    with_one = np.concatenate([features, np.ones((len(features), 1))], 1)
    signs = 2.0 * labels - 1
    gram = with_one[:half].T @ with_one[:half] + 0.01 * np.eye(with_one.shape[1])
    weights = np.linalg.solve(gram, with_one[:half].T @ signs[:half])
    return float(((with_one[half:] @ weights > 0) == labels[half:]).mean())


def test_a_linear_probe_finds_the_signal_in_the_mask_and_nowhere_else():
    drawn = _draw(datasets.tetrominoes("linear", "white"), 1200)
    mask = np.asarray(drawn.masks[0])
    assert (np.asarray(drawn.masks) == mask).all()
    images, labels = np.asarray(drawn.images)[..., 0], np.asarray(drawn.labels)
    assert _right(images[:, mask], labels) > 0.9
    # As many pixels elsewhere.
    outside = np.flatnonzero(~mask.ravel())[:: (~mask).sum() // mask.sum()][: mask.sum()]
    assert abs(_right(images.reshape(1200, -1)[:, outside], labels) - 0.5) < 0.07


@pytest.mark.parametrize("draw", [datasets.pasted(), datasets.TETROMINOES["tetrominoes, xor, correlated"]])
def test_images_differ_from_those_without_the_signal_in_the_mask_only(draw):
    drawn = _draw(draw, 8)
    apart = np.abs(np.asarray(drawn.images - drawn.without)).max(-1)
    masks = np.asarray(drawn.masks)
    assert apart[~masks].max() < 1e-6
    assert (apart * masks).max((1, 2)).min() > 0.01


@pytest.mark.slow
def test_only_the_tagged_class_carries_the_tag():
    drawn = _draw(datasets.clever_hans(), 64)
    apart = np.abs(np.asarray(drawn.images - drawn.without)).max((1, 2, 3)) > 0
    np.testing.assert_array_equal(apart, np.asarray(drawn.labels) == datasets.TAGGED)
    np.testing.assert_array_equal(apart, np.asarray(drawn.scenes) == 1)
    moved = _draw(datasets.clever_hans(everywhere=True, share=0.0), 64)
    assert (np.asarray(moved.scenes) == (np.asarray(moved.labels) != datasets.TAGGED)).all()


@pytest.mark.slow
def test_an_image_depends_on_the_key_and_its_number_alone():
    draw = datasets.pasted()
    few, many, other = _draw(draw, 3), _draw(draw, 8), _draw(draw, 3, jax.random.key(4))
    np.testing.assert_array_equal(few.images, many.images[:3])
    assert float(np.abs(np.asarray(few.images - other.images)).max()) > 0.1


def test_boxes_are_boxes():
    masks = np.asarray(boxes.masks(224))
    assert masks.shape == (20, 224, 224)
    shares = masks.mean((1, 2))
    # The class of each is in its name.
    assert 0.05 < shares.min() and shares.max() < 0.9
    assert all(0 <= boxes.label(name) < 1000 for name in boxes.BOXES | boxes.SAMPLES)
    # scikit-image's: the cat fills its photograph, the rocket does not.
    cat, _, rocket = np.asarray(boxes.masks(100, boxes.SAMPLES)).mean((1, 2))
    assert cat > 0.9 and 0.01 < rocket < 0.1
    assert [photo.ndim for photo in boxes.photos("scikit-image").values()] == [3, 3, 3]


def test_every_method_has_a_file_of_its_own(tmp_path):
    for side in (32, 224):
        titles = [*methods.entries(side), "references", "about"]
        assert len({units.path(tmp_path, title) for title in titles}) == len(titles)


def test_a_unit_is_run_once(tmp_path):
    file, calls = units.path(tmp_path, "A b", "|c|"), []

    def make():
        calls.append(1)
        return {"value": len(calls)}

    assert units.done(file, make) == units.done(file, make) == {"value": 1}
    with pytest.raises(KeyboardInterrupt):
        units.done(units.path(tmp_path, "new"), _interrupted)
    assert [path.name for path in tmp_path.rglob("*.json")] == [file.name]


def _unit(folder, task, seed, method, score, accuracy=0.9):
    where = folder / "truth" / f"{task}_{seed}"
    about = {"task": task, "seed": seed, "accuracy": accuracy, "learnt": True, "images": 1}
    units.path(where, "about").parent.mkdir(parents=True, exist_ok=True)
    units.path(where, "about").write_text(json.dumps(about))
    rows = {"it": {"auc": [score]}}
    unit = {"method": method, "rows": rows, "better": {"auc": "higher"}, "chance": {}, "seconds": 1.0}
    units.path(where, method).write_text(json.dumps(unit))


def test_results_of_another_machine_stay_unless_they_are_measured_anew(tmp_path):
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "out"
    _unit(first, "a", 0, "one", 0.1)
    _unit(first, "b", 0, "one", 0.2)
    _unit(first, "c", 0, "one", 0.3)
    results.gather(first, out)
    _unit(second, "a", 0, "two", 0.4)
    _unit(second, "b", 0, "one", 0.5)
    # Trained to another network: what is known of the first one does not hold.
    _unit(second, "c", 0, "two", 0.6, accuracy=0.8)
    _unit(second, "c", 1, "two", 0.7)
    results.gather(second, out)
    found = {
        (g["task"], g["seed"]): {m: row["auc"] for m, row in g["rows"].items()}
        for g in results.read("truth", out)
    }
    assert found == {
        ("a", 0): {"one": [0.1], "two": [0.4]},
        ("b", 0): {"one": [0.5]},
        ("c", 0): {"two": [0.6]},
        ("c", 1): {"two": [0.7]},
    }


def _interrupted():
    raise KeyboardInterrupt


def _scores(folder):
    found = {}
    for path in sorted(folder.rglob("truth/**/*.json")):
        unit = json.loads(path.read_text())
        for clock in ("seconds", "took"):
            unit.pop(clock, None)
        found[str(path.relative_to(folder))] = unit
    return found


TINY = {
    "seeds": 1,
    "tasks": ("tetrominoes, translations and rotations, white",),
    "number": 3,
    "steps": 100,
    "only": ("saliency", "Grad-CAM", "input x gradient"),
}


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_the_page_is_made_of_it(tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for _ in truth.run(whole, **TINY):
        pass
    real, calls = units.scored, []

    def until(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(units, "scored", until)
    with pytest.raises(KeyboardInterrupt):
        list(truth.run(stopped, **TINY))
    list(truth.run(stopped, **TINY))
    assert _scores(stopped) == _scores(whole)
    assert len(calls) == 1 + 1 + 3

    page.write(whole, tmp_path / "results", tmp_path / "docs")
    text = (tmp_path / "docs" / "experiments.md").read_text()
    group = results.read("truth", tmp_path / "results")[0]
    assert group["accuracy"] >= training.LEARNT
    mean = np.mean(group["rows"]["saliency"]["rank_accuracy"])
    assert f"{mean:.2f} [" in text and "1 trainings of 1 tasks" in text
    assert (tmp_path / "docs" / "images" / "experiments_truth.png").stat().st_size > 5000
