"""Counterfactuals: planted cells and regions are found, brute force finds none smaller, networks confirm."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_vit
from common import close
from jax.tree_util import Partial

import jaxai
from jaxai.concepts import counterfactuals
from jaxai.concepts.counterfactuals import concept_change, smallest_regions, swap_cells, unlike_neighbours

RNG = np.random.default_rng(0)


def part_net():
    """A 2 x 3 grid of six channels: a class needs its two parts, wherever they are, in one image."""
    parts = jnp.asarray([[2.0, 2.0, 0, 0, 0, 0.1], [0, 0, 2.0, 2.0, 0.1, 0]])

    def head(acts):
        # A part counts once, as far as it is there: a soft maximum over the cells.
        present = jax.nn.logsumexp(4 * acts, axis=(1, 2)) / 4
        return jnp.tanh(present) @ parts.T

    return jaxai.chain({"cells": lambda x: x, "logits": head})


def cells(*rows):
    """Return an image [1, 2, 3, 6] whose cells show the given channels."""
    image = np.zeros((1, 6, 6), np.float32)
    for cell, channel in enumerate(rows):
        if channel is not None:
            image[0, cell, channel] = 2
    return jnp.asarray(image.reshape(1, 2, 3, 6))


NET = part_net()
MINE, THEIRS = cells(0, 1, 4, 5, 4, 5), cells(5, 4, 2, 5, 3, 4)


def brute_force(net, image, other, wanted, most=3):
    """Return the least number of swapped cells that makes a class win, over all cells and sources."""
    own, theirs = (np.asarray(x).reshape(6, 6) for x in (image, other))
    for count in range(1, most + 1):
        batch = []
        for places in itertools.combinations(range(6), count):
            for sources in itertools.permutations(range(6), count):
                mixed = own.copy()
                mixed[list(places)] = theirs[list(sources)]
                batch.append(mixed.reshape(2, 3, 6))
        if (np.asarray(net(jnp.asarray(np.stack(batch)))).argmax(-1) == wanted).any():
            return count
    return None


@pytest.mark.slow
def test_the_planted_cells_are_swapped_and_no_fewer_do():
    found = swap_cells(NET, MINE, THEIRS, layer="cells")
    assert found.classes.tolist() == [1] and found.flipped.all() and found.grid == (2, 3)
    count = int(found.count[0])
    assert count == brute_force(NET, MINE, THEIRS, 1) == 2
    # Both parts of class 1 come in, and they replace the parts of class 0.
    assert {tuple(s) for s in found.sources[0, :count].tolist()} == {(0, 0, 2), (0, 1, 1)}
    assert {tuple(c) for c in found.cells[0, :count].tolist()} == {(0, 0), (0, 1)}
    assert (found.cells[0, count:] == -1).all() and (found.sources[0, count:] == -1).all()
    # The values are the network's own.
    mixed, values = np.asarray(MINE).copy(), [jax.nn.softmax(NET(MINE))[0, 1]]
    for (row, column), (_, i, j) in zip(found.cells[0, :count], found.sources[0, :count], strict=True):
        mixed[0, row, column] = THEIRS[0, i, j]
        values.append(jax.nn.softmax(NET(jnp.asarray(mixed)))[0, 1])
    close(found.values[0, : count + 1], values)
    assert np.isnan(found.values[0, count + 1 :]).all() and values[-1] > 0.5 > values[0]


@pytest.mark.slow
def test_swapped_cells_are_drawn_where_they_are():
    found = swap_cells(NET, MINE, THEIRS, layer="cells")
    grey = np.full((40, 60, 3), 0.5)
    figure = jaxai.plots.swapped_cells(grey, grey, found, title="a $ title")
    left, right = figure.axes
    assert len(left.patches) == len(right.patches) == int(found.count[0])
    for number in range(2):
        row, column = found.cells[0, number].tolist()
        assert left.patches[number].get_xy() == (column * 20 - 0.5, row * 20 - 0.5)
        _, row, column = found.sources[0, number].tolist()
        assert right.patches[number].get_xy() == (column * 20 - 0.5, row * 20 - 0.5)
    assert jaxai.plots.render(figure).std() > 10


@pytest.mark.slow
def test_greedy_swaps_are_minimal_and_never_idle_on_random_grids():
    """A head with interactions: greedy finds the minimum nearly always, and never a swap that is idle."""
    rng, minimal = np.random.default_rng(3), 0
    for _ in range(12):
        first, last = (jnp.asarray(rng.normal(size=s), "float32") for s in ((6, 8), (8, 3)))
        net = jaxai.chain(
            {
                "cells": lambda x: x,
                "logits": lambda a, f=first, g=last: jnp.tanh(a @ f).max((1, 2)) @ g,
            }
        )
        image, other = (jnp.asarray(rng.normal(size=(1, 2, 3, 6)), "float32") for _ in range(2))
        wanted = int(net(other).argmax())
        found = swap_cells(net, image, other, layer="cells")
        assert found.flipped.all()
        count = int(found.count[0])
        least = 0 if int(net(image).argmax()) == wanted else brute_force(net, image, other, wanted, 2)
        minimal += count == least
        chosen = list(zip(found.cells[0, :count].tolist(), found.sources[0, :count].tolist(), strict=True))
        for left_out in range(count):
            mixed = np.asarray(image).copy()
            for i, ((row, column), (_, r, c)) in enumerate(chosen):
                if i != left_out:
                    mixed[0, row, column] = other[0, r, c]
            assert int(net(jnp.asarray(mixed)).argmax()) != wanted
    assert minimal >= 10


@pytest.mark.slow
def test_semantic_weight_takes_cells_that_look_alike():
    """Two cells of the distractor say the same of the class; one also looks like what it replaces."""
    head = lambda a: jnp.stack([a[..., 0].sum((1, 2)), a[..., 1].sum((1, 2))], 1)  # noqa: E731
    net = jaxai.chain({"cells": lambda x: x[..., :2], "logits": head})
    # Channels 2 and 3 are what cells look like.
    image = jnp.asarray([[[[1.0, 0, 1, 0], [0, 0, 0, 1.0]]]])
    other = jnp.asarray([[[[0, 1.9, 1, 0], [0, 2.0, 0, 1]]]])
    looks = lambda x: x[..., 2:]  # noqa: E731
    plain = swap_cells(net, image, other, 1, layer="cells", features=looks)
    assert plain.cells[0, 0].tolist() == [0, 0] and plain.sources[0, 0].tolist() == [0, 0, 1]
    alike = swap_cells(net, image, other, 1, layer="cells", features=looks, semantic_weight=1.0)
    assert alike.cells[0, 0].tolist() == [0, 0] and alike.sources[0, 0].tolist() == [0, 0, 0]
    # Of all pairs the half that looks alike.
    half = swap_cells(net, image, other, 1, layer="cells", features=looks, keep=0.5)
    assert half.sources[0, 0].tolist() == [0, 0, 0]


@pytest.mark.slow
def test_several_distractors_batches_and_callables():
    images = jnp.concatenate([MINE, MINE, cells(0, 1, 0, 1, 0, 1)])
    several = jnp.stack([jnp.concatenate([cells(*[4] * 6)] * 3), jnp.concatenate([THEIRS] * 3)], 1)
    found = swap_cells(NET, images, several, 1, layer="cells", batch_size=5)
    assert found.flipped.all() and (found.sources[:, 0, 0] == 1).all()
    alone = swap_cells(NET, images[2:], several[2:], 1, layer="cells")
    for name in ("cells", "sources", "count", "flipped"):
        assert np.array_equal(getattr(alone, name)[0], getattr(found, name)[2])
    asked = swap_cells(NET, MINE, THEIRS, jaxai.targets.difference(1, 0), layer="cells")
    assert asked.flipped.all() and asked.classes.tolist() == [-1] and asked.values[0, 2] > 0
    assert asked.count.tolist() == [2]
    few = swap_cells(NET, MINE, THEIRS, 1, layer="cells", max_swaps=1)
    assert not few.flipped.any() and few.count.tolist() == [1] and few.cells.shape == (1, 1, 2)
    done = swap_cells(NET, MINE, THEIRS, 0, layer="cells")
    assert done.flipped.all() and done.count.tolist() == [0]


@pytest.mark.slow
def test_swaps_of_tokens_and_of_layers_that_nobody_marked():
    parameters = tiny_vit.parameters()
    vit = Partial(partial(tiny_vit.forward, pooled=True), parameters)
    x = jnp.asarray(np.random.default_rng(5).normal(size=(8, 12, 16, 3)), "float32")
    tops = np.asarray(vit(x)).argmax(-1)
    one, other = 0, int(np.flatnonzero(tops != tops[0])[0])
    net = jaxai.layers.find(vit, x[:1])
    grids = jaxai.layers.grids(net, x[:1])
    layer = [name for name, grid in grids.items() if grid == (3, 4)][-2]
    found = swap_cells(net, x[one : one + 1], x[other : other + 1], layer=layer)
    assert found.flipped.all() and found.grid == (3, 4) and found.classes.tolist() == [tops[other]]
    acts, head = jaxai.layers.split_positions(net, layer, x[one : one + 1])
    theirs = jaxai.layers.split_positions(net, layer, x[other : other + 1])[0]
    mixed = np.asarray(acts).copy()
    for (row, column), (_, i, j) in zip(
        found.cells[0, : found.count[0]], found.sources[0, : found.count[0]], strict=True
    ):
        mixed[0, row, column] = theirs[0, i, j]
    assert int(head(jnp.asarray(mixed)).argmax()) == tops[other] != tops[one]


def spots(x):
    """Class 0 while two of the four quarters are bright, else class 1."""
    quarters = x.reshape(len(x), 2, 2, 2, 2).mean((2, 4)).reshape(len(x), 4)
    evidence = quarters @ jnp.asarray([1.0, 0.9, 0.3, 0.1])
    return jnp.stack([evidence, jnp.full(len(x), 1.5)], 1)


@pytest.mark.slow
def test_the_smallest_regions_are_those_of_brute_force():
    image = jnp.ones((1, 4, 4, 1))
    weights = np.array([1.0, 0.9, 0.3, 0.1])
    for variant in ("delete", "preserve"):
        found = smallest_regions(spots, image, grid=2, fill=0.0, variant=variant)

        def enough(some, variant=variant):
            inside = weights[list(some)].sum()
            return inside > 1.5 if variant == "preserve" else weights.sum() - inside < 1.5

        least = next(n for n in range(1, 5) if any(map(enough, itertools.combinations(range(4), n))))
        assert found.flipped.all() and int(found.count[0]) == least
        assert found.area.item() == least / 4 and found.masks.sum() == 4 * least
        changed = jnp.where(found.masks[..., None] == (variant == "delete"), 0.0, image)
        assert int(spots(changed).argmax()) == int(found.became[0]) == (0 if variant == "preserve" else 1)
        close(found.values[0, least], jax.nn.softmax(spots(changed))[0, 0])
    assert found.order[0].tolist() == [0, 1, -1, -1]


@pytest.mark.slow
def test_regions_that_turn_out_idle_are_set_back():
    """Greedy hides the first cell first, which matters most alone; the other two are what decides."""

    def tricky(x):
        a, b, c = x[:, 0, 0, 0], x[:, 0, 1, 0], x[:, 0, 2, 0]
        return jnp.stack([0.8 * a + jnp.maximum(b, c) * 1.5 + 0.1 * (b + c), jnp.full(len(x), 1.2)], 1)

    found = smallest_regions(tricky, jnp.ones((1, 1, 3, 1)), segments=np.array([[0, 1, 2]]), fill=0.0)
    assert (
        found.flipped.all() and sorted(found.order[0, :2].tolist()) == [1, 2] and found.count.tolist() == [2]
    )


@pytest.mark.slow
def test_regions_of_a_network_hold_for_each_image(dense_net):
    x = jnp.asarray(np.random.default_rng(6).normal(size=(3, 6, 8, 3)), "float32")
    segments = jnp.stack([jnp.arange(48).reshape(6, 8) // d for d in (4, 4, 8)])
    options = dict(segments=segments, fill=0.0)
    whole = smallest_regions(dense_net, x, batch_size=5, **options)
    alone = [
        smallest_regions(dense_net, x[i : i + 1], segments=segments[i : i + 1], fill=0.0) for i in range(3)
    ]
    tops = np.asarray(dense_net(x)).argmax(-1)
    for i in range(3):
        assert np.array_equal(whole.masks[i], alone[i].masks[0])
        hidden = jnp.where(whole.masks[i][..., None], 0.0, x[i])
        assert (int(dense_net(hidden[None]).argmax()) != tops[i]) == bool(whole.flipped[i])
    # An image with fewer superpixels has none of the others.
    assert whole.order[2].max() < 6


@pytest.mark.slow
def test_nearest_unlike_neighbours_by_hand(dense_net):
    rng = np.random.default_rng(7)
    pool = jnp.asarray(rng.normal(size=(40, 6, 8, 3)), "float32")
    x = jnp.asarray(rng.normal(size=(3, 6, 8, 3)), "float32")
    see = lambda images: np.asarray(dense_net(images, stop="conv2")).mean((1, 2))  # noqa: E731
    own, theirs = (np.asarray(dense_net(images)).argmax(-1) for images in (x, pool))
    for metric in ("cosine", "euclidean"):
        found = unlike_neighbours(dense_net, x, pool, layer="conv2", k=2, metric=metric, batch_size=7)
        assert np.array_equal(found.own, own)
        a, b = see(x), see(pool)
        if metric == "cosine":
            a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
            between, inside = 1 - a @ b.T, 1 - b @ b.T
        else:
            between = np.linalg.norm(a[:, None] - b[None], axis=-1)
            inside = np.linalg.norm(b[:, None] - b[None], axis=-1)
        for i in range(3):
            far = np.where(theirs != own[i], between[i], np.inf)
            expected = np.argsort(far, kind="stable")[:2]
            assert found.indices[i].tolist() == expected.tolist()
            close(found.distances[i], far[expected], 1e-4)
            assert np.array_equal(found.classes[i], theirs[expected])
            like = (theirs == own[i]) & (between[i] <= far.min())
            wanted = int(np.where(like, inside[expected[0]], np.inf).argmin()) if like.any() else -1
            assert int(found.semifactuals[i]) == wanted
    some = int(theirs[0])
    asked = unlike_neighbours(dense_net, x, pool, some, layer="conv2")
    assert (asked.classes == some).all()
    given = unlike_neighbours(dense_net, x, pool, layer="conv2", labels=np.arange(40) % 7)
    assert np.array_equal(given.classes, np.asarray(given.indices) % 7)


WEIGHTS = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.5], [0.0, 2.0]], np.float32)
LINEAR = jaxai.chain(
    {"features": lambda x: jax.nn.relu(x), "logits": lambda a: a.mean((1, 2)) @ jnp.asarray(WEIGHTS)}
)


@pytest.mark.slow
def test_the_smallest_change_of_concepts_of_a_linear_head_is_known():
    """Odds are linear: all of the change goes to the concept that gains most for its cost.

    It ends a thousandth beyond the border.
    """
    x = jnp.ones((2, 2, 2, 4)) * jnp.asarray([1.0, 0.5, 0.2, 0.3])
    slopes = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    gap = -float(np.array([1.0, 0.5, 0.2, 0.3]) @ slopes)
    found = concept_change(LINEAR, x, 1, layer="features", concepts=np.eye(4))
    assert found.flipped.all()
    # The first and the last are worth the same; either is smallest.
    close(found.size, [gap / 2] * 2, 2e-3)
    close(np.asarray(found.change) @ slopes, [gap] * 2, 2e-3)
    less = concept_change(LINEAR, x, 1, layer="features", concepts=np.eye(4), changes="less")
    close(less.change, [[-gap / 2, 0, 0, 0]] * 2, 2e-3)
    more = concept_change(LINEAR, x, layer="features", concepts=np.eye(4), changes="more")
    close(more.change, [[0, 0, 0, gap / 2]] * 2, 2e-3)
    assert more.classes.tolist() == [1, 1] and (more.after >= 0.5 - 1e-4).all() and (more.before < 0.5).all()


@pytest.mark.parametrize("top", [0.9, 1.1])
def test_steps_do_not_go_downhill_where_the_odds_bend(top):
    """The odds of class 1 rise to a peak and fall again: the search ends there or at the border."""

    def head(a):
        value = a[..., 0].mean((1, 2))
        return jnp.stack([jnp.ones_like(value), top - 3 * jnp.square(value - 1)], 1)

    net = jaxai.chain({"features": lambda x: x, "logits": head})
    x = jnp.full((1, 2, 2, 2), 0.2)
    found = concept_change(net, x, 1, layer="features", concepts=np.eye(2))
    assert found.flipped.tolist() == [top > 1] and found.after > found.before
    border = 0.8 - np.sqrt((top - 1) / 3) if top > 1 else 0.8
    np.testing.assert_allclose(found.change, [[border, 0.0]], atol=2e-3 if top > 1 else 0.02)


@pytest.mark.slow
def test_codes_of_concepts_stop_at_zero_and_the_rest_stays():
    """Removing all of the first concept is not enough: the next one follows."""
    directions = jnp.eye(4)[:3]
    found = jaxai.concepts.Craft(
        directions,
        jnp.zeros(3),
        jnp.zeros(3),
        jnp.zeros((1, 3, 1, 1)),
        jnp.zeros(()),
        jnp.zeros((3, 1, 3)),
        1,
        "features",
    )
    x = jnp.ones((1, 1, 2, 4)) * jnp.asarray([0.5, 2.0, 0.2, 0.1])
    weights = jnp.asarray([[3.0, 0], [0.5, 0], [0, 0.5], [0.0, 0.0]])
    net = jaxai.chain(
        {"features": lambda x: x, "logits": lambda a: a.mean((1, 2)) @ weights + jnp.asarray([0, 0.7])}
    )
    # Odds 1.5 + 1 - 0.1 - 0.7 = 1.7: all of the first (1.5), then 0.4 of the second for the other 0.2.
    change = concept_change(net, x, 1, layer="features", concepts=found, changes="less")
    close(change.change, [[-0.5, -0.4, 0.0]], 5e-3)
    close(change.size, [0.9], 5e-3)
    assert change.flipped.all() and change.after[0] >= 0.5 - 1e-4


@pytest.mark.slow
def test_changes_of_concepts_are_drawn():
    x = jnp.ones((2, 2, 2, 4)) * jnp.asarray([1.0, 0.5, 0.2, 0.3])
    less = concept_change(LINEAR, x, 1, layer="features", concepts=np.eye(4), changes="less")
    options = dict(layer="features", key=jax.random.key(0), steps=0)
    sheets = jaxai.concepts.concept_sheets(LINEAR, x, jnp.eye(4), which=[3, 0], **options)
    # What is drawn are photos of three channels.
    sheets = [sheet._replace(photos=sheet.photos[..., :3]) for sheet in sheets]
    figure = jaxai.plots.concept_change(x[0, ..., :3], less, sheets, labels=["a", "b_$b"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["the photo", "less of concept 0", "", "change of its code, everywhere"]
    [bar] = figure.axes[-1].patches
    np.testing.assert_allclose(bar.get_width(), less.change[0, 0], rtol=1e-5)
    assert figure.get_suptitle().startswith("b ") and "becomes 50." in figure.get_suptitle()
    assert jaxai.plots.render(figure).std() > 10
    with pytest.raises(ValueError, match=r"must have one of the concepts that change, \[0\]"):
        jaxai.plots.concept_change(x[0, ..., :3], less, sheets[:1])


@pytest.mark.slow
def test_changes_of_autoencoders_and_of_other_heads(dense_net, small_images):
    acts = dense_net(small_images, stop="conv2")
    found = jaxai.concepts.sae(acts, num_codes=8, k=3, key=jax.random.key(0), steps=200, examples=64)
    change = concept_change(dense_net, small_images, layer="conv2", concepts=found)
    assert change.change.shape == (3, 8)
    codes = found.encode(acts)
    after = jnp.maximum(codes + change.change[:, None, None] / found.scale, 0)
    scores = dense_net(acts + found.decode(after) - found.decode(codes), start="conv2")
    tops, second = np.asarray(dense_net(small_images)).argmax(-1), np.asarray(change.classes)
    wins = np.asarray(scores).argmax(-1) == second
    assert np.array_equal(wins, change.flipped) and (second != tops).all() and change.flipped.any()
    # Nine tenths of the change do not flip.
    near = jnp.maximum(codes + 0.9 * change.change[:, None, None] / found.scale, 0)
    scores = dense_net(acts + found.decode(near) - found.decode(codes), start="conv2")
    assert (np.asarray(scores).argmax(-1) != second)[np.asarray(change.flipped)].all()


def test_errors():
    with pytest.raises(ValueError, match="`distractors` must be one image for each of `images`"):
        swap_cells(NET, MINE, jnp.concatenate([THEIRS, THEIRS]), layer="cells")
    with pytest.raises(ValueError, match=r"`targets` must be one class per image.*got int\[batch, k\]"):
        swap_cells(NET, MINE, THEIRS, jnp.array([[0, 1]]), layer="cells")
    with pytest.raises(ValueError, match=r"`keep` must be a number in \(0, 1\]"):
        swap_cells(NET, MINE, THEIRS, layer="cells", keep=0.0)
    flat = jaxai.chain({"flat": lambda x: x.mean((1, 2)), "logits": lambda x: x})
    for call in (
        lambda: swap_cells(flat, MINE, THEIRS, layer="flat"),
        lambda: concept_change(flat, MINE, 1, layer="flat", concepts=np.eye(6)),
    ):
        with pytest.raises(ValueError, match=r"must have activations \[batch, height, width, channels\]"):
            call()
    with pytest.raises(ValueError, match="`variant` must be one of delete, preserve"):
        smallest_regions(spots, jnp.ones((1, 4, 4, 1)), variant="both")
    with pytest.raises(
        ValueError, match="`pool` must have at least 1 images of another class for image 0; got 0"
    ):
        unlike_neighbours(NET, MINE, MINE, layer="cells")
    with pytest.raises(ValueError, match=r"`labels` must be int \[1\]"):
        unlike_neighbours(NET, MINE, MINE, layer="cells", labels=[0.5])
    with pytest.raises(ValueError, match="`concepts` must be of the 6 channels of 'cells'"):
        concept_change(NET, MINE, 1, layer="cells", concepts=np.eye(4))
    with pytest.raises(ValueError, match="none of them zero"):
        concept_change(NET, MINE, 1, layer="cells", concepts=np.zeros((2, 6)))
    assert set(counterfactuals.__all__) <= set(dir(counterfactuals))
