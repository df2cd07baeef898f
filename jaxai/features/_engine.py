"""The optimisation behind all synthetic images: many runs in one compiled loop."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .. import layers, rules
from .._frame import batching, optimizer
from . import parametrize, transforms
from ._dream import model_dtype
from .objectives import IMAGES, OPACITY

# The random backgrounds behind transparent images: Lucid's.
_BACKGROUND = parametrize.Fourier(std=0.5)


@dataclass(frozen=True)
class Recipe:
    """The static settings of a run; hashable, so that equal recipes compile once."""

    size: tuple[int, int]
    channels: int
    copies: int
    crops: int
    steps: int
    alpha: bool
    transforms: transforms.Transforms
    anneal: bool
    optimizer: optax.GradientTransformation
    redirect: int
    snapshots: tuple[int, ...]
    layers: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image."""
        return (*self.size, self.channels)


def activations_at(model: Any, names: tuple[str, ...], x: jax.Array) -> dict[str, jax.Array]:
    """Return activations at layers in forward order, channels last; the network runs no further."""
    known = layers.layer_names(model)
    found, images, start = {}, x, None
    for name in names:
        if hasattr(model, "split") or not hasattr(model, "layer_names"):
            acts = layers.split(model, name, images)[0]
        else:
            stop = name if name in known else None
            x = model(x, stop=stop) if start is None else model(x, start=start, stop=stop)
            acts, start = layers.one_array(x, name), stop
        found[name] = layers.channels_last(model, name, images, acts)
    return found


def in_order(model: Any, names: Any) -> tuple[str, ...]:
    """Return layers' names in forward order, without the image's and the opacity's."""
    known = layers.layer_names(model)
    names = [name for name in names if name not in (IMAGES, OPACITY)]
    return tuple(sorted(names, key=lambda name: known.index(name) if name in known else len(known)))


def see(model: Any, normalize: Any, names: tuple[str, ...], images: jax.Array) -> dict[str, jax.Array]:
    """Return the activations of images in [0, 1], computed in the type of the model's parameters."""
    x = normalize(images)
    kind = model_dtype(model)
    return activations_at(model, names, x if kind is None else x.astype(kind))


@partial(jax.jit, static_argnames="names")
def seen(model: Any, normalize: Any, images: Any, *, names: tuple[str, ...]) -> tuple[jax.Array, ...]:
    """Return the result of `see`, in the order of the names; compiled, so traced once per shape."""
    acts = see(model, normalize, names, images)
    return tuple(acts[name] for name in names)


@partial(jax.jit, static_argnames="names")
def _seen_redirected(model, normalize, images, *, names):
    return seen(rules.redirected_relu(model), normalize, images, names=names)


def _init(recipe, base, key, start):
    """Return the parameters of one run."""
    paint, veil = jax.random.split(key)
    copies = recipe.copies
    color = (
        parametrize.init_group(base, paint, recipe.shape, copies)
        if start is None
        else parametrize.encode_group(base, start, copies)
    )
    if not recipe.alpha:
        return {"color": color}
    return {"color": color, "alpha": parametrize.init_group(base, veil, (*recipe.size, 1), copies)}


def _render(recipe, base, params):
    """Return the images of one run and their opacity: [copies, h, w, channels], [copies, h, w, 1]."""
    images = parametrize.render_group(base, params["color"], recipe.shape)
    if not recipe.alpha:
        return images, jnp.ones((*images.shape[:3], 1), jnp.float32)
    return images, parametrize.render_group(base, params["alpha"], (*recipe.size, 1))


def _views(recipe, model, normalize, images, opacity, keys, progress):
    """Return the network's activations for the runs' images, [runs, crops, copies, ...] by layer.

    `keys` has one for each view, [runs, copies, crops].
    """

    def prepare(key, image, veil):
        """Return a random draw for one view of an image, and the background of its transforms."""
        moved = transforms.draw(recipe.transforms, key, recipe.size, progress)
        if not recipe.alpha:
            return moved, image
        params = _BACKGROUND.init(jax.random.fold_in(key, 3), recipe.shape)
        return moved, veil * image + (1 - veil) * _BACKGROUND.render(params, recipe.shape)

    of_image = jax.vmap(prepare, (0, None, None))
    draws, seen = jax.vmap(jax.vmap(of_image))(keys, images, opacity)
    # [runs, copies, crops, ...] as one batch.
    draws, seen = jax.tree.map(lambda a: a.reshape(-1, *a.shape[3:]), (draws, seen))
    x = transforms.apply(recipe.transforms, draws, seen)
    acts = see(model, normalize, recipe.layers, x)
    return {name: a.reshape(*keys.shape, *a.shape[1:]).swapaxes(1, 2) for name, a in acts.items()}


def _values(recipe, objectives, views, images, opacity, weights):
    """Return the objectives' values [runs, copies], summed over crops by their weights [crops]."""

    def of_run(objective, view, image, veil):
        def of_crop(view):
            values = objective({**view, IMAGES: image, OPACITY: veil})
            return jnp.broadcast_to(values, (recipe.copies,)).astype(jnp.float32)

        values = jax.vmap(of_crop, axis_size=weights.size)(view)
        return (weights[:, None] * values).sum(0)

    return jax.vmap(of_run)(objectives, views, images, opacity)


