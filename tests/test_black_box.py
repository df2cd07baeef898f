import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import slow_but

import jaxai
from jaxai.perturbation import black_box

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(jax.random.key(1), (2, 6, 10, 3))
SEGMENTS = jaxai.perturbation._segments.grid((6, 10), 2, 3)
RUN = dict(segments=SEGMENTS, key=KEY, num_samples=50)


def model(x):
    return jnp.stack([jnp.sin(3 * x).mean((1, 2, 3)), x[:, :3, :4].mean((1, 2, 3))], axis=1) * 5


def predict(images):
    assert type(images) is np.ndarray
    first = np.sin(3 * images).mean((1, 2, 3))
    return np.stack([first, images[:, :3, :4].mean((1, 2, 3))], axis=1) * 5


CALLS = {
    "lime": (lambda m, x, t, **o: jaxai.lime(m, x, t, **RUN, **o).weights),
    "kernel_shap": (lambda m, x, t, **o: jaxai.kernel_shap(m, x, t, **RUN, **o).values),
    "exact_shapley": (lambda m, x, t, **o: jaxai.exact_shapley(m, x, t, segments=SEGMENTS, **o).values),
    "owen_values": (lambda m, x, t, **o: jaxai.owen_values(m, x, t, segments=SEGMENTS, **o).values),
    "permutation_shapley": (
        lambda m, x, t, **o: (
            jaxai.permutation_shapley(m, x, t, segments=SEGMENTS, key=KEY, num_permutations=2, **o).values
        )
    ),
    "rise": (lambda m, x, t, **o: jaxai.rise(m, x, t, key=KEY, num_masks=40, grid=2, **o)),
    "occlusion": (lambda m, x, t, **o: jaxai.occlusion(m, x, t, window=3, strides=2, **o)),
    "feature_ablation": (lambda m, x, t, **o: jaxai.feature_ablation(m, x, t, segments=SEGMENTS, **o).values),
    "sobol": (lambda m, x, t, **o: jaxai.sobol(m, x, t, grid=2, num_designs=8, **o)),
    "hsic": (lambda m, x, t, **o: jaxai.hsic(m, x, t, grid=2, num_designs=20, **o)),
}
METHODS = {name: (lambda m, t, call=call: call(m, IMAGES, t)) for name, call in CALLS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but("rise", METHODS))
def test_same_as_a_model_of_jax(name):
    for targets in (None, jnp.array([[0, 1], [1, 0]])):
        expected = METHODS[name](model, targets)
        np.testing.assert_allclose(METHODS[name](black_box(predict), targets), expected, atol=1e-4)


@pytest.mark.slow
def test_batches_are_bounded():
    sizes = []

    def counting(images):
        sizes.append(len(images))
        return predict(images)

    jaxai.lime(black_box(counting), IMAGES, 0, batch_size=7, **RUN)
    assert max(sizes) == 7 and sum(sizes) == 100


@pytest.mark.slow
def test_a_failed_run_goes_on_where_it_stopped(tmp_path):
    calls = []

    def failing(images):
        calls.append(len(images))
        if len(calls) == 4:
            raise ConnectionError("the service is away")
        return predict(images)

    folder = tmp_path / "cache"
    with pytest.raises(ConnectionError):
        jaxai.lime(black_box(failing, cache=folder), IMAGES, 0, batch_size=10, **RUN)
    assert len(list(folder.glob("*.npy"))) == 3 and not list(folder.glob(".*"))
    found = jaxai.lime(black_box(failing, cache=folder), IMAGES, 0, batch_size=10, **RUN)
    assert len(calls) == 4 + 7
    np.testing.assert_allclose(found.weights, jaxai.lime(model, IMAGES, 0, **RUN).weights, atol=1e-5)
    jaxai.lime(black_box(failing, cache=folder), IMAGES, 0, batch_size=10, **RUN)
    assert len(calls) == 11


@pytest.mark.slow
def test_progress_counts_model_calls(monkeypatch):
    from rich.progress import Progress

    done = []
    monkeypatch.setattr(Progress, "advance", lambda bar, task, advance=1: done.append(advance))
    jaxai.lime(black_box(predict, progress=True), IMAGES, 0, batch_size=30, **RUN)
    assert done == [30, 30, 30, 10]


def test_errors():
    with pytest.raises(TypeError, match="`predict` must be callable"):
        black_box(3)
    with pytest.raises(ValueError, match=r"must return scores \[16, ...\]"):
        jaxai.lime(black_box(lambda x: np.zeros(3)), IMAGES, 0, **RUN)
    with pytest.raises(ValueError, match="classes 0 to 1; got 2"):
        jaxai.lime(black_box(predict), IMAGES, 2, **RUN)
    with pytest.raises(ValueError, match="classes 0 and above; got -1"):
        jaxai.lime(black_box(predict), IMAGES, -1, **RUN)
    with pytest.raises(TypeError, match="an integer class"):
        jaxai.lime(black_box(predict), IMAGES, 0.5, **RUN)
    with pytest.raises(ValueError, match="with batch = 2"):
        jaxai.lime(black_box(predict), IMAGES, np.array([0, 1, 0]), **RUN)
    with pytest.raises(ValueError, match="NaN or infinite"):
        jaxai.lime(black_box(lambda x: predict(x) * np.nan), IMAGES, 0, **RUN)


@pytest.mark.sampled
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.slow
def test_originals_are_asked_for_in_batches(name):
    sizes = []

    def counting(images):
        sizes.append(len(images))
        return predict(images)

    images = jnp.concatenate([IMAGES] * 4)
    found = CALLS[name](black_box(counting), images, None, batch_size=3)
    np.testing.assert_allclose(found[:2], METHODS[name](model, None), atol=1e-4)
    assert max(sizes) == 3


@pytest.mark.slow
def test_predict_may_change_what_it_gets(tmp_path):
    def changing(images):
        images -= 0.5
        images += 0.5
        return predict(images)

    box = black_box(changing, cache=tmp_path / "scores")
    expected = METHODS["rise"](model, None)
    for _ in range(2):
        np.testing.assert_allclose(METHODS["rise"](box, None), expected, atol=1e-4)
    stored = box.scores(np.asarray(IMAGES))
    stored *= 2
    np.testing.assert_array_equal(box.scores(np.asarray(IMAGES)), stored / 2)


def test_methods_that_need_gradients_say_so():
    with pytest.raises(TypeError, match="`extremal_perturbation` needs gradients"):
        jaxai.extremal_perturbation(black_box(predict), IMAGES, 0)
    with pytest.raises(TypeError, match="`meaningful_perturbation` needs gradients"):
        jaxai.meaningful_perturbation(black_box(predict), IMAGES, 0, key=KEY)


def test_it_is_called_like_a_model_but_not_traced():
    box = black_box(predict)
    np.testing.assert_array_equal(box(IMAGES), box.scores(IMAGES))
    for method in (jaxai.saliency, jaxai.lrp, jaxai.grad_cam):
        with pytest.raises(
            TypeError, match="^a `black_box` has no gradients and runs outside JAX: pass a model"
        ):
            method(box, IMAGES, 0)
