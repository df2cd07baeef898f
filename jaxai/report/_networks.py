"""`--model`: a network's name, an ONNX file, or a function of a package that returns one."""

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import layers
from .._cpu import configure
from .._frame import model as _model
from . import _names as names

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_SIDE = 224


@dataclass(frozen=True)
class Around:
    """The settings of an unnamed network: its labels, its normalization, the side of its photos."""

    labels: Any = None
    normalize: Any = None
    input_size: int | None = None

    def given(self) -> dict[str, Any]:
        """Return what was given, as keywords."""
        found = {"labels": self.labels, "normalize": self.normalize, "input_size": self.input_size}
        return {name: value for name, value in found.items() if value is not None}


def load(model: str, *, dtype: str | None = None, around: Around | None = None) -> Any:
    """Load a network.

    Args:
        model: A name, a path that ends in .onnx, or "package.module:function"; the function takes no
            arguments, and returns a model or a `Pretrained`.
        dtype: What its parameters are cast to.
        around: What the user said of a file or a function.

    Raises:
        ValueError: If there is no such network.
        OSError: If a file cannot be read.
        ImportError: If a package is missing.
    """
    from .. import models
    from ..models.zoo import ZOO

    given = (around or Around()).given()
    if model.lower().endswith(".onnx"):
        if "normalize" in given:
            given["normalize"] = _numbers(given["normalize"])
        return _in_type(models.from_onnx(model, **given), dtype)
    if _FUNCTION.fullmatch(model):
        return _in_type(_from_function(model, given), dtype)
    if model not in ZOO:
        raise ValueError(names.unknown("model", model, ZOO))
    if given:
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise ValueError(f"{option} is for files and functions; {model} brings its own")
    return layered(models.load(model, dtype=dtype))


def given(net: Any, around_: Around, sizes: Sequence[tuple[int, ...]] = ()) -> tuple[Any, Any]:
    """Return the network that a Python caller chose, and its photos' shape if it is not [size, size, 3].

    Args:
        net: What `load` takes, a `Pretrained`, or a model, a callable pytree.
        around_: What was said of a file, a function or a model.
        sizes: Of the photos if all are arrays: a model whose side is not given takes them as they are.

    Raises:
        TypeError: If it is none of those.
        ValueError: As `load`; if it brings what is given, too.
        OSError: If a file cannot be read.
    """
    if isinstance(net, str):
        if not configure.backend_started():
            configure.configure_cpu()
        return load(net, around=around_), None
    if hasattr(net, "crop") and hasattr(net, "normalize"):
        if said := around_.given():
            raise ValueError(f"`{next(iter(said))}` is for files and models; {net.name} brings its own")
        return layered(net), None
    if not callable(net):
        raise TypeError(f"`net` must be a name, a Pretrained or a model; got {type(net).__name__}")
    shape = None
    if around_.input_size is None and sizes:
        # Grey arrays of a model for grey photos keep their one channel.
        height, width, *channels = sizes[0]
        shape = height, width, 1 if channels == [1] else 3
    name = getattr(net, "__name__", type(net).__name__)
    return around(net, name, shape=shape, **around_.given()), shape


def layered(net: Any) -> Any:
    """Return a network, `Pretrained`, whose unmarked layers are found from its program."""
    if hasattr(net.model, "layer_names"):
        return net
    model = _model.as_model(net.model)
    photo: Any = jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), _type_of(model))
    return replace(net, model=layers.find(model, photo))


