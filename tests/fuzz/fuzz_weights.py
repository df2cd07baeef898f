"""Read files of weights that are almost right: each must give its arrays or one `ValueError` in one line.

    python tests/fuzz/fuzz_weights.py 5000 [--seed 0] [--format zip] [--first 0] [--keep FOLDER]

The arrays are compared with those of another reader: pickle's own unpickler, the safetensors library, the
onnx package, and for some ONNX files the scores with those of ONNX's evaluator. A file in which nothing was
changed must be accepted. Time and memory are bounded. The same seed makes the same files.
"""

import argparse
import faulthandler
import functools
import io
import math
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import ml_dtypes
import numpy as np
import safetensors
import tiny_weights
from torch_mutations import FLOATS, legacy_input, zip_input
from weight_mutations import cache_input, cache_weights, onnx_bytes, onnx_input, safetensors_input

from jaxai.models import parameters, zoo
from jaxai.weights_convert import files
from jaxai.weights_convert.conversion import converted

SECONDS = 5  # of the processor, for one file
MEMORY = 100  # MiB more than before, for one file
SILENCE = 60  # seconds for one file, after which the process ends
EVALUATED = 0.03  # of the ONNX files that are accepted

STORAGES = {f"{kind}Storage": np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            for dtype, kind in tiny_weights.KINDS.items()}  # fmt: skip


class Unpickler(pickle._Unpickler):
    """Pickle's own, for files that were accepted: it builds arrays where torch would build tensors.

    The one in Python, since that in C takes as much memory as the largest number by which a value is kept.
    """

    def __init__(self, file, storages):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module, name):
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
        }
        return STORAGES[name] if module == "torch" else known[f"{module}.{name}"]

    def persistent_load(self, identity):
        _, dtype, key, _, total, *view = identity
        first, count = view[0][1:] if view and view[0] else (0, total)
        return key, dtype, first, count

    def tensor(self, storage, offset, shape, strides, *_):
        key, dtype, first, count = storage
        if dtype not in [np.dtype(known) for known in FLOATS]:
            return np.zeros(shape, dtype)  # Only its shape matters.
        return lambda: self.numbers(key, dtype, first, count, offset, shape, strides)

    def numbers(self, key, dtype, first, count, offset, shape, strides):
        numbers = np.frombuffer(self.storages[key], dtype)[first : first + count]
        positions = np.full(shape, offset, np.int64)
        for axis, stride in enumerate(strides):
            if shape[axis] > 1:
                steps = np.arange(shape[axis]) * stride
                positions = positions + steps.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return numbers[positions]


def torch_arrays(name, data):
    """What a file that was accepted holds, by pickle's own unpickler."""
    storages, swapped = {}, False
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (main,) = (entry for entry in archive.namelist() if entry.split("/")[-1] == "data.pkl")
            folder = main.removesuffix("data.pkl")
            if f"{folder}byteorder" in archive.namelist():
                swapped = archive.read(f"{folder}byteorder") == b"big"
            for entry in archive.namelist():
                if entry.startswith(f"{folder}data/"):
                    storages[entry.removeprefix(f"{folder}data/")] = archive.read(entry)
            root = Unpickler(io.BytesIO(archive.read(main)), storages).load()
    else:
        file, sizes = io.BytesIO(data), {}

        class Sized(Unpickler):
            def persistent_load(self, identity):
                sizes[identity[2]] = identity[1].itemsize * identity[4]
                return super().persistent_load(identity)

        for _ in range(3):
            Unpickler(file, {}).load()
        root = Sized(file, storages).load()
        for key in Unpickler(file, {}).load():
            file.read(8)
            storages[key] = file.read(sizes[key])
    for wrapper in ("state_dict", "model"):
        if isinstance(root.get(wrapper), dict):
            root = root[wrapper]
            break
    state = {key: value() if callable(value) else value for key, value in root.items()}
    if swapped:
        state = {key: value.byteswap() for key, value in state.items()}
    return layers(name, state)


