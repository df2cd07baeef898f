"""The description of a metric, for `compare` and the documentation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Takes = Literal["scores", "maps", "masks", "method"]


@dataclass(frozen=True)
class Metric:
    """A metric that `compare` can call.

    Attributes:
        function: The metric itself.
        question: The question that it answers.
        takes: `"scores"`: (model, images, maps, targets); `"maps"`: (maps); `"masks"`: (maps, masks);
            `"method"`: (method, model, images, targets).
        better: `"higher"` or `"lower"`: the direction of better maps.
        range: Range of its values.
        passes: Runs of the network per image and target, without those of the method.
        read: Maps its result to one number per image.
        random: Whether it takes a `key`.
        needs: Options without a default.
    """

    function: Callable[..., Any]
    question: str
    takes: Takes
    better: Literal["higher", "lower"]
    range: str
    passes: str = "0"
    read: Callable[[Any], Any] = lambda found: found
    random: bool = False
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def family(self) -> str:
        """The kind of question that it answers."""
        return _FAMILIES[self.function.__module__.rpartition(".")[2]]


_FAMILIES = {
    "_removal": "faithfulness",
    "_variants": "faithfulness",
    "_road": "faithfulness",
    "_subsets": "faithfulness",
    "_infidelity": "faithfulness",
    "_regions": "faithfulness",
    "_information": "faithfulness",
    "_localization": "localization",
    "_complexity": "complexity",
    "_robustness": "robustness",
    "_stability": "robustness",
    "_randomization": "randomization",
    "_axioms": "axioms",
}