def _type_of(model: Any) -> Any:
    kinds = [leaf.dtype for leaf in jax.tree.leaves(model) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return kinds[0] if kinds else np.float32


def is_named(model: str) -> bool:
    """Return whether a model is not a file or a function."""
    return not (model.lower().endswith(".onnx") or _FUNCTION.fullmatch(model))


def _numbers(text: Any) -> Any:
    """Parse a mean and a standard deviation written as numbers; return anything else unchanged."""
    if not isinstance(text, str) or "/" not in text:
        return text
    parts = text.split("/")
    try:
        pair = tuple(tuple(float(number) for number in part.split(",")) for part in parts)
    except ValueError:
        pair = ()
    if len(pair) != 2 or any(len(part) not in (1, 3) for part in pair):
        raise ValueError(
            f"--normalize must be MEAN/STD, each a number or three; got {names.shortened(text)!r}"
        )
    return pair


def _from_function(model: str, given: dict[str, Any]) -> Any:
    from ..models.pretrained import Pretrained

    module, _, path = model.partition(":")
    # As `python -m` does: packages beside the user are found.
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"no module {error.name!r} for --model {model}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"--model {model}: {module} has no {path!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"--model {model} must be a function; got {type(found).__name__}")
    net = found()
    if isinstance(net, Pretrained):
        if given:
            raise ValueError(
                f"--{next(iter(given)).replace('_', '-')} is not for functions that return a Pretrained"
            )
        return net
    if not callable(net):
        raise ValueError(f"--model {model} must return a model; it returned {type(net).__name__}")
    given["normalize"] = _numbers(given.get("normalize", "identity"))
    return around(net, model, **given)


def around(
    model: Any,
    name: str,
    *,
    labels: Any = None,
    normalize: Any = "identity",
    input_size: int = _SIDE,
    shape: tuple[int, int, int] | None = None,
) -> Any:
    """Return a model with what surrounds it, `Pretrained`; its layers are found where nobody marked them.

    Args:
        model: A callable pytree.
        name: What it is called.
        labels: Names of the classes, or a text file with one per line.
        normalize: As `jaxai.models.from_onnx` takes it.
        input_size: Side of the photos.
        shape: Height, width and channels of photos that are taken as they are, instead.
    """
    from ..models.crop import crop
    from ..models.imported import labels_of, normalization_of
    from ..models.pretrained import Pretrained

    if not hasattr(model, "layer_names"):
        sizes = shape or (input_size, input_size, 3)
        blank: Any = jax.ShapeDtypeStruct((1, *sizes), np.float32)
        model = layers.find(model, blank)
    return Pretrained(
        model=model,
        name=name,
        crop=partial(_as_it_is, shape=shape) if shape else partial(crop, size=input_size),
        normalize=normalization_of(normalize),
        labels=labels_of(labels),
        input_size=max(shape[:2]) if shape else input_size,
        digest=_digest(model),
    )


def _as_it_is(photo: Any, *, shape: tuple[int, int, int], **reading: Any) -> jax.Array:
    """Return a photo in its own size, float32 [1, height, width, channels] in [0, 1]."""
    from ..models.crop import fit

    found = fit(photo, longest=1 << 30, **reading)[..., : shape[-1]]
    if found.shape[1:] != shape:
        raise ValueError(
            "photos must have one size for a model without `input_size`;"
            f" got {found.shape[1:3]} beside {shape[:2]}"
        )
    return found


def _digest(net: Any) -> str:
    """Return the SHA-256 of a model's weights."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(net):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _in_type(net: Any, dtype: str | None) -> Any:
    if dtype is None:
        return net

    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    normalize = net.normalize
    return replace(
        net, model=jax.tree.map(cast, net.model), normalize=lambda photos: normalize(photos).astype(dtype)
    )


def with_classes(net: Any, shape: tuple[int, int, int] | None = None) -> Any:
    """Return a network that can name its classes, by their numbers if it has no labels.

    Args:
        net: The network, `Pretrained`.
        shape: Of its photos, if it is not [size, size, 3].

    Raises:
        ValueError: If it has no classifier.
    """
    if net.labels is not None:
        return net
    scores = output_of(net, shape)
    if not has_classes(net, shape):
        raise ValueError(
            f"{net.name} {without(scores)}; see `jaxai dream` for what its layers see"
            if is_named(net.name)
            else f"{net.name} {without(scores)}"
        )
    return replace(net, labels=tuple(f"class {number}" for number in range(scores.shape[1])))


def has_classes(net: Any, shape: tuple[int, int, int] | None = None) -> bool:
    """Return whether a network has classes, with names or without.

    Features are no classes, though they have the shape of scores: a network of ours has names for classes.
    """
    from ..models.zoo import ZOO

    if net.labels is not None:
        return True
    return net.name not in ZOO and len(getattr(output_of(net, shape), "shape", ())) == 2


def output_of(net: Any, shape: tuple[int, int, int] | None = None) -> Any:
    """Return the shape and the type of a network's output for one photo."""
    photo = jax.ShapeDtypeStruct((1, *(shape or (net.input_size, net.input_size, 3))), np.float32)
    return jax.eval_shape(lambda m, x: m(net.normalize(x)), net.model, photo)


def channels_first(net: Any, shape: tuple[int, int, int] | None = None) -> bool:
    """Return whether a network's output is a map [batch, channels, height, width], by its program."""
    photo = jax.ShapeDtypeStruct((1, *(shape or (net.input_size, net.input_size, 3))), np.float32)
    return layers.layer_layout(net.model, layers.OUTPUT, photo) == "NCHW"


def without(output: Any) -> str:
    """Return advice for a network without classes, given the shape of its output."""
    size = getattr(output, "shape", (1,))[1:]
    if len(size) == 1:
        return (
            f"has no classes to explain; `jaxai explain` explains its {size[0]} features: --target length,"
            " like=PHOTO or a feature's number"
        )
    if len(size) in (2, 3):
        return (
            f"has no classes to explain; `jaxai explain` explains its map, {' x '.join(map(str, size))}:"
            " --target mean, @LEFT:TOP:RIGHT:BOTTOM, or a channel's number"
        )
    if isinstance(output, dict):
        names = ", ".join(str(name) for name in output)
        choose = next(iter(output), "scores")
        return (
            f"has no classes to explain but several results, {names}: choose by a function, in Python"
            f" `jaxai.explain(net, photos, targets=lambda outputs: outputs[{choose!r}][:, 3])`"
        )
    return (
        "has no classes to explain: it must return scores [batch, classes]; of other results a function is"
        " explained, in Python `jaxai.explain(net, photos, targets=lambda outputs: ...)`"
    )
