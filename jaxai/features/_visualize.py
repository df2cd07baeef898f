"""Feature visualization: images that maximally excite a neuron, a channel, a layer or a class."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from .. import layers
from .._frame import batching, checks, shown
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.results import Result
from .._program.named import unknown
from . import _engine, _receptive, objectives, parametrize
from ._dream import identity, run_keys
from .objectives import IMAGES, OPACITY, Objective
from .transforms import NONE, WIDE, Transforms

REDIRECT_STEPS = 16


class SmallImageWarning(UserWarning):
    """At this image size, the receptive fields of all units of a layer exceed the image."""


@contextmanager
def small_is_meant() -> Iterator[None]:
    """Suppress `SmallImageWarning` in the body, for icons and for photos of fixed size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallImageWarning)
        yield


@register_dataclass
@dataclass(frozen=True, repr=False)
class Visualization(Result):
    """Synthetic images and their optimisation; N is the number of objectives times `copies`.

    Attributes:
        images: [N, height, width, channels] in [0, 1].
        history: [N, steps], the objective at each step before its update, as seen through the transforms.
        snapshots: [snapshots, N, height, width, channels], the images after the steps asked for.
        opacity: [N, height, width] in [0, 1]; ones without `alpha`.
        importance: [N, height, width], the sum over steps of the mean absolute gradient of a pixel: MACO's
            transparency map.
    """

    images: Float[Array, "runs height width channels"]
    history: Float[Array, "runs steps"]
    snapshots: Float[Array, "snapshots runs height width channels"]
    opacity: Float[Array, "runs height width"]
    importance: Float[Array, "runs height width"]

    def __repr__(self) -> str:
        shape, steps = getattr(self.images, "shape", ()), getattr(self.history, "shape", (0, 0))[-1]
        if len(shape) != 4:
            return "Visualization(...)"
        values = shown.known(self.history)
        last = "" if values is None or not values.size else f", objective {values[:, -1].mean():.3g}"
        size = f"{shape[1]} x {shape[2]}"
        return f"Visualization({shown.counted(shape[0], 'image')} of {size}, {steps} steps{last})"

    def _repr_png_(self) -> bytes | None:
        images = shown.known(self.images)
        return None if images is None or images.ndim != 4 else shown.tiles(images)


@cache
def adam(rate: float = 0.05) -> optax.GradientTransformation:
    """Return Adam; the same object for the same rate, so that nothing compiles twice."""
    return optax.adam(rate)


