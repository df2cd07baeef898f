"""Functions with some of their operations replaced."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial, register_dataclass

from .._program.graph import Graph, trace
from .._program.run import Exchange, evaluate, exchanged


@register_dataclass
@dataclass(frozen=True)
class Rewritten:
    """A callable pytree: `model`, with some of its operations replaced each time it is called.

    Attributes:
        model: The function; its leaves are the parameters.
        exchange: The argument of `exchanged`; hashable.
        enter: Decides whether a call with its own derivative is inlined.
        required: Name of the operations of which at least one must be found, for the error; None if none is
            required.
    """

    model: Any
    exchange: Exchange = field(metadata={"static": True})
    enter: Callable[[Graph], bool] = field(metadata={"static": True})
    required: str | None = field(default=None, metadata={"static": True})

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Return `model(*args, **keywords)`; keywords are static."""
        fn = Partial(_With(tuple(keywords.items())), self.model) if keywords else self.model
        graph, flat, tree = trace(fn, *args, structured=True, enter=self.enter)
        rewritten = exchanged(graph, self.exchange)
        if self.required is not None and rewritten is None:
            operations = ", ".join(sorted({node.name for node in graph.nodes})) or "none"
            raise ValueError(
                f"`model` must contain {self.required} for this method to change its gradient;"
                f" got operations: {operations}"
            )
        return jax.tree.unflatten(tree, evaluate(rewritten or graph, flat))

    def __getattr__(self, name: str) -> Any:
        # Layered models stay layered: their stages run by `start` and `stop`, or they have their own `split`.
        if name in ("layer_names", "names", "avals", "layouts", "layout_of", "default_layer", "reaches"):
            return getattr(self.model, name)
        if name == "split" and hasattr(self.model, "split"):
            return self._split
        raise AttributeError(name)

    def _split(self, layer: str, images: jax.Array) -> tuple[jax.Array, "Rewritten"]:
        acts, head = replace(self, model=Partial(_Split(layer), self.model))(images)
        return acts, replace(self, model=head, required=None)


class _With(NamedTuple):
    """A call of a model with keywords; equal instances share one program."""

    keywords: tuple[tuple[str, Any], ...]

    def __call__(self, model, *args):
        return model(*args, **dict(self.keywords))


class _Split(NamedTuple):
    """A split of a model at a layer; equal instances share one program."""

    layer: str

    def __call__(self, model, images):
        return model.split(self.layer, images)
