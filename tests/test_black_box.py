import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


METHODS = {
    "lime": (lambda m, t: jaxai.lime(m, IMAGES, t, **RUN).weights),
    "kernel_shap": (lambda m, t: jaxai.kernel_shap(m, IMAGES, t, **RUN).values),
    "exact_shapley": (lambda m, t: jaxai.exact_shapley(m, IMAGES, t, segments=SEGMENTS).values),
    "owen_values": (lambda m, t: jaxai.owen_values(m, IMAGES, t, segments=SEGMENTS).values),
    "rise": (lambda m, t: jaxai.rise(m, IMAGES, t, key=KEY, num_masks=40, grid=2)),
    "occlusion": (lambda m, t: jaxai.occlusion(m, IMAGES, t, window=3, strides=2)),
    "feature_ablation": (lambda m, t: jaxai.feature_ablation(m, IMAGES, t, segments=SEGMENTS).values),
    "sobol": (lambda m, t: jaxai.sobol(m, IMAGES, t, grid=2, num_designs=8)),
    "hsic": (lambda m, t: jaxai.hsic(m, IMAGES, t, grid=2, num_designs=20)),
}


@pytest.mark.parametrize("name", METHODS)
def test_same_as_a_model_of_jax(name):
    for targets in (None, jnp.array([[0, 1], [1, 0]])):
        expected = METHODS[name](model, targets)
        np.testing.assert_allclose(METHODS[name](black_box(predict), targets), expected, atol=1e-4)


def test_batches_are_bounded():
    sizes = []

    def counting(images):
        sizes.append(len(images))
        return predict(images)

    jaxai.lime(black_box(counting), IMAGES, 0, batch_size=7, **RUN)
    assert max(sizes) == 7 and sum(sizes) == 100


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
    assert len(list(folder.glob("*.npy"))) == 3 and not list(folder.glob("*.tmp"))
    found = jaxai.lime(black_box(failing, cache=folder), IMAGES, 0, batch_size=10, **RUN)
    assert len(calls) == 4 + 7
    np.testing.assert_allclose(found.weights, jaxai.lime(model, IMAGES, 0, **RUN).weights, atol=1e-5)
    jaxai.lime(black_box(failing, cache=folder), IMAGES, 0, batch_size=10, **RUN)
    assert len(calls) == 11


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
    with pytest.raises(ValueError, match="classes from 0; got -1"):
        jaxai.lime(black_box(predict), IMAGES, -1, **RUN)
    with pytest.raises(TypeError, match="integer classes"):
        jaxai.lime(black_box(predict), IMAGES, 0.5, **RUN)
    with pytest.raises(ValueError, match="with batch = 2"):
        jaxai.lime(black_box(predict), IMAGES, np.array([0, 1, 0]), **RUN)
    with pytest.raises(ValueError, match="NaN or infinite"):
        jaxai.lime(black_box(lambda x: predict(x) * np.nan), IMAGES, 0, **RUN)