@completed
def visualize(
    model: Callable[..., Any],
    objective: str | Objective | Callable[..., Any] | Sequence[Any],
    *,
    key: jax.Array,
    size: int | tuple[int, int] = 224,
    steps: int = 512,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    parametrization: Any = "fourier",
    transforms: Transforms | None = WIDE,
    optimizer: optax.GradientTransformation | None = None,
    redirect: int = REDIRECT_STEPS,
    copies: int = 1,
    crops: int = 1,
    anneal: bool = False,
    alpha: bool = False,
    channels: int = 3,
    start: Float[Array, "runs height width channels"] | None = None,
    snapshots: Sequence[int] = (),
    indices: Int[Array, " runs"] | Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Visualization:
    """Optimise images, from noise or from photos, to maximise objectives.

    The defaults are Lucid's recipe with a more natural spectrum and wider transforms: Adam 0.05, 512 steps,
    Fourier coefficients of decorrelated colours that fall as f^-1.5, jitter 64, scale 0.5 to 1.5, rotation by
    up to 20 degrees, jitter 16 (of 224 pixels). Lucid's own are `parametrize.Fourier(decay=1.0)` and
    `transforms.LUCID`. Each image has its own random transforms, and they are one warp into an image of the
    same size, grey outside, rather than a chain of resizings that change its size as Lucid's.

    Objectives of one structure (such as channels of a layer) run together in one compiled loop, and new
    channels need no compilation; different structures run one after the other.

    Args:
        model: Callable pytree or layered model; its computation runs in the type of its own parameters.
        objective: What to excite, or a list: strings (`"conv5_1:12"`, `"conv5_1:12@3,4"`, `"conv5_1"`,
            `"logits:285"`), objectives (`jaxai.features`), or functions images [copies, ...] -> [copies].
        key: Typed key; run i draws from `fold_in(key, i)`, its step t from that and t.
        parametrization: `"fourier"`, `"pixels"`, `"laplacian"`, `"cppn"`, or an object of
            `jaxai.features.parametrize`.
        transforms: Ranges of the random transforms; None for none.
        optimizer: An Optax optimizer, made once and reused (a new one compiles again); None is Adam 0.05.
        redirect: Number of first steps in which a ReLU whose whole gradient is zero passes the gradient that
            revives it.
        copies: Images per run. They are optimised together, so that objectives such as `diversity` can relate
            them.
        crops: Transformed views of each image per step, over which the objective is averaged.
        anneal: Whether crops shrink along the run from the largest to the smallest part, as in MACO.
        alpha: Whether the images have an opacity, seen in front of random backgrounds.
        channels: Of the images: 1 is grey, 3 has decorrelated colours, others are free.
        start: Photos in [0, 1] to start from, one for each run (or one for all), instead of noise.
        snapshots: Steps after which to keep the images.
        indices: Numbers of the runs, instead of 0, 1, ...: `indices=[5]` reproduces run 5 alone.

    Returns:
        A `Visualization`; images [N, height, width, channels] in [0, 1], history [N, steps]. The copies of a
        run follow one another.

    Warns:
        UserWarning: If an objective never had a gradient (a dead channel, or one that does not depend on the
            image), or became NaN.
        SmallImageWarning: If the image is smaller than the receptive field of a layer's units (as the
            network's operations state it; where they are not known, if it has fewer than 3 x 3 positions).

    References:
        Olah, Mordvintsev, Schubert: Feature Visualization. Distill 2017, doi 10.23915/distill.00007.
        Mordvintsev, Pezzotti, Schubert, Olah: Differentiable Image Parameterizations. Distill 2018.

    Example:
        >>> import jax
        >>> import jaxai
        >>> net = jaxai.chain({"blue": lambda x: jax.nn.relu(x[..., 2:])})
        >>> seen = jaxai.visualize(net, "blue:0", key=jax.random.key(0), size=16, steps=40, transforms=None)
        >>> seen.images.shape, bool(seen.history[0, -1] > seen.history[0, 0] + 0.05)
        ((1, 16, 16, 3), True)
    """
    checks.key(key)
    model = _targets.as_model(model)
    normalize = _targets.as_model(normalize or identity)
    parsed = [objectives.parse(one) for one in listed(objective)]
    if not parsed:
        raise ValueError("`objective` must name at least one objective; got none")
    names = frozenset().union(*(one.layers() for one in parsed))
    check_names(model, names, alpha)
    painter = parametrize.by_name(parametrization)
    base = _engine.Recipe(
        size=checks.pair(size, "size"),
        channels=checks.positive(channels, "channels"),
        copies=checks.positive(copies, "copies"),
        crops=checks.positive(crops, "crops"),
        steps=checks.positive(steps, "steps"),
        alpha=bool(alpha),
        transforms=_transforms(transforms),
        anneal=bool(anneal),
        optimizer=adam() if optimizer is None else optimizer,
        redirect=0,
        snapshots=_snapshots(snapshots, steps),
        layers=_engine.in_order(model, names),
    )
    shapes, fields = _shapes(base, model, normalize)
    for one in parsed:
        objectives.check(one, shapes)
    _warn_small(base, shapes, fields)
    start = _start(start, len(parsed), base.shape)
    keys = run_keys(key, indices, len(parsed))
    limit = batching.chunk_size(
        batch_size,
        model,
        _engine.shape_of(base, 1),
        count=len(parsed) * base.copies * base.crops,
    )

    parts: list[Any] = [None] * len(parsed)
    for members in groups(parsed):
        chosen = [parsed[i] for i in members]
        recipe = _for_group(base, model, normalize, chosen[0], redirect)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chosen)
        rows = np.asarray(members)
        result = _engine.run(
            model,
            normalize,
            painter,
            stacked,
            keys[rows],
            None if start is None else start[rows],
            recipe=recipe,
            batch_size=limit,
        )
        for position, i in enumerate(members):
            parts[i] = jax.tree.map(lambda a, position=position: a[position], result)
    joined = jax.tree.map(lambda *a: jnp.concatenate(a), *parts)
    found = Visualization(
        images=joined["images"],
        history=joined["history"],
        snapshots=jnp.moveaxis(joined["snapshots"], 1, 0),
        opacity=joined["opacity"],
        importance=joined["importance"],
    )
    _warn_silent(found, base.copies)
    return found


def single(objective: Any) -> bool:
    """Return whether this is one objective rather than a list of them."""
    return isinstance(objective, (str, Objective)) or callable(objective)


def listed(objective: Any) -> list[Any]:
    """Return the list of objectives given as one or as a sequence."""
    return [objective] if single(objective) else list(objective)


def check_names(model: Any, names: frozenset[str], alpha: bool) -> None:
    """Raise ValueError if an objective refers to something that does not exist."""
    known = layers.layer_names(model)
    for name in sorted(names):
        if name == OPACITY and not alpha:
            raise ValueError("an objective of the opacity needs `alpha=True`")
        if name not in (*known, IMAGES, OPACITY, layers.OUTPUT):
            raise ValueError(unknown(name, known))


