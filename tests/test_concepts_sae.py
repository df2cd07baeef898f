"""Sparse autoencoders: planted dictionaries are found again, codes are sparse, dead ones are revived."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

from jaxai.concepts import sae, stability

KEY = jax.random.key(0)


def planted(count=4000, features=16, codes=24, k=3, seed=0):
    """Activations made of k entries each of a random dictionary."""
    rng = np.random.default_rng(seed)
    dictionary = rng.normal(size=(codes, features))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    weights = np.zeros((count, codes))
    for row in weights:
        row[rng.choice(codes, k, replace=False)] = rng.uniform(0.5, 1.5, k)
    return jnp.asarray(weights @ dictionary + 0.3, "float32"), dictionary


ACTS, DICTIONARY = planted()
OPTIONS = dict(num_codes=32, k=3, key=KEY, steps=1500, examples=256, learning_rate=5e-3)


@pytest.fixture(scope="module")
def trained():
    return sae(ACTS, **OPTIONS)


@pytest.mark.slow
def test_a_planted_dictionary_is_found(trained):
    cosines = np.asarray(trained.directions) @ DICTIONARY.T
    assert cosines.max(0).min() > 0.95
    # Eight codes more than there are directions may stay unused.
    assert trained.r2 > 0.93 and trained.dead <= 8
    np.testing.assert_allclose(np.linalg.norm(trained.directions, axis=1), 1, rtol=1e-5)
    assert (
        trained.history.shape == (1500,) and trained.history[-50:].mean() < 0.2 * trained.history[:10].mean()
    )


def test_codes_by_hand(trained):
    some = ACTS[:40].reshape(4, 10, 16)
    codes = np.asarray(trained.encode(some))
    x = (np.asarray(some) - np.asarray(trained.mean)) / np.asarray(trained.scale)
    every = np.maximum(x @ np.asarray(trained.encoder) + np.asarray(trained.threshold), 0)
    kept = np.where(every >= np.sort(every, -1)[..., -3:-2], every, 0)
    close(codes, kept)
    assert codes.shape == (4, 10, 32) and ((codes > 0).sum(-1) <= 3).all()
    close(trained.decode(codes), codes @ np.asarray(trained.directions) * trained.scale + trained.mean)
    rest = np.square(np.asarray(ACTS) - np.asarray(trained.decode(trained.encode(ACTS)))).sum()
    total = np.square(np.asarray(ACTS) - np.asarray(ACTS).mean(0)).sum()
    np.testing.assert_allclose(trained.r2, 1 - rest / total, atol=1e-4)
    usage = (np.asarray(trained.encode(ACTS)) > 0).mean(0)
    np.testing.assert_allclose(trained.usage, usage, atol=1e-3)
    assert "32 codes of 16 features, k=3" in repr(trained)


def test_the_key_decides():
    few = {**OPTIONS, "steps": 20}
    one, again = sae(ACTS, **few), sae(ACTS, **few)
    assert np.array_equal(one.directions, again.directions)
    assert (sae(ACTS, **{**few, "key": jax.random.key(1)}).directions != one.directions).any()
    # The axes before the features play no part.
    close(sae(ACTS.reshape(40, 10, 10, 16), **few).directions, one.directions)


@pytest.mark.slow
def test_trainings_agree_where_there_is_a_truth(trained):
    other = sae(ACTS, **{**OPTIONS, "key": jax.random.key(5)})
    mean, partners = stability(trained.directions, other.directions)
    assert mean > 0.8 and sorted(partners.tolist()) == list(range(32))


def test_errors():
    with pytest.raises(ValueError, match="`k` must be at most `num_codes`, 4; got 5"):
        sae(ACTS, num_codes=4, k=5, key=KEY)
    with pytest.raises(ValueError, match="`acts` must be finite and not all alike"):
        sae(jnp.ones((5, 3)), num_codes=4, k=1, key=KEY)
    with pytest.raises(ValueError, match="`acts` must be finite and not all alike"):
        sae(ACTS.at[0, 0].set(jnp.nan), num_codes=4, k=1, key=KEY)
    with pytest.raises(ValueError, match=r"`acts` must be \[..., features\]"):
        sae(ACTS[0], num_codes=4, k=1, key=KEY)
    with pytest.raises(TypeError, match="`key` must be a typed key"):
        sae(ACTS, num_codes=4, k=1, key=0)
    with pytest.raises(ValueError, match="of one shape"):
        stability(jnp.eye(3), jnp.eye(4))