def layers(name, state):
    """What a state dict becomes, which must be that of torchvision's network in names, shapes and types."""
    norm, spelled = name.endswith("bn"), {}
    known = tiny_weights.torchvision(norm=norm)
    for key in ("classifier.0.weight", "classifier.3.weight", "classifier.6.weight"):
        outputs, inputs = known[key].shape
        window = 7 if key == "classifier.0.weight" else 1
        spelled[key] = (outputs, inputs // window**2, window, window)
    for key, array in state.items():
        if key.endswith("num_batches_tracked"):
            right = key in known and array.size == 1
        else:
            shapes = (known[key].shape, spelled.get(key)) if key in known else ()
            right = array.shape in shapes and array.dtype in [np.dtype(dtype) for dtype in FLOATS]
        if not right:
            raise Fault(f"accepted with {key!r:.80} of {array.dtype} {array.shape}")
        if key.endswith("running_var") and (array < 0).any():
            raise Fault(f"accepted with negative variances in {key}")
    if missing := {key for key in known if "tracked" not in key} - state.keys():
        raise Fault(f"accepted without {missing}")
    return tiny_weights.folded(state, norm=norm)


def safetensors_arrays(name, data):
    """What a file that was accepted holds, by the format's own library."""
    dtypes = {
        code: np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        for dtype, code in tiny_weights.CODES.items()
    }
    state = {
        key: np.frombuffer(bytes(entry["data"]), dtypes.get(entry["dtype"], np.uint8))
        if math.prod(entry["shape"]) == 1 and key.endswith("tracked")
        else np.frombuffer(bytes(entry["data"]), dtypes[entry["dtype"]]).reshape(entry["shape"])
        for key, entry in safetensors.deserialize(data)
    }
    return layers(name, state)


def onnx_arrays(name, data):
    """What a file that was accepted holds, with the arrays in the order of its operations."""
    import onnx

    graph = onnx.ModelProto.FromString(data).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    heads = ["fc6", "fc7", "fc8", "logits"]
    layers = [f"conv{i}_{j}" for i, count in enumerate((2, 2, 3, 3, 3), 1) for j in range(1, count + 1)]
    made, norm, dense = {}, (1.0, 0.0), ""
    for node in graph.node:
        if node.op_type not in ("Conv", "MatMul", "Mul", "Add"):
            continue
        values = onnx.numpy_helper.to_array(tensors[node.input[1]])
        if node.op_type == "Conv":
            layer = layers.pop(0)
            made[f"{layer}.kernel"] = np.einsum("oihw->hwio", values)
            made[f"{layer}.bias"] = onnx.numpy_helper.to_array(tensors[node.input[2]])
        elif node.op_type == "MatMul":
            dense, kernel = heads.pop(0), values.astype(np.float64)
            made[f"{dense}.kernel"] = (kernel.T * norm[0]).T
            made[f"{dense}.bias"] = sum(kernel * np.reshape(norm[1], (-1, 1)), 0.0)
            norm = (1.0, 0.0)
        elif node.op_type == "Mul":
            norm, dense = (values.astype(np.float64), 0.0), ""
        elif node.op_type == "Add" and dense:
            made[f"{dense}.bias"] = made[f"{dense}.bias"] + values
        elif node.op_type == "Add":
            norm = (norm[0], values.astype(np.float64))
    if name == "vgg16_features":
        made = {key: value for key, value in made.items() if key.startswith("conv")}
    return made


@jax.jit
def forward(network, x):
    return network(x)


def compare_scores(name, data, arrays):
    """Compare the network's scores with those of ONNX's evaluator, for an input that it can flatten."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.ModelProto.FromString(data)
    for node in model.graph.node:
        node.domain = node.domain.replace("ai.onnx", "")  # The same, which the evaluator does not know.
        if node.op_type == "Softmax":
            model.graph.output[0].name = node.input[0]
    x = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
    try:
        (expected,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})
    except Exception as error:
        if parts(data, flat=True) != parts(onnx_bytes(0), flat=True):
            return  # What computes the flat shape was changed: the file is wrong, and its weights are right.
        raise Fault(f"accepted, but ONNX cannot run it: {error!s:.200}") from error
    scores = np.asarray(forward(parameters.build(zoo.entry(name).make, arrays), x))
    if scores.shape != expected.shape or np.abs(scores - expected).max() > 1e-4 * np.abs(expected).max():
        raise Fault("accepted with other scores")


def parts(data, *, flat):
    """A graph's operations: those that compute the flat shape, with their constants, or the others."""
    import onnx

    graph = onnx.ModelProto.FromString(data).graph
    kinds = {"Shape", "Gather", "Cast", "Slice", "Concat", "Reshape"}
    nodes = [node for node in graph.node if (node.op_type in kinds) == flat]
    constants = [tensor for tensor in graph.initializer if tensor.data_type != onnx.TensorProto.FLOAT]
    return sorted(part.SerializeToString() for part in (*nodes, *(constants if flat else ())))


FORMATS = {
    "zip": (zip_input, torch_arrays),
    "legacy": (legacy_input, torch_arrays),
    "safetensors": (safetensors_input, safetensors_arrays),
    "onnx": (onnx_input, onnx_arrays),
    "cache": (cache_input, None),
}


class Fault(Exception):
    """Something that must not happen."""


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def read(kind, name, path):
    """Return the arrays of a file, None if it is refused as it should be."""
    start, before = time.process_time(), peak()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            if kind == "cache":
                return files.read(path, model=name, shapes=tiny_weights.shapes(name)).arrays
            return converted(path, name).arrays
        except ValueError as error:
            message = str(error)
            if type(error) is not ValueError or not message.isprintable() or len(message) > 500:
                raise Fault(f"refused in other words than it should: {error!r:.500}") from error
            if not message.startswith(str(path) if kind == "cache" else path.name):
                raise Fault(f"refused without the file's name: {message}") from error
            return None
        except Exception as error:
            raise Fault(f"{type(error).__name__}: {error!s:.200}") from error
        finally:
            if time.process_time() - start > SECONDS or peak() - before > MEMORY:
                raise Fault(f"it took {time.process_time() - start:.1f} s and {peak() - before} MiB")


def check(kind, seed, index, path):
    """Try one file; return whether it was accepted, or raise `Fault`."""
    make, expect = FORMATS[kind]
    rng = random.Random(f"{seed} {kind} {index}")
    name, data, harmless = make(rng)
    path.write_bytes(data)
    arrays = read(kind, name, path)
    if arrays is None:
        if harmless:
            raise Fault("refused, though nothing was changed")
        return False
    if kind == "cache":
        expected = cache_weights(random.Random(f"{seed} {kind} {index}"))[1].arrays
    else:
        try:
            with np.errstate(all="ignore"):
                expected = expect(name, data)
        except Fault:
            raise
        except Exception as error:
            words = f"{type(error).__name__}: {error!s:.200}"
            raise Fault(f"accepted, but the other reader fails: {words}") from error
    if arrays.keys() != expected.keys():
        raise Fault("accepted with other layers")
    for key, array in arrays.items():
        if not np.array_equal(array, np.asarray(expected[key]).astype(np.float32)):
            raise Fault(f"accepted with other numbers in {key}")
        if not np.isfinite(array).all():
            raise Fault(f"accepted with numbers that are not finite in {key}")
    # All of them whose operations are spelled in another way.
    if kind == "onnx" and name == "vgg16_brain_mri":
        if rng.random() < EVALUATED or parts(data, flat=False) != parts(onnx_bytes(0), flat=False):
            compare_scores(name, data, arrays)
    return True


def run(kind, count, seed, folder, *, first=0):
    """Try files of a format.

    Returns:
        How many were accepted and refused, and what failed, by the file's number.
    """
    counts, faults = Counter(), {}
    path = folder / "x"
    for index in range(first, first + count):
        faulthandler.dump_traceback_later(SILENCE, exit=True)
        (folder / "last").write_text(f"{kind} {index}")
        try:
            counts["accepted" if check(kind, seed, index, path) else "refused"] += 1
        except Fault as fault:
            faults[index] = str(fault)
            (folder / f"{kind}-{index}").write_bytes(path.read_bytes())
    faulthandler.cancel_dump_traceback_later()
    return counts, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, help="files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--format", choices=FORMATS, action="append", help="all by default")
    parser.add_argument("--keep", type=Path, help="folder for the files that fail, and the last one")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-weights-"))
    folder.mkdir(parents=True, exist_ok=True)
    # The network's shapes are those of the last file, which saves most of the time.
    parameters.abstract = functools.cache(parameters.abstract)
    failed = False
    with tiny_weights.small_zoo():
        for kind in options.format or FORMATS:
            start = time.time()
            counts, faults = run(kind, options.count, options.seed, folder, first=options.first)
            print(f"{kind}: {dict(counts)}, {len(faults)} faults, {time.time() - start:.0f} s", flush=True)
            for index, fault in faults.items():
                print(f"  {kind} {index}: {fault}", flush=True)
            failed |= bool(faults)
    if failed:
        sys.exit(f"files that failed are in {folder}")


if __name__ == "__main__":
    main()
