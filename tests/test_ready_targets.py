"""Ready targets: regions, contrasts, embeddings and detections, by hand and through methods."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import jaxai
from jaxai.targets import detection, difference, length, likeness, region

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8, 3)), "float32")
MASK = np.zeros((6, 8), bool)
MASK[1:3, 2:6] = True


def test_a_region_is_the_mean_score_of_its_class():
    scores = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 8, 4)), "float32")
    found = region(2, MASK)(scores)
    np.testing.assert_allclose(found, np.asarray(scores)[:, 1:3, 2:6, 2].mean((1, 2)), rtol=1e-5)
    weights = np.random.default_rng(2).random((6, 8))
    expected = (np.asarray(scores)[..., 3] * weights).sum((1, 2)) / weights.sum()
    np.testing.assert_allclose(region(3, weights)(scores), expected, rtol=1e-5)
    assert np.isnan(region(4, MASK)(scores)).all()
    first = region(2, MASK, axis=1)
    np.testing.assert_array_equal(first(jnp.moveaxis(scores, -1, 1)), found)
    with pytest.raises(ValueError, match=r"scores \[batch, classes, 6, 8\] for this mask; got shape"):
        first(scores)
    with pytest.raises(ValueError, match="`axis` must be -1 or 1; got 2"):
        region(2, MASK, axis=2)


def test_regions_of_maps_and_lengths_of_features():
    maps = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 8)), "float32")
    np.testing.assert_allclose(
        region(None, MASK)(maps), np.asarray(maps)[:, 1:3, 2:6].mean((1, 2)), rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"maps \[batch, 6, 8\] for this mask; got shape \(2, 6, 8, 1\)"):
        region(None, MASK)(maps[..., None])
    np.testing.assert_allclose(length(maps), np.sqrt((np.asarray(maps) ** 2).sum((1, 2))), rtol=1e-5)
    assert (jax.grad(lambda x: length(x).sum())(jnp.zeros((1, 3))) == 0).all()
    with pytest.raises(ValueError, match=r"features \[batch, ...\]; got shape \(2,\)"):
        length(jnp.ones(2))
    # Gradient of a length: the features' direction, drawn through the network.
    found = jaxai.saliency(lambda x: x.mean((1, 2)), IMAGES, length)
    mean = np.asarray(IMAGES).mean((1, 2))
    wanted = mean / np.linalg.norm(mean, axis=-1, keepdims=True) / 48
    close(found, np.broadcast_to(wanted[:, None, None], IMAGES.shape))


def test_a_region_is_explained_where_it_is():
    segmenter = lambda x: jnp.stack([x.sum(-1), -x.sum(-1)], axis=-1)  # noqa: E731
    found = jaxai.saliency(segmenter, IMAGES, region(1, MASK))
    expected = np.broadcast_to(-MASK[..., None].astype(float) / MASK.sum(), IMAGES.shape)
    close(found, expected)
    # The same scores with their classes drawn from a chain: Seg-Grad-CAM.
    net = jaxai.chain({"features": lambda x: x, "scores": segmenter})
    close(jaxai.grad_cam(net, IMAGES, region(0, MASK), layer="features", relu=False), IMAGES.sum(-1) / 48)


@pytest.mark.slow
def test_differences_and_likenesses(dense_net, small_images):
    scores = np.asarray(dense_net(small_images))
    np.testing.assert_allclose(difference(4, 1)(scores), scores[:, 4] - scores[:, 1], rtol=1e-5)
    both = [jaxai.saliency(dense_net, small_images, c) for c in (4, 1)]
    close(jaxai.saliency(dense_net, small_images, difference(4, 1)), both[0] - both[1])
    wanted = np.random.default_rng(3).normal(size=scores.shape[1])
    cosine = scores @ wanted / np.linalg.norm(scores, axis=1) / np.linalg.norm(wanted)
    np.testing.assert_allclose(likeness(wanted)(scores), cosine, rtol=1e-5)
    np.testing.assert_allclose(likeness(7 * wanted)(3 * scores), cosine, rtol=1e-5)
    slopes = jax.grad(lambda s: likeness(wanted)(s).sum())(jnp.zeros((1, scores.shape[1])))
    assert (slopes == 0).all()


def test_another_class_or_embedding_compiles_nothing(dense_net, small_images):
    traced = Counter()

    def counted(x):
        traced["model"] += 1
        return dense_net(x)

    seen = []
    for target in (difference(0, 1), difference(5, 2), likeness(np.ones(7)), likeness(np.arange(1.0, 8.0))):
        jaxai.saliency(counted, small_images, target)
        seen.append(traced["model"])
    assert seen[0] == seen[1] < seen[2] == seen[3]


@pytest.mark.slow
def test_detections_by_hand():
    target = detection([0.0, 0.0, 4.0, 2.0], [0.6, 0.8])
    proposals = jnp.array(
        [
            [[0, 0, 4, 2, 0.5, 0.6, 0.8], [2, 0, 6, 2, 1.0, 0.6, 0.8]],
            [[10, 10, 12, 12, 1.0, 0.6, 0.8], [0, 0, 4, 2, 0.9, 1.0, 0.0]],
        ]
    )
    # 1 x 0.5 x 1 beats 4 / 12 x 1 x 1; 1 x 0.9 x 0.6.
    np.testing.assert_allclose(target(proposals), [0.5, 0.54], rtol=1e-5)
    assert float(target(jnp.zeros((1, 2, 7)))[0]) == 0
    with pytest.raises(ValueError, match="with an area"):
        detection([0, 0, 0, 2], [1.0])
    with pytest.raises(ValueError, match="proposals"):
        target(jnp.zeros((1, 2, 5)))
    with pytest.raises(ValueError, match="`box` must be"):
        detection([0, 0, 1], [1.0])


@pytest.mark.slow
def test_detections_in_the_forms_of_detectors():
    rng = np.random.default_rng(0)
    low, size, sure, classes = (rng.random(shape) for shape in ((2, 9, 2), (2, 9, 2), (2, 9, 1), (2, 9, 3)))
    numbers = {"xyxy": (low, low + size), "xywh": (low, size), "cxcywh": (low + size / 2, size)}
    box, wanted = [0.2, 0.1, 0.9, 1.1], [0.1, 0.7, 0.2]
    whole = jnp.asarray(np.concatenate([low, low + size, sure, classes], -1))
    for name, pair in numbers.items():
        boxes, own = np.concatenate(pair, -1), {"boxes": name}
        made = jnp.asarray(np.concatenate([boxes, sure, classes], -1))
        np.testing.assert_allclose(
            detection(box, wanted, **own)(made), detection(box, wanted)(whole), rtol=1e-5
        )
        # Without the probability of an object: in one array, the other way round, as a pair.
        certain = detection(box, wanted)(whole.at[..., 4].set(1))
        largest = detection(box, wanted)(whole.at[..., 4].set(classes.max(-1)))
        joined, pair = (
            jnp.asarray(np.concatenate([boxes, classes], -1)),
            (jnp.asarray(boxes), jnp.asarray(classes)),
        )
        for certainty, right in (("none", certain), ("largest", largest)):
            target = detection(box, wanted, certainty=certainty, **own)
            for found in (joined, pair, list(pair)):
                np.testing.assert_allclose(target(found), right, rtol=1e-5)
            turned = detection(box, wanted, axis=1, certainty=certainty, **own)
            np.testing.assert_allclose(turned(joined.swapaxes(1, 2)), right, rtol=1e-5)
    with pytest.raises(ValueError, match="no probability of an object: `certainty` must be 'largest'"):
        detection(box, wanted)(joined)
    with pytest.raises(ValueError, match="`certainty` must be None; got 'largest'"):
        detection(box, wanted, certainty="largest")(whole)
    with pytest.raises(ValueError, match="`certainty` must be one of largest, none"):
        detection(box, wanted, certainty="all")
    with pytest.raises(
        ValueError, match=r"\[batch, 7, proposals\].*`axis=1` and 3 classes; got shape \(2, 9, 7\)$"
    ):
        detection(box, wanted, axis=1)(joined)
    with pytest.raises(ValueError, match=r"got shape \(2, 9, 4\), \(2, 9, 2\)$"):
        detection(box, wanted)((pair[0], pair[1][..., :2]))
    with pytest.raises(ValueError, match="`boxes` must be one of xyxy, xywh, cxcywh"):
        detection(box, wanted, boxes="yxyx")
    with pytest.raises(ValueError, match="`axis` must be -1 or 1; got 2"):
        detection(box, wanted, axis=2)


def test_other_boxes_compile_nothing():
    run = jax.jit(lambda target, found: target(found))
    found = jnp.ones((1, 3, 6))
    for left in (0.0, 1.0):
        run(detection([left, 0, 4, 2], [1.0], boxes="xywh"), found)
    assert run._cache_size() == 1


@pytest.mark.slow
def test_d_rise_finds_the_object():
    """A detector that is as sure of its box as the region is bright."""

    def detector(x):
        sure = x[:, 2:6, 10:14].mean((1, 2, 3))
        fixed = jnp.array([10.0, 2, 14, 6])
        box = jnp.broadcast_to(fixed, (len(x), 4))
        return jnp.concatenate([box, sure[:, None], jnp.ones((len(x), 1))], axis=1)[:, None]

    def of_two_heads(x):
        proposals = detector(x)
        return proposals[..., :4], proposals[..., 4:5]

    options = {"key": KEY, "num_masks": 600, "grid": (3, 5)}
    target = detection([10, 2, 14, 6], [1.0])
    found = jaxai.rise(detector, jnp.ones((1, 12, 20, 3)), target, **options)
    assert found[0, 2:6, 10:14].mean() > 1.1 * found[0].mean()
    alone = detection([10, 2, 14, 6], [1.0], certainty="largest")
    close(jaxai.rise(of_two_heads, jnp.ones((1, 12, 20, 3)), alone, **options), found)


def test_errors(dense_net, small_images):
    with pytest.raises(ValueError, match=r"`mask` must be \[height, width\]; got shape \(2, 6, 8\)"):
        region(0, np.ones((2, 6, 8)))
    for mask in (np.zeros((2, 2)), np.array([[1.0, -1.0]]), np.array([[np.nan, 1.0]])):
        with pytest.raises(ValueError, match="`mask` must mark a pixel"):
            region(0, mask)
    for class_ in (-1, 1.5, True, "cat"):
        with pytest.raises(ValueError, match="`class_` must be a class, an integer of at least 0"):
            region(class_, MASK)
    with pytest.raises(ValueError, match="`other` must be a class"):
        difference(0, -2)
    with pytest.raises(ValueError, match=r"must return scores \[batch, 6, 8, classes\] for this mask"):
        jaxai.saliency(dense_net, small_images, region(0, MASK))
    with pytest.raises(ValueError, match=r"must return scores \[batch, classes\]"):
        jaxai.saliency(lambda x: x, small_images, difference(0, 1))
    with pytest.raises(ValueError, match=r"must return embeddings \[batch, 3\]"):
        jaxai.saliency(dense_net, small_images, likeness(np.ones(3)))
    for embedding in (np.zeros(3), np.array([np.inf, 1.0]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="`embedding` must be"):
            likeness(embedding)
