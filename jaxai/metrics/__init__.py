"""Metrics of maps: pure functions of arrays, for the maps of any library.

Maps are [batch, height, width], or [batch, k, height, width] for k targets per image; channels after these
are summed with their signs (`jaxai.maps.magnitude` reduces them otherwise). Equal values are ordered in
row-major order. A constant map defines no order: its score is NaN, with a warning.

`fill`, the content of removed pixels in the model's input space, is a number, a colour [channels], anything
that broadcasts to the images (such as other images), or a name:

- `"mean"`: the image's mean colour (`"image_mean"` in `jaxai.lime`);
- `"segment_mean"`: each superpixel's own mean colour;
- `"neighbours"`: the mean colour of the surrounding superpixels, weighted by the length of the common border;
- `"blur"`: the image after a Gaussian blur of a twentieth of its shorter side;
- `"rise_blur"`: the blur of RISE's insertion, 11 x 11 pixels (sigma 5), zeros outside the image;
- `"noise"`: Gaussian noise with the image's mean and deviation per channel (needs a `key`);
- `"uniform"`: uniform noise between the image's minimum and maximum per channel (needs a `key`);
- `"linear"`: the weighted mean of the eight neighbours, a linear system (ROAD).
"""

from ._axioms import completeness, input_invariance, non_sensitivity
from ._compare import compare
from ._comparison import Comparison
from ._complexity import effective_complexity, entropy, gini
from ._infidelity import infidelity
from ._information import InformationCurve, aic, sic
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
from ._metric import Metric
from ._order import Curve
from ._randomization import Randomization, emprt, mprt, random_logit, similarity, smooth_mprt
from ._regions import (
    AverageDrop,
    average_drop,
    faithfulness_estimate,
    monotonicity,
    monotonicity_correlation,
)
from ._removal import RelevanceGain, deletion, insertion, relevance_gain
from ._road import Road, road
from ._robustness import (
    average_sensitivity,
    continuity,
    local_lipschitz,
    max_sensitivity,
    prediction_flips,
)
from ._sets import consistency, sufficiency
from ._stability import (
    Stability,
    relative_input_stability,
    relative_output_stability,
    relative_representation_stability,
)
from ._subsets import Correlation, faithfulness_correlation, sensitivity_n
from ._table import METRICS
from ._variants import irof, pixel_flipping, region_perturbation, selectivity

__all__ = [
    "AverageDrop",
    "Comparison",
    "Correlation",
    "Curve",
    "InformationCurve",
    "METRICS",
    "Metric",
    "Randomization",
    "RelevanceGain",
    "Road",
    "Stability",
    "aic",
    "auc",
    "average_drop",
    "average_sensitivity",
    "chance",
    "compare",
    "completeness",
    "consistency",
    "continuity",
    "deletion",
    "effective_complexity",
    "emprt",
    "entropy",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "focus",
    "gini",
    "infidelity",
    "input_invariance",
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
    "non_sensitivity",
    "pixel_flipping",
    "pointing_game",
    "prediction_flips",
    "random_logit",
    "rank_accuracy",
    "region_perturbation",
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
    "relevance_gain",
    "road",
    "selectivity",
    "sensitivity_n",
    "sic",
    "similarity",
    "smooth_mprt",
    "sufficiency",
    "top_k_intersection",
]
