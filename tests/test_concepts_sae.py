"""Sparse autoencoders: planted dictionaries are found again, codes are sparse, dead ones are revived."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

from jaxai.concepts import _sae_kinds as kinds
from jaxai.concepts import _sae_training, load_sae, monosemanticity, sae, save_activations, stability

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


@pytest.mark.slow
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
    assert "top_k, 32 codes of 16 features, k=3, l0=3.0" in repr(trained)


@pytest.mark.slow
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


KINDS = ["top_k", "batch_top_k", "jump_relu", "matching_pursuit"]


@pytest.mark.slow
@pytest.mark.parametrize("dictionary", ["free", "archetypal"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_the_planted_dictionary(kind, dictionary):
    from scipy.optimize import linear_sum_assignment

    acts, truth = planted(6000, 32, 40, 3, seed=1)
    found = sae(
        acts,
        num_codes=56,
        k=3,
        key=KEY,
        kind=kind,
        dictionary=dictionary,
        steps=2000,
        examples=256,
        learning_rate=5e-3,
    )
    cosines = np.asarray(found.directions) @ truth.T
    assert cosines[linear_sum_assignment(-cosines)].mean() > 0.95
    assert found.r2 > 0.93 and found.l0 < 4.5
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1, rtol=1e-5)
    used = np.asarray(found.encode(acts) > 0)
    np.testing.assert_allclose(used.sum(1).mean(), found.l0, rtol=1e-3)
    assert used.sum(1).max() <= 3 or kind in ("batch_top_k", "jump_relu")


@pytest.mark.slow
def test_the_start_explains_more_than_nothing():
    """The transposed dictionary alone, of overlapping entries, overshoots: worse than the mean."""
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(200, 24)), jnp.float32)
    entries = _sae_training.of_length_one(jnp.asarray(rng.normal(size=(96, 24)), jnp.float32))
    size, gate = _sae_training._suited(12, entries, x)
    codes = np.maximum(np.asarray(x @ entries.T), 0)
    assert (codes >= float(gate)).sum() == 12 * 200
    made = np.where(codes >= float(gate), codes, 0) @ np.asarray(entries)
    left = [float(np.square(np.asarray(x) - s * made).sum()) for s in (0.99 * size, size, 1.01 * size, 1.0)]
    assert left[1] < min(left[0], left[2]) and left[3] > np.square(x).sum() > left[1]
    found = sae(x, num_codes=96, k=12, key=KEY, steps=1, learning_rate=1e-9)
    assert found.history[0] < 0.7 and found.r2 > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["top_k", "batch_top_k", "jump_relu"])
def test_dead_codes_are_revived(kind, monkeypatch):
    """Most entries start in a direction that no activation has much of; they are in use in the end."""
    acts, _ = planted(4000, 32, 40, 3, seed=1)
    start = _sae_training._start

    def poor(plan, chosen, *rest):
        return start(plan, chosen.at[12:].set(chosen[0] + 0.3 * chosen[12:]), *rest)

    monkeypatch.setattr(_sae_training, "_start", poor)
    options = dict(num_codes=56, k=3, key=KEY, kind=kind, steps=1200, examples=256, learning_rate=2e-3)
    found = sae(acts, **options)
    monkeypatch.setattr(_sae_training, "_PATIENCE", 10**6)
    _sae_training._round.clear_cache()
    left = sae(acts, **options)
    _sae_training._round.clear_cache()
    assert found.dead < left.dead / 2 and found.r2 > left.r2 - 0.01, (found, left)


@pytest.mark.slow
@pytest.mark.parametrize("k", [3, 6, 1])
def test_the_number_of_codes_is_held(k):
    """Also where the data has three: what is asked is what is found, within a tenth."""
    acts, _ = planted(6000, 32, 40, 3, seed=1)
    options = dict(num_codes=56, key=KEY, kind="jump_relu", examples=256, learning_rate=5e-3)
    found = sae(acts, k=k, steps=600, **options)
    assert abs(float(found.l0) / k - 1) < 0.1 and found.r2 > {1: 0.3, 3: 0.8, 6: 0.9}[k]


@pytest.mark.slow
def test_archetypal_dictionaries_are_more_stable():
    """Without a truth to find, trainings of two keys agree more if entries are means of the same points."""
    rng = np.random.default_rng(0)
    acts = jnp.asarray(rng.gamma(0.5, size=(5000, 16)) @ rng.normal(size=(16, 16)), "float32")
    free, archetypal = (agreement(acts, one, steps=800) for one in ("free", "archetypal"))
    assert archetypal > 0.8 and archetypal > free + 0.1


def agreement(acts, dictionary, least=0.7, **changes):
    """Return the stability over two keys, of trainings that explain enough."""
    options = dict(num_codes=48, k=4, examples=256, learning_rate=5e-3, dictionary=dictionary) | changes
    trainings = [sae(acts, key=jax.random.key(seed), **options) for seed in (0, 1)]
    assert min(one.r2 for one in trainings) > least and max(one.dead for one in trainings) <= 1
    return float(stability(*(one.directions for one in trainings))[0])


@pytest.mark.slow
def test_archetypal_dictionaries_of_a_real_network_are_more_stable(lite0, photos):
    rng, squares = np.random.default_rng(0), []
    for photo in 12 * list(photos.values()):
        side = int(min(photo.shape[:2]) * rng.uniform(0.35, 1))
        top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
        squares.append(photo[top : top + side, left : left + side])
    acts = lite0.model(lite0.normalize(lite0.crop(squares)), stop="block6d")
    options = dict(least=0.6, num_codes=192, k=8, steps=300)
    free, archetypal = (agreement(acts, one, **options) for one in ("free", "archetypal"))
    assert archetypal > 0.9 and archetypal > free + 0.2


def test_rows_are_projected_to_convex_weights():
    """Against the sorted form of the projection; also where one large weight stands beside many small."""
    rng = np.random.default_rng(4)
    steps = np.eye(300)[:20] + rng.choice([-3e-3, 3e-3], (20, 300))
    for weights in (rng.normal(size=(30, 40)), steps, np.zeros((2, 7)), np.ones((2, 1)), 1e-3 * steps):
        down = -np.sort(-weights, axis=1)
        excess = (down.cumsum(1) - 1) / np.arange(1, 1 + weights.shape[1])
        last = (down > excess).sum(1) - 1
        expected = np.maximum(weights - excess[np.arange(len(weights)), last][:, None], 0)
        found = np.asarray(_sae_training._convex(jnp.asarray(weights, jnp.float32)))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.asarray(_sae_training._convex(jnp.asarray(steps, jnp.float32))).max(1) > 0.99).all()


@pytest.mark.slow
def test_archetypal_entries_start_at_the_same_points_for_every_key():
    points = np.random.default_rng(1).normal(size=(95, 16)).astype(np.float32)
    options = OPTIONS | dict(steps=1, learning_rate=1e-9, dictionary="archetypal", candidates=points)
    one, other = (sae(ACTS, **{**options, "key": jax.random.key(seed)}) for seed in (0, 1))
    close(one.directions, other.directions)
    standard = (points - np.asarray(one.mean)) / np.asarray(one.scale)
    standard /= np.linalg.norm(standard, axis=1, keepdims=True)
    # 32 of 95, from the first to the last.
    nearest = (np.asarray(one.directions) @ standard.T).argmax(1)
    assert nearest[0] == 0 and nearest[-1] == 94 and set(np.diff(nearest)) == {3, 4}


@pytest.mark.slow
def test_archetypal_entries_are_means_of_points_and_short_steps():
    from scipy.optimize import nnls

    points = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)
    options = {**OPTIONS, "steps": 30, "dictionary": "archetypal", "candidates": points}
    found = sae(ACTS, **options, delta=0.0)
    # Without a step an entry is a convex combination: non-negative least squares leaves nothing.
    standard = (points - np.asarray(found.mean)) / np.asarray(found.scale)
    for direction in np.asarray(found.directions, np.float64)[:6]:
        assert nnls(standard.T.astype(np.float64), direction)[1] < 1e-4


@pytest.mark.slow
def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(_sae_training, "_ROUND", 10 * 256 * 16)
    few = {**OPTIONS, "steps": 40}
    whole = sae(ACTS, **few)
    path, rounds, written = tmp_path / "state.npz", [], _sae_training._write

    def breaking(*args):
        written(*args)
        rounds.append(args[2])
        if len(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_sae_training, "_write", breaking)
    with pytest.raises(KeyboardInterrupt):
        sae(ACTS, **few, checkpoint=path)
    again = sae(ACTS, **few, checkpoint=path)
    assert rounds == [10, 20, 30, 40]
    for name in ("directions", "encoder", "threshold", "history", "usage"):
        assert np.array_equal(getattr(again, name), getattr(whole, name)), name
    with pytest.raises(ValueError, match="is of a training with other activations, options or key"):
        sae(ACTS, **{**few, "k": 2}, checkpoint=path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="is no state of a training that can be read"):
        sae(ACTS, **few, checkpoint=path)


@pytest.mark.slow
def test_activations_on_disk_train_as_those_in_memory(tmp_path):
    np.save(tmp_path / "acts.npy", np.asarray(ACTS).reshape(400, 10, 16))
    few = {**OPTIONS, "steps": 20}
    on_disk = sae(np.load(tmp_path / "acts.npy", mmap_mode="r"), **few)
    whole = sae(ACTS, **few)
    for name in ("directions", "mean", "scale", "r2", "usage", "history"):
        close(getattr(on_disk, name), getattr(whole, name), 1e-3)
    on_disk.save(tmp_path / "sae.npz")
    read = load_sae(tmp_path / "sae.npz")
    assert repr(read) == repr(on_disk) and np.array_equal(read.encode(ACTS), on_disk.encode(ACTS))
    with pytest.raises(ValueError, match=r"is no autoencoder that Sae.save wrote"):
        load_sae(tmp_path / "acts.npy")


def test_activations_are_written_batch_by_batch(tmp_path, pooled_net, small_images):
    batches = [small_images, small_images[:2] + 1]
    expected = np.concatenate([pooled_net(x, stop="conv2").reshape(-1, 6) for x in batches])
    found = save_activations(pooled_net, iter(batches), tmp_path / "acts.npy", layer="conv2", batch_size=2)
    assert isinstance(found, np.memmap) and found.dtype == np.float32
    close(found, expected)
    means = save_activations(pooled_net, batches, tmp_path / "mean.npy", layer="conv2", positions="mean")
    close(means, expected.reshape(5, 48, 6).mean(1))
    with pytest.raises(ValueError, match="`batches` must have images; got none"):
        save_activations(pooled_net, [], tmp_path / "none.npy", layer="conv2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acts.npy", "mean.npy"]


def test_codes_of_the_other_kinds_by_hand():
    rng = np.random.default_rng(2)
    codes = np.maximum(rng.normal(size=(20, 30)), 0).astype(np.float32)
    for count in (1, 7, 60, 250):
        assert kinds.border(jnp.asarray(codes), count) == np.sort(codes.ravel())[-count]
    assert kinds.border(jnp.asarray(codes), 599) == 0
    directions = rng.normal(size=(12, 5)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x = rng.normal(size=(8, 5)).astype(np.float32)
    expected = np.zeros((8, 12))
    for row, out in zip(x, expected, strict=True):
        rest = row.copy()
        for _ in range(3):
            along = directions @ rest
            best = along.argmax()
            out[best] += max(along[best], 0)
            rest = rest - max(along[best], 0) * directions[best]
    close(kinds.pursued(jnp.asarray(x), jnp.asarray(directions), 3), expected)


def test_gates_have_the_pseudo_derivatives_of_the_paper():
    codes = jnp.asarray([[0.5, 1.02, 3.0], [0.98, 0.0, 1.2]])
    gate, width = jnp.asarray([1.0, 1.0, 1.1]), jnp.float32(0.1)
    slopes = jnp.asarray([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    loss = lambda c, g: (kinds.jump_relu(c, g, width) * slopes).sum()  # noqa: E731
    by_code, by_gate = jax.grad(loss, argnums=(0, 1))(codes, gate)
    assert by_code.tolist() == [[0, 2, 4], [0, 0, 32]]
    # Of what lies within half a width of its gate: 0.98 and 1.02.
    close(by_gate, [-10 * 8, -10 * 2, 0])
    number = lambda g: kinds.number_above(codes, g, width)  # noqa: E731
    assert float(number(gate)) == 1.5
    close(jax.grad(number)(gate), [-10 / 2, -10 / 2, 0])


def test_monosemanticity_is_the_mean_likeness_of_pairs():
    rng = np.random.default_rng(3)
    codes, looks = rng.gamma(1.0, size=(9, 4)), rng.normal(size=(9, 6))
    codes[:, 3] = np.eye(9)[4]
    responses = (codes - codes.min(0)) / (codes.max(0) - codes.min(0))
    units = looks / np.linalg.norm(looks, axis=1, keepdims=True)
    top, bottom = np.zeros(4), np.zeros(4)
    for n in range(9):
        for m in range(n):
            weight = responses[n] * responses[m]
            top, bottom = top + weight * (units[n] @ units[m]), bottom + weight
    found = np.asarray(monosemanticity(codes, looks))
    close(found[:3], top[:3] / bottom[:3], 1e-4)
    assert np.isnan(found[3])
    with pytest.raises(ValueError, match=r"`codes` must be \[images, codes\]"):
        monosemanticity(codes, looks[:5])


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
    with pytest.raises(ValueError, match="`kind` must be one of top_k, batch_top_k, jump_relu"):
        sae(ACTS, num_codes=4, k=1, key=KEY, kind="relu")
    with pytest.raises(ValueError, match="`candidates` must be 8 to 4000, the numbers of codes"):
        sae(ACTS, num_codes=8, k=1, key=KEY, dictionary="archetypal", candidates=7)
    with pytest.raises(ValueError, match=r"`candidates` must be \[at least 8, 16\], points like activations"):
        sae(ACTS, num_codes=8, k=1, key=KEY, dictionary="archetypal", candidates=np.ones((9, 4)))