def _transforms(value):
    if value is None:
        return NONE
    if not isinstance(value, Transforms):
        raise TypeError(f"`transforms` must be a Transforms or None; got {type(value).__name__}")
    return value


def _snapshots(value, steps):
    found = tuple(sorted({int(step) for step in value}))
    if found and not 1 <= found[0] <= found[-1] <= steps:
        raise ValueError(f"`snapshots` must be steps 1 to {steps}; got {found}")
    return found


def _shapes(recipe, model, normalize):
    """Return the shape of each layer's activations of one image, and the field of view of its units.

    The image's own shape is beside the layers'; the fields are (rows, columns) by layer, if known.
    """
    x = _engine.shape_of(recipe, 1)

    try:
        traced = _engine.seen.trace(model, normalize, x, names=recipe.layers)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the model does not take images of {x.shape[1]} x {x.shape[2]} pixels and {x.shape[3]} channels"
            f" as far as {', '.join(recipe.layers)}: {error}"
        ) from error
    shapes = {name: a.shape for name, a in zip(recipe.layers, traced.out_info, strict=True)}
    for name, shape in shapes.items():
        if 0 in shape:
            raise ValueError(
                f"layer {name!r} has no positions for images of {x.shape[1]} x {x.shape[2]} pixels:"
                " choose a larger `size`"
            )
    fields = {
        name: _receptive.field(traced.jaxpr, i)
        for i, (name, shape) in enumerate(shapes.items())
        if len(shape) == 4
    }
    shape = (1, *recipe.shape)
    return {**shapes, IMAGES: shape, OPACITY: (*shape[:3], 1)}, fields


def _warn_small(recipe, shapes, fields):
    rows, columns = _engine.shape_of(recipe, 1).shape[1:3]
    for name in recipe.layers:
        shape, field = shapes[name], fields.get(name)
        if field is not None and (rows < field[0] or columns < field[1]):
            warnings.warn(
                f"images of {rows} x {columns} pixels are smaller than what a unit of layer {name!r} sees,"
                f" {field[0]} x {field[1]} pixels: every unit sees padding; choose a larger `size`",
                SmallImageWarning,
                stacklevel=3,
            )
        elif field is None and len(shape) == 4 and max(shape[1:3]) < 3:
            warnings.warn(
                f"layer {name!r} has only {shape[1]} x {shape[2]} positions at this `size`: its units may see"
                " more than the whole image",
                SmallImageWarning,
                stacklevel=3,
            )


def _start(start, runs, shape):
    if start is None:
        return None
    start = checks.images(start, "start")
    if start.shape[1:] != shape or start.shape[0] not in (1, runs):
        raise ValueError(
            f"`start` must be [{runs}, {', '.join(map(str, shape))}], or one image for all; got {start.shape}"
        )
    return jnp.broadcast_to(start, (runs, *shape))


def groups(parsed: Sequence[Objective]) -> list[list[int]]:
    """Return the indices of the objectives that share a structure, per structure."""
    groups: dict[Any, list[int]] = {}
    for i, one in enumerate(parsed):
        leaves, tree = jax.tree.flatten(one)
        shape = tuple((jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves)
        groups.setdefault((tree, shape), []).append(i)
    return list(groups.values())


def _for_group(base, model, normalize, objective, redirect):
    """Return the recipe with the layers of one group, redirected if the network has ReLUs."""
    names = _engine.in_order(model, objective.layers())
    checks.at_least(redirect, "redirect", 0)
    able = redirect and _engine.can_redirect(model, normalize, names, _engine.shape_of(base, 1))
    return replace(base, layers=names, redirect=min(redirect, base.steps) if able else 0)


def _warn_silent(found, copies):
    if isinstance(found.history, Tracer):
        return
    history = np.asarray(found.history)
    # Redirected gradients change the image of a dead channel too, though not its value.
    stuck = (history == history[:, :1]).all(1) & (history.shape[1] > 1)
    silent = stuck | (np.asarray(found.importance).max((1, 2)) == 0)
    if silent.any():
        runs = sorted({int(i) // copies for i in np.flatnonzero(silent)})
        warnings.warn(
            f"objectives {runs} had the same value at every step: the channel is dead, or the objective does"
            " not depend on the image",
            stacklevel=3,
        )
    broken = ~np.isfinite(history).all(1)
    if broken.any():
        runs = sorted({int(i) // copies for i in np.flatnonzero(broken)})
        warnings.warn(f"objectives {runs} became NaN or infinite", stacklevel=3)
