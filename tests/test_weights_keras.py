"""Keras' HDF5 files: the networks of two packages, and files that are damaged or point elsewhere."""

import io
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxai.models import parameters, zoo
from jaxai.models.hed import HED
from jaxai.weights_convert import convert, keras_file
from jaxai.weights_convert.conversion import converted
from jaxai.weights_convert.stored import Refused

h5py = pytest.importorskip("h5py")
NAMES = ("mobilenet_v2_dogs", "hed")


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def arrays_of(name, rng):
    """Return arrays as Keras would write them, from the rules' keys and the shapes that torch would have."""
    entry = zoo.entry(name)
    network = parameters.abstract(entry.make)
    names = getattr(network, "layer_names", None) or network.names
    shapes, found = parameters.shapes(network), {}
    for rule in keras_file.RULES[entry.layout](names, ()):
        accepted = rule.kind.shapes(shapes[f"{rule.layer}.kernel"])
        for argument, key in rule.keys.items():
            shape = accepted[argument][0]
            torch = (
                rng.uniform(0.5, 1.5, shape) if argument in ("variance", "scale") else rng.normal(size=shape)
            )
            # From torch's order back to Keras'.
            back = {4: (2, 3, 0, 1) if "depthwise" in key else (2, 3, 1, 0), 2: (1, 0)}.get(len(shape))
            found[key] = (
                torch.astype(np.float32) if back is None else torch.astype(np.float32).transpose(back)
            )
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Files of both networks with random numbers, one of a whole model, one of weights alone."""
    folder, rng = tmp_path_factory.mktemp("keras"), np.random.default_rng(5)
    found = {}
    for name in NAMES:
        arrays = arrays_of(name, rng)
        whole = name == "mobilenet_v2_dogs"
        stored = {(f"model_weights/any_name/{key}" if whole else key): value for key, value in arrays.items()}
        if whole:
            stored["optimizer_weights/adam/iteration"] = np.int64(3)
        write(folder / f"{name}.h5", stored)
        found[name] = folder / f"{name}.h5", arrays
    return found


def test_batch_norms_are_folded_with_keras_epsilon(sources):
    path, arrays = sources["mobilenet_v2_dogs"]
    found = converted(path, "mobilenet_v2_dogs").arrays
    for layer, kernel, norm in (
        ("features.0", "Conv1", "bn_Conv1"),
        ("features.1.depthwise", "expanded_conv_depthwise", "expanded_conv_depthwise_BN"),
        ("features.17.expand", "block_16_expand", "block_16_expand_BN"),
        ("features.18", "Conv_1", "Conv_1_bn"),
    ):
        factor = arrays[f"{norm}/gamma"] / np.sqrt(arrays[f"{norm}/moving_variance"] + 1e-3)
        weight = arrays[f"{kernel}/kernel"]
        # A depthwise kernel [rows, columns, channels, 1] is [rows, columns, 1, channels] here.
        weight = weight.transpose(0, 1, 3, 2) if "depthwise" in kernel else weight
        np.testing.assert_allclose(found[f"{layer}.kernel"], weight * factor, rtol=1e-5)
        bias = arrays[f"{norm}/beta"] - arrays[f"{norm}/moving_mean"] * factor
        np.testing.assert_allclose(found[f"{layer}.bias"], bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["logits.kernel"], arrays["dense/kernel"])


def test_edges_keep_their_kernels(sources, tmp_path):
    path, arrays = sources["hed"]
    found = converted(path, "hed").arrays
    np.testing.assert_array_equal(found["conv3_3.kernel"], arrays["block3/layers/conv2d_2/vars/0"])
    np.testing.assert_array_equal(found["side5.bias"], arrays["dsn5/vars/1"])
    np.testing.assert_array_equal(found["fuse.kernel"], arrays["fuse/vars/0"])
    assert convert(path, "hed", tmp_path / "out.safetensors").stat().st_size > 1000


@pytest.mark.slow
def test_edges_are_the_weighted_sum_of_five_sides():
    model = HED(rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 37, 50, 3)), "float32")
    values, sides = x, []
    numbers = ("NHWC", "HWIO", "NHWC")

    def convolved(name, values):
        layer = getattr(model, name)
        return (
            lax.conv_general_dilated(values, layer.kernel[...], (1, 1), "SAME", dimension_numbers=numbers)
            + layer.bias[...]
        )

    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        if block > 1:
            values = lax.reduce_window(values, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
        for index in range(1, count + 1):
            values = jnp.maximum(convolved(f"conv{block}_{index}", values), 0)
        sides.append(jax.image.resize(convolved(f"side{block}", values), (1, 37, 50, 1), "bilinear"))
    expected = convolved("fuse", jnp.concatenate(sides, -1))[..., 0]
    found = jax.jit(lambda net, x: net(x))(model, x)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))


def refusal(data):
    with pytest.raises(Refused) as caught:
        for array in keras_file.read_keras(io.BytesIO(data)).values():
            array.read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_files_are_refused_in_one_line(sources):
    data = sources["hed"][0].read_bytes()
    assert "damaged, or not an HDF5 file" in refusal(data[: len(data) // 2])
    assert "damaged, or not an HDF5 file" in refusal(keras_file.MAGIC + bytes(500))


@pytest.mark.slow
def test_a_thousand_damaged_files_are_read_or_refused():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for i in range(6):
            file[f"model_weights/net/layer{i}/kernel"] = np.ones((3, 3, 4, 5), np.float32)
            file[f"model_weights/net/layer{i}/bias"] = np.ones(5, np.float32)
    whole, rng, refused = buffer.getvalue(), np.random.default_rng(7), 0
    for _ in range(1000):
        data = bytearray(whole)
        for place in rng.integers(8, len(data), rng.integers(1, 8)):
            data[place] = rng.integers(256)
        if rng.random() < 0.3:
            data = data[: rng.integers(8, len(data))]
        try:
            for array in keras_file.read_keras(io.BytesIO(bytes(data))).values():
                if array.dtype == "float32" and np.prod(array.shape) < 1e6:
                    array.read()
        except Refused as error:
            refused += 1
            assert "\n" not in str(error)
    assert 300 < refused < 1000


def test_links_to_other_files_are_not_followed(tmp_path, sources):
    path = tmp_path / "links.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.ones(2, np.float32)
        file["outside"] = h5py.ExternalLink(str(sources["hed"][0]), "fuse")
        file["around"] = h5py.SoftLink("/")
        file["again"] = file["a"]
    with path.open("rb") as opened:
        assert len(keras_file.read_keras(opened)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dsn1/vars/0": None}, "it lacks dsn1/vars/0"),
        ({"more": np.ones(2, np.float32)}, "it has no place for more"),
        ({"dsn1/vars/0": np.ones((1, 1, 63, 1), np.float32)}, r"dsn1/vars/0 is \(1, 63, 1, 1\), expected"),
        ({"dsn1/vars/1": np.ones(1, np.int32)}, "dsn1/vars/1 holds int32, expected float16"),
        ({"dsn1/vars/1": np.array([np.nan], np.float32)}, "NaN or infinite numbers in side1.bias"),
    ],
)
def test_files_of_other_networks(tmp_path, sources, changes, message):
    arrays = {key: value for key, value in {**sources["hed"][1], **changes}.items() if value is not None}
    write(tmp_path / "net.h5", arrays)
    with pytest.raises(ValueError, match=f"^net.h5 does not fit hed: .*{message}"):
        converted(tmp_path / "net.h5", "hed")


def test_two_arrays_of_one_name(tmp_path):
    write(tmp_path / "two.h5", {f"model_weights/{part}/x/y": np.ones(1, np.float32) for part in "ab"})
    with (tmp_path / "two.h5").open("rb") as file, pytest.raises(Refused, match="two arrays are named x/y"):
        keras_file.read_keras(file)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="needs the h5py package: pip install"):
        keras_file.read_keras(io.BytesIO(keras_file.MAGIC))
