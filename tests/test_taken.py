"""Notes on images that lie far from what a network takes."""

import warnings
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai.models import PhotoNote, Pretrained, normalization, taken
from jaxai.models.crop import crop, fit

RNG = np.random.default_rng(0)
NORMALIZATIONS = {
    "identity": normalization.identity,
    "signed": normalization.signed,
    "imagenet": normalization.imagenet,
    "caffe": normalization.caffe,
    "hed": normalization.hed,
    "pair": partial(normalization.standardized, mean=(0.5,), std=(0.25,)),
    "bytes": lambda photos: photos * 255,
    "inverted": lambda photos: 1 - photos,
}


@pytest.fixture(scope="module")
def cut(photos):
    return np.asarray(crop(list(photos.values()), size=64))


def _like(net="identity"):
    return Pretrained(
        model=lambda x: x.mean((1, 2)),
        name="colours",
        crop=partial(crop, size=16),
        normalize=NORMALIZATIONS[net],
        labels=("red", "green", "blue"),
        input_size=16,
        digest="0" * 64,
    )


def unusual(photos):
    """Photos and what is like none: all are in [0, 1]."""
    yield from photos[:, None]
    yield photos
    yield photos**4
    yield photos**0.25
    yield 0.05 * photos
    yield 0.9 + 0.1 * photos
    yield np.clip(photos + 0.4, 0, 1)
    yield 0.4 + 0.2 * photos
    yield 1 - photos
    yield np.broadcast_to(photos.mean(-1, keepdims=True), photos.shape)
    yield (photos > 0.5).astype(np.float32)
    for value in (0, 0.45, 0.5, 1):
        yield np.full((2, 16, 16, 3), value, np.float32)
    yield RNG.random((2, 16, 16, 3), np.float32)
    yield np.clip(0.5 + 0.1 * RNG.normal(size=(2, 16, 16, 3)), 0, 1).astype(np.float32)
    yield RNG.random((1, 1, 1, 3), np.float32)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_what_a_network_takes_gives_no_note(name, cut):
    for images in unusual(cut):
        assert taken.note(NORMALIZATIONS[name](jnp.asarray(images)), NORMALIZATIONS[name]) is None


def test_noise_and_resizing_that_overshoot_give_no_note(cut):
    for normalize in (normalization.identity, normalization.imagenet):
        x = np.asarray(normalize(jnp.asarray(cut)))
        assert taken.note(x + 0.02 * RNG.normal(size=x.shape), normalize) is None
        assert taken.note(RNG.normal(size=x.shape), normalization.imagenet) is None
        single = x.copy()
        single[:, 0, 0] = 100
        assert taken.note(single, normalize) is None


# What is given where a network takes what; words of the line.
WRONG = [
    ("bytes", "identity", "0 to 255, like photos in 0 to 255; the network takes 0 to 1:"),
    ("bytes", "signed", "like photos in 0 to 255; the network takes -1 to 1:"),
    ("bytes", "imagenet", "like photos in 0 to 255; the network takes -2.12 to 2.64:"),
    ("bytes", "caffe", "like photos in 0 to 255; the network takes -124 to 151:"),
    ("identity", "signed", "0 to 1, like photos in [0, 1]; the network takes -1 to 1:"),
    ("identity", "imagenet", "like photos in [0, 1]"),
    ("identity", "caffe", "like photos in [0, 1]"),
    ("identity", "bytes", "like photos in [0, 1]; the network takes 0 to 255:"),
    ("identity", "pair", "like photos in [0, 1]; the network takes -2 to 2:"),
    ("signed", "identity", "like photos stretched to [-1, 1]; the network takes 0 to 1:"),
    ("signed", "imagenet", "like photos stretched to [-1, 1]"),
    ("signed", "caffe", "like photos stretched to [-1, 1]"),
    ("imagenet", "identity", "like photos normalized by ImageNet's mean and standard deviation"),
    ("imagenet", "signed", "like photos normalized by ImageNet's mean and standard deviation"),
    ("imagenet", "caffe", "like photos normalized by ImageNet's mean and standard deviation"),
    ("caffe", "identity", "like photos normalized as Caffe does"),
    ("caffe", "imagenet", "like photos normalized as Caffe does"),
]


