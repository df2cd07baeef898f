"""What is known of each metric: its question, its range, which direction is better, and what it costs.

`compare` and the table of the documentation are made from this one list.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from . import (
    _complexity,
    _infidelity,
    _localization,
    _randomization,
    _regions,
    _removal,
    _road,
    _robustness,
    _subsets,
    _variants,
)

Takes = Literal["scores", "maps", "masks", "method"]


@dataclass(frozen=True)
class Metric:
    """A metric as `compare` calls it.

    Attributes:
        function: The metric itself.
        question: What it answers.
        takes: `"scores"`: (model, images, maps, targets); `"maps"`: (maps); `"masks"`: (maps, masks);
            `"method"`: (method, model, images, targets).
        better: The direction of better maps.
        range: Of its values.
        passes: How often the network runs for one image and target, apart from the method.
        read: From what it returns to one number per image.
        random: Whether it takes a `key`.
        needs: Options without a default.
    """

    function: Callable[..., Any]
    question: str
    takes: Takes
    better: Literal["higher", "lower"]
    range: str
    passes: str
    read: Callable[[Any], Any] = lambda found: found
    random: bool = False
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def family(self) -> str:
        """What kind of question it answers."""
        return _FAMILIES[self.function.__module__.rpartition(".")[2]]


_FAMILIES = {
    "_removal": "faithfulness",
    "_variants": "faithfulness",
    "_road": "faithfulness",
    "_subsets": "faithfulness",
    "_infidelity": "faithfulness",
    "_regions": "faithfulness",
    "_localization": "localization",
    "_complexity": "complexity",
    "_robustness": "robustness",
    "_randomization": "randomization",
}


def _area(found):
    return found.area


_METHOD: dict[str, Any] = {"takes": "method", "random": True}
_SCORES: dict[str, Any] = {"takes": "scores"}

METRICS = (
    Metric(
        _removal.relevance_gain,
        "does the score fall faster most relevant first than least relevant first?",
        better="higher",
        range="-1 to 1, chance 0",
        passes="2 (steps + 1)",
        read=lambda found: found.gain,
        **_SCORES,
    ),
    Metric(
        _removal.deletion,
        "does the probability fall when the most relevant pixels go?",
        better="lower",
        range="0 to 1",
        passes="steps + 1",
        read=_area,
        **_SCORES,
    ),
    Metric(
        _removal.insertion,
        "does the probability rise when the most relevant pixels come?",
        better="higher",
        range="0 to 1",
        passes="steps + 1",
        read=_area,
        **_SCORES,
    ),
    Metric(
        _variants.pixel_flipping,
        "does the score fall when the most relevant pixels are flipped?",
        better="lower",
        range="that of the score",
        passes="steps + 1",
        read=_area,
        **_SCORES,
    ),
    Metric(
        _variants.region_perturbation,
        "how far does the score fall when windows become noise?",
        better="higher",
        range="that of the score",
        passes="101",
        read=_area,
        random=True,
        **_SCORES,
    ),
    Metric(
        _variants.selectivity,
        "does the score fall when the most relevant windows go?",
        better="lower",
        range="that of the score",
        passes="steps + 1",
        read=_area,
        **_SCORES,
    ),
    Metric(
        _variants.irof,
        "what share of the probability goes with the most relevant superpixels?",
        better="higher",
        range="at most 1",
        passes="superpixels + 1",
        read=_area,
        needs=("segments",),
        **_SCORES,
    ),
    Metric(
        _road.road,
        "the same as relevance gain, with pixels imputed so that they cannot be seen?",
        better="higher",
        range="-1 to 1, chance 0",
        passes="18",
        read=lambda found: found.gain,
        random=True,
        **_SCORES,
    ),
    Metric(
        _subsets.sensitivity_n,
        "is the sum over random subsets of n pixels the fall of the score?",
        better="higher",
        range="-1 to 1, chance 0",
        passes="100 sizes + 1",
        read=lambda found: found.mean(-1),
        random=True,
        **_SCORES,
    ),
    Metric(
        _subsets.faithfulness_correlation,
        "the same for one size, with a standard error?",
        better="higher",
        range="-1 to 1, chance 0",
        passes="101",
        read=lambda found: found.correlation,
        random=True,
        **_SCORES,
    ),
    Metric(
        _infidelity.infidelity,
        "how far is what the map says of a removed rectangle from what happens?",
        better="lower",
        range="0 or more",
        passes="51",
        random=True,
        **_SCORES,
    ),
    Metric(
        _regions.faithfulness_estimate,
        "is the sum over each region the fall of the probability without it?",
        better="higher",
        range="-1 to 1, chance 0",
        passes="regions + 1",
        **_SCORES,
    ),
    Metric(
        _regions.monotonicity,
        "does the probability never fall as regions are shown, least relevant first?",
        better="higher",
        range="0 to 1",
        passes="regions + 1",
        **_SCORES,
    ),
    Metric(
        _regions.monotonicity_correlation,
        "do regions of large magnitude change the probability most?",
        better="higher",
        range="-1 to 1, chance 0",
        passes="10 regions + 1",
        random=True,
        **_SCORES,
    ),
    Metric(
        _regions.average_drop,
        "how much of the probability is lost if the map is laid over the image?",
        better="lower",
        range="0 to 1",
        passes="2",
        read=lambda found: found.drop,
        **_SCORES,
    ),
    Metric(
        _localization.pointing_game,
        "is the largest value on the object?",
        "masks",
        better="higher",
        range="0 or 1",
        passes="0",
    ),
    Metric(
        _localization.mass_accuracy,
        "what share of the positive mass is on the object?",
        "masks",
        better="higher",
        range="0 to 1",
        passes="0",
    ),
    Metric(
        _localization.rank_accuracy,
        "what share of as many pixels as the object has is on it?",
        "masks",
        better="higher",
        range="0 to 1",
        passes="0",
    ),
    Metric(
        _localization.top_k_intersection,
        "what share of the k most relevant pixels is on the object?",
        "masks",
        better="higher",
        range="0 to 1",
        passes="0",
    ),
    Metric(
        _localization.iou,
        "how well do the most relevant pixels cover the object?",
        "masks",
        better="higher",
        range="0 to 1",
        passes="0",
    ),
    Metric(
        _localization.auc,
        "is a pixel of the object more relevant than another?",
        "masks",
        better="higher",
        range="0 to 1, chance 1/2",
        passes="0",
    ),
    Metric(
        _localization.focus,
        "what share of the positive mass of a mosaic is on the class's tiles?",
        "masks",
        better="higher",
        range="0 to 1",
        passes="0",
    ),
    Metric(
        _complexity.gini,
        "is the magnitude on few pixels?",
        "maps",
        better="higher",
        range="0 to 1",
        passes="0",
    ),
    Metric(
        _complexity.entropy,
        "is the magnitude on few pixels?",
        "maps",
        better="lower",
        range="0 to ln(pixels)",
        passes="0",
    ),
    Metric(
        _complexity.effective_complexity,
        "how many pixels are not negligible?",
        "maps",
        better="lower",
        range="0 to 1",
        passes="0",
    ),
    Metric(
        _robustness.max_sensitivity,
        "does the map stay what it is when the image hardly changes?",
        better="lower",
        range="0 or more",
        passes="11 maps",
        **_METHOD,
    ),
    Metric(
        _robustness.average_sensitivity,
        "the same on average?",
        better="lower",
        range="0 or more",
        passes="11 maps",
        **_METHOD,
    ),
    Metric(
        _robustness.local_lipschitz,
        "how much does the map change per change of the image?",
        better="lower",
        range="0 or more, the map's unit",
        passes="11 maps",
        **_METHOD,
    ),
    Metric(
        _robustness.relative_input_stability,
        "the same, relative to map and image?",
        better="lower",
        range="0 or more",
        passes="11 maps + 11",
        read=lambda found: found.median,
        **_METHOD,
    ),
    Metric(
        _robustness.relative_output_stability,
        "the same, relative to map and scores?",
        better="lower",
        range="0 or more",
        passes="11 maps + 22",
        read=lambda found: found.median,
        **_METHOD,
    ),
    Metric(
        _randomization.mprt,
        "does the map change with the network's parameters?",
        better="lower",
        range="-1 to 1, chance 0",
        passes="(layers + 1) maps",
        read=lambda found: found.score,
        **_METHOD,
    ),
    Metric(
        _randomization.smooth_mprt,
        "the same, noise averaged out?",
        better="lower",
        range="-1 to 1, chance 0",
        passes="50 (layers + 1) maps",
        read=lambda found: found.score,
        **_METHOD,
    ),
    Metric(
        _randomization.emprt,
        "is the map of the trained network simpler than that of a random one?",
        better="higher",
        range="-1 or more",
        passes="2 maps",
        **_METHOD,
    ),
    Metric(
        _randomization.random_logit,
        "does the map change with the class?",
        better="lower",
        range="-1 to 1",
        passes="2 maps",
        **_METHOD,
    ),
)


def markdown() -> str:
    """Return the table of the documentation."""
    lines = ["| question | metric | range | better | passes |", "|---|---|---|---|---|"]
    family = ""
    for metric in METRICS:
        if metric.family != family:
            family = metric.family
            lines.append(f"| **{family}** | | | | |")
        lines.append(
            f"| {metric.question} | `{metric.name}` | {metric.range} | {metric.better} | {metric.passes} |"
        )
    return "\n".join(lines)