def _loop(recipe, base, model, normalize, objectives, keys, start, *, batch_size):
    """Run all steps of one chunk of runs; if they have more views than `batch_size`, crops take turns."""
    init_keys = jax.vmap(lambda k: jax.random.fold_in(k, 0))(keys)
    params = (
        jax.vmap(lambda k: _init(recipe, base, k, None))(init_keys)
        if start is None
        else jax.vmap(lambda k, s: _init(recipe, base, k, s))(init_keys, start)
    )
    runs = keys.shape[0]
    # One key per view; every step folds in its number.
    folded = jnp.vectorize(jax.random.fold_in, excluded=())
    views = folded(keys[:, None], 1 + jnp.arange(recipe.copies)[None])
    views = folded(views[:, :, None], jnp.arange(recipe.crops)[None, None])
    render = jax.vmap(partial(_render, recipe, base))
    state = jax.vmap(recipe.optimizer.init)(params)
    snapshots = jnp.zeros((len(recipe.snapshots), runs, recipe.copies, *recipe.shape), jnp.float32)
    importance = jnp.zeros((runs, recipe.copies, *recipe.size), jnp.float32)

    def step(network, carry, number):
        params, state, snapshots, importance = carry
        step_keys = folded(views, number.reshape(1, 1, 1))
        progress = number / max(1, recipe.steps) if recipe.anneal else None
        (images, opacity), back = jax.vjp(render, params)

        def of_crops(crop_keys, valid):
            def total(images, opacity):
                keys = jnp.moveaxis(crop_keys, 0, -1)
                shown = _views(recipe, network, normalize, images, opacity, keys, progress)
                values = _values(recipe, objectives, shown, images, opacity, valid / recipe.crops)
                return values.sum(), values

            return jax.grad(total, argnums=(0, 1), has_aux=True)(images, opacity)

        gradients, values = batching.sum_chunks(
            of_crops, jnp.moveaxis(step_keys, -1, 0), batch_size=max(1, batch_size // (runs * recipe.copies))
        )
        # Optax descends.
        descent = jax.tree.map(jnp.negative, back(gradients)[0])
        updates, state = jax.vmap(partial(optimizer.step, recipe.optimizer))(descent, state, params)
        params = optax.apply_updates(params, updates)
        importance += jnp.abs(gradients[0]).mean(-1)
        if recipe.snapshots:
            here = jnp.asarray(recipe.snapshots) == number + 1
            snapshots = jax.lax.cond(
                here.any(),
                lambda: jnp.where(here[:, None, None, None, None, None], render(params)[0], snapshots),
                lambda: snapshots,
            )
        return (params, state, snapshots, importance), values

    carry, histories = (params, state, snapshots, importance), []
    # The first steps see the network with redirected ReLUs, which brings dead units back.
    phases = ((0, recipe.redirect), (recipe.redirect, recipe.steps))
    for first, last in phases:
        if last > first:
            network = rules.redirected_relu(model) if last <= recipe.redirect else model
            carry, history = jax.lax.scan(partial(step, network), carry, jnp.arange(first, last))
            histories.append(history)
    params, _, snapshots, importance = carry
    images, opacity = render(params)
    return {
        "images": images,
        "opacity": opacity[..., 0],
        "history": jnp.moveaxis(jnp.concatenate(histories), 0, -1),
        "snapshots": jnp.moveaxis(snapshots, 0, 2),
        "importance": importance,
    }


@partial(jax.jit, static_argnames=("recipe", "batch_size"))
def run(
    model: Any,
    normalize: Any,
    parametrization: Any,
    objectives: Any,
    keys: jax.Array,
    start: Any,
    *,
    recipe: Recipe,
    batch_size: int,
) -> dict[str, jax.Array]:
    """Run an optimisation for each of the stacked objectives, `batch_size` views at a time.

    Args:
        model: The network.
        normalize: Photos in [0, 1] to the network's input.
        parametrization: How parameters make images; a pytree.
        objectives: An objective with data [runs, ...].
        keys: A key for each run.
        start: Photos to start from [runs, height, width, channels], or None.
        recipe: The static settings.
        batch_size: At most this many views in flight, but at least one per copy.

    Returns:
        images [runs, copies, h, w, channels], opacity and importance [runs, copies, h, w], history [runs,
        copies, steps], snapshots [runs, copies, snapshots, h, w, channels].
    """

    def chunk(arguments):
        return _loop(recipe, parametrization, model, normalize, *arguments, batch_size=batch_size)

    together = max(1, batch_size // (recipe.copies * recipe.crops))
    return batching.map_chunks(chunk, (objectives, keys, start), batch_size=together)


def can_redirect(model: Any, normalize: Any, names: tuple[str, ...], images: jax.ShapeDtypeStruct) -> bool:
    """Return whether the network has a ReLU before the layers, whose gradient could be redirected."""
    try:
        _seen_redirected.eval_shape(model, normalize, images, names=names)
    except ValueError:
        return False
    return True


def shape_of(recipe: Recipe, batch: int) -> jax.ShapeDtypeStruct:
    """Return the shape of the network's input."""
    return jax.ShapeDtypeStruct((batch, *recipe.transforms.size(recipe.size), recipe.channels), jnp.float32)
