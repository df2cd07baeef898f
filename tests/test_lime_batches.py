"""LIME of several images: each as alone, in chunks, jitted, mapped, padded, in bfloat16; compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai.perturbation import _designs

KEY = jax.random.key(0)


def small_batch():
    """Three images of 6 x 10 pixels with 6, 4 and 5 superpixels, and a model of three classes."""
    images = jax.random.uniform(jax.random.key(3), (3, 6, 10, 3))
    labels = [jaxai.perturbation._segments.grid((6, 10), *g) for g in ((2, 3), (2, 2), (1, 5))]
    weights = jax.random.normal(jax.random.key(4), (6, 10, 3, 3))
    return jax.tree_util.Partial(_small_model, weights), images, jnp.stack(labels)


def _small_model(weights, x):
    return jnp.einsum("nhwc,hwck->nk", jnp.sin(3 * x), weights) / 8


class TestBatches:
    def run(self, images, labels, **options):
        model = small_batch()[0]
        options = {"key": KEY, "num_samples": 60, **options}
        return jaxai.lime(model, images, segments=labels, **options)

    @pytest.mark.sampled
    @pytest.mark.parametrize("sampling", _designs.SAMPLING)
    @pytest.mark.slow
    def test_batch_is_each_image_alone(self, sampling):
        _, images, labels = small_batch()
        both = self.run(images, labels, sampling=sampling)
        alone = self.run(images[1:2], labels[1:2], sampling=sampling)
        np.testing.assert_allclose(both.weights[1, :4], alone.weights[0], atol=1e-5)
        np.testing.assert_allclose(both.score[1], alone.score[0], atol=1e-4)
        np.testing.assert_allclose(both.standard_error[1, :4], alone.standard_error[0], atol=1e-5)
        assert (both.weights[1, 4:] == 0).all() and (both.weights[0] != 0).all()

    @pytest.mark.slow
    def test_any_chunk_size(self):
        _, images, labels = small_batch()
        whole = self.run(images, labels, batch_size=1000)
        part = self.run(images, labels, batch_size=7)
        np.testing.assert_allclose(part.weights, whole.weights, atol=1e-6)
        assert np.array_equal(part.masks, whole.masks)

    @pytest.mark.slow
    def test_jit_and_vmap(self):
        model, images, labels = small_batch()
        plain = self.run(images, labels)

        def explain(x, s):
            return jaxai.lime(model, x, segments=s, key=KEY, num_samples=60, num_segments=6)

        jitted = jax.jit(explain)(images, labels)
        np.testing.assert_allclose(jitted.weights, plain.weights, atol=1e-5)
        np.testing.assert_allclose(jitted.heatmap, plain.heatmap, atol=1e-5)
        mapped = jax.vmap(lambda x, s: explain(x[None], s[None]))(images, labels)
        np.testing.assert_allclose(mapped.weights[:, 0], plain.weights, atol=1e-5)

    @pytest.mark.slow
    def test_many_targets_are_one_after_the_other(self):
        _, images, labels = small_batch()
        many = self.run(images, labels, targets=jnp.array([[0, 2], [1, 0], [2, 0]]))
        first = self.run(images, labels, targets=jnp.array([0, 1, 2]))
        assert many.weights.shape == (3, 2, 6) and many.heatmap.shape == (3, 2, 6, 10)
        assert many.predictions.shape == (3, 60, 2)
        np.testing.assert_allclose(many.weights[:, 0], first.weights, atol=1e-6)
        np.testing.assert_allclose(many.score[:, 0], first.score, atol=1e-5)
        np.testing.assert_allclose(many.standard_error[:, 0], first.standard_error, atol=1e-6)

    @pytest.mark.slow
    def test_top_class_is_frozen(self):
        model, images, labels = small_batch()
        assert np.array_equal(self.run(images, labels).targets, model(images).argmax(1))

    @pytest.mark.slow
    def test_own_masks_of_each_image(self):
        _, images, labels = small_batch()
        masks = _designs.uniforms(KEY, samples=90, count=6).reshape(3, 30, 6).round()
        both = self.run(images, labels, masks=masks)
        alone = self.run(images[1:2], labels[1:2], masks=masks[1, :, :4])
        np.testing.assert_allclose(both.weights[1, :4], alone.weights[0], atol=1e-5)

    def test_shared_labels(self):
        _, images, labels = small_batch()
        shared = self.run(images, labels[0])
        np.testing.assert_allclose(
            shared.weights, self.run(images, jnp.stack([labels[0]] * 3)).weights, atol=1e-6
        )

    @pytest.mark.slow
    def test_options_on_padded_images(self):
        _, images, labels = small_batch()
        for options in (
            {"distance": "pixel_cosine", "kernel_width": 1.0, "regression": "lasso", "alpha": 1e-4},
            {"num_features": 2},
            {"num_features": 3, "feature_selection": "lasso_path", "fill": "neighbours"},
        ):
            both = self.run(images, labels, **options)
            alone = self.run(images[1:2], labels[1:2], **options)
            np.testing.assert_allclose(both.weights[1, :4], alone.weights[0], atol=2e-5, err_msg=str(options))


@pytest.mark.slow
def test_bfloat16():
    model, images, labels = small_batch()
    low = jax.tree.map(lambda w: w.astype(jnp.bfloat16), model)
    e = jaxai.lime(low, images.astype(jnp.bfloat16), 0, segments=labels, key=KEY, num_samples=200)
    exact = jaxai.lime(model, images, 0, segments=labels, key=KEY, num_samples=200)
    assert e.weights.dtype == jnp.float32 and e.predictions.dtype == jnp.float32
    assert np.corrcoef(np.ravel(e.weights), np.ravel(exact.weights))[0, 1] > 0.99


def test_nothing_is_compiled_twice():
    model, images, labels = small_batch()
    run = dict(segments=labels, num_samples=20)
    jaxai.lime(model, images, 0, key=KEY, **run)
    with jax.log_compiles(), jax.check_tracer_leaks(False):
        import logging

        seen = []
        handler = logging.Handler()
        handler.emit = lambda record: seen.append(record.getMessage())
        logging.getLogger("jax").addHandler(handler)
        try:
            jaxai.lime(model, images + 0.1, 1, key=jax.random.key(5), alpha=2.0, kernel_width=0.3, **run)
        finally:
            logging.getLogger("jax").removeHandler(handler)
    assert not [m for m in seen if "Finished XLA compilation of jit(_scores)" in m]
    assert not [m for m in seen if "Finished XLA compilation of jit(fit_images)" in m]
