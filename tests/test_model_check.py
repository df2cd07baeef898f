import warnings

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxai


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        return self.dense(jax.nn.relu(self.norm(self.conv(x))).mean((1, 2)))


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(0), (3, 8, 8, 3)) * jnp.array([1.0, 2.0, 5.0]).reshape(3, 1, 1, 1)


def test_batch_statistics_are_noticed(images):
    net = Net(nnx.Rngs(0))
    net.train()
    with pytest.warns(UserWarning, match="change with its batch"):
        jaxai.check_model(net, images)


def test_inference_mode_is_silent(images):
    net = Net(nnx.Rngs(0))
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxai.check_model(net, images)


@pytest.mark.slow
def test_dropout_with_a_fixed_key_is_noticed(images):
    key, weights = jax.random.key(1), jax.random.normal(jax.random.key(2), (8 * 8 * 3, 4))

    def net(x):
        x = x.reshape(x.shape[0], -1)
        return jnp.where(jax.random.bernoulli(key, 0.7, x.shape), x, 0) @ weights

    # The first image gets the noise that it gets in the batch.
    same = jnp.abs(net(images)[:1] - net(images[:1])).max()
    assert same < 1e-3
    with pytest.warns(UserWarning, match="change with its batch"):
        jaxai.check_model(net, images)


def test_dropout_in_training_mode_is_named(images):
    class Dropped(nnx.Module):
        def __init__(self, rngs):
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.drop(x).mean((1, 2))

    net = Dropped(nnx.Rngs(0))
    with pytest.warns(UserWarning, match=r"call to call \(its layer 'drop'\): call model.eval\(\) first"):
        jaxai.check_model(net, images)
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxai.check_model(net, images)


def test_scores_that_change_from_call_to_call_are_noticed(images):
    calls = iter(range(100))

    def host(x):
        return jax.pure_callback(
            lambda v: v.sum((1, 2)) * (1 + next(calls)), jax.ShapeDtypeStruct((x.shape[0], 3), x.dtype), x
        )

    with pytest.warns(UserWarning, match="from call to call"):
        jaxai.check_model(host, images)


@pytest.mark.parametrize(
    ("model", "count", "message"),
    [
        (lambda x: x.sum((1, 2)), 1, "at least two images"),
        (lambda x: x.sum((0, 1, 2)), 2, "batch axis"),
        (lambda x: x.sum((1, 2)) * jnp.nan, 2, "finite scores"),
    ],
)
def test_errors(model, count, message):
    with pytest.raises(ValueError, match=message):
        jaxai.check_model(model, jnp.ones((count, 4, 4, 3)))
