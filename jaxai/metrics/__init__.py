"""How good a map is: pure functions, arrays in and arrays out, for the maps of any library."""

from ._compare import compare
from ._comparison import Comparison
from ._complexity import effective_complexity, entropy, gini
from ._infidelity import infidelity
from ._linear import linear
from ._localization import (
    auc,
    chance,
    focus,
    iou,
    mass_accuracy,
    mosaics,
    pointing_game,
    rank_accuracy,
    top_k_intersection,
)
from ._order import Curve
from ._randomization import Randomization, emprt, mprt, random_logit, similarity, smooth_mprt
from ._regions import (
    AverageDrop,
    average_drop,
    faithfulness_estimate,
    monotonicity,
    monotonicity_correlation,
    sufficiency,
)
from ._removal import RelevanceGain, deletion, insertion, relevance_gain
from ._road import Road, road
from ._robustness import (
    Stability,
    average_sensitivity,
    local_lipschitz,
    max_sensitivity,
    prediction_flips,
    relative_input_stability,
    relative_output_stability,
)
from ._subsets import Correlation, faithfulness_correlation, sensitivity_n
from ._table import METRICS, Metric
from ._variants import irof, pixel_flipping, region_perturbation, selectivity

__all__ = [
    "AverageDrop",
    "Comparison",
    "Correlation",
    "Curve",
    "METRICS",
    "Metric",
    "Randomization",
    "RelevanceGain",
    "Road",
    "Stability",
    "auc",
    "average_drop",
    "average_sensitivity",
    "chance",
    "compare",
    "deletion",
    "effective_complexity",
    "emprt",
    "entropy",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "focus",
    "gini",
    "infidelity",
    "insertion",
    "iou",
    "irof",
    "linear",
    "local_lipschitz",
    "mass_accuracy",
    "max_sensitivity",
    "monotonicity",
    "monotonicity_correlation",
    "mosaics",
    "mprt",
    "pixel_flipping",
    "pointing_game",
    "prediction_flips",
    "random_logit",
    "rank_accuracy",
    "region_perturbation",
    "relative_input_stability",
    "relative_output_stability",
    "relevance_gain",
    "road",
    "selectivity",
    "sensitivity_n",
    "similarity",
    "smooth_mprt",
    "sufficiency",
    "top_k_intersection",
]