# The checker puts other functions in the place of normalizations.
@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("given", "wanted", "words"), WRONG, ids=lambda word: word if " " not in word else ""
)
def test_another_normalization_is_seen(given, wanted, words, cut):
    net, images = _like(wanted), NORMALIZATIONS[given](jnp.asarray(cut))
    with pytest.warns(PhotoNote) as said:
        jaxai.check_model(net, images)
    (line,) = (str(one.message) for one in said)
    assert words in line and "\n" not in line and line.endswith("pass `net.normalize(photos in [0, 1])`")
    assert said[0].filename == __file__


@pytest.mark.parametrize("name", ["identity", "signed", "imagenet", "caffe"])
def test_each_photo_alone_without_its_normalization(name, cut):
    """Of a photo alone values outside are seen; inside only one whose colours run from black to white."""
    for photo in cut[:, None]:
        raw = jnp.asarray(photo) * 255
        assert taken.note(raw, NORMALIZATIONS[name])
        twice = NORMALIZATIONS[name](NORMALIZATIONS[name](jnp.asarray(photo)))
        assert name == "identity" or taken.note(twice, NORMALIZATIONS[name])


@pytest.mark.unchecked
def test_the_thresholds():
    x = RNG.random((1, 100, 100, 1), np.float32)
    x[0, :, 0] = 1.06  # 1 % of the values
    assert taken.note(x, normalization.identity) is None
    x[0, :, :3] = 1.04
    assert taken.note(x, normalization.identity) is None
    x[0, :, :3] = 1.06
    assert "to 1.06; the network takes 0 to 1:" in str(taken.note(x, normalization.identity))
    ramp = np.linspace(0, 1, 10000, dtype=np.float32).reshape(1, 100, 100, 1)
    assert taken.note(ramp, normalization.signed) is not None
    assert taken.note(0.03 + 0.97 * ramp, normalization.signed) is None
    assert taken.note(0.86 * ramp, normalization.signed) is not None
    assert taken.note(0.84 * ramp, normalization.signed) is None


def test_normalizations_that_depend_on_the_photo_give_no_note(cut):
    def own_mean(photos):
        return photos - photos.mean((1, 2, 3), keepdims=True)

    def own_spread(photos):
        return own_mean(photos) / photos.std((1, 2, 3), keepdims=True)

    def of_one_photo(photos):
        return photos.reshape(1, *cut.shape[1:])

    for normalize in (own_mean, own_spread, of_one_photo, lambda photos: photos[:, :8]):
        assert taken.note(300 * cut, normalize) is None


@pytest.mark.parametrize("shape", [(2, 30, 5), (2, 4, 6, 5, 1), (2, 8, 8, 5)])
def test_signals_volumes_and_other_channels(shape):
    x = RNG.random(shape, np.float32)
    x[0] = 0
    assert taken.note(x, normalization.identity) is None
    assert "like photos in 0 to 255" in str(taken.note(255 * x, normalization.identity))


def test_other_types(cut):
    half = jnp.asarray(cut, jnp.bfloat16)
    assert taken.note(normalization.imagenet(half), normalization.imagenet) is None
    assert taken.note(half * 255, normalization.imagenet)


def test_check_model_runs_the_network_of_a_pretrained(cut):
    net, images = _like("imagenet"), normalization.imagenet(jnp.asarray(cut))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxai.check_model(net, images)
        jaxai.check_model(net.model, 1000 * images)
    with pytest.warns(UserWarning, match="change with its batch"):
        jaxai.check_model(replace(net, model=lambda x: (x - x.mean(0)).mean((1, 2))), images)


def test_explain_takes_photos_that_are_not_normalized(photos):
    net = _like("imagenet")
    small = np.asarray(fit(photos["cat"], longest=20))[0]
    given = {"methods": "saliency", "targets": "red", "progress": False}
    with pytest.raises(
        ValueError, match=r"in \[0, 1\] .* -\d.*; photos are given as they are, not normalized"
    ):
        jaxai.explain(net, np.asarray(normalization.imagenet(jnp.asarray(small))), **given)
    with pytest.raises(ValueError, match="white= sets another white"):
        jaxai.explain(net, small * 255, **given)


def test_explain_notes_crops_of_others_that_normalize(photos):
    def mine(photo, **reading):
        return normalization.imagenet(crop(photo, size=16, **reading))

    given = {"methods": "saliency", "targets": "red", "progress": False}
    with pytest.warns(UserWarning, match="colours: what its `crop` returns is not in"):
        jaxai.explain(replace(_like("identity"), crop=mine), photos["cat"], **given)
