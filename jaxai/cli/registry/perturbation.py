"""The perturbation family on the command line."""

from ... import perturbation
from .method import Method

_SUPERPIXELS = frozenset({"key", "segments", "batch_size"})

METHODS = (
    Method(
        name="lime",
        run=perturbation.lime,
        result="segments",
        summary="a linear model of the probability in the superpixels shown",
        cost="1000",
        paper="Ribeiro et al. 2016, arXiv 1602.04938",
        needs=_SUPERPIXELS,
        signed=True,
    ),
    Method(
        name="kernel_shap",
        run=perturbation.kernel_shap,
        result="segments",
        summary="Shapley values of superpixels by regression on sampled coalitions",
        cost="2050",
        paper="Lundberg, Lee 2017, arXiv 1705.07874",
        needs=_SUPERPIXELS,
        signed=True,
    ),
    Method(
        name="permutation_shapley",
        run=perturbation.permutation_shapley,
        result="segments",
        summary="Shapley values of superpixels from random orders, forwards and backwards",
        cost="20 (S - 1) + 2",
        paper="Mitchell et al. 2022, arXiv 2104.12199",
        needs=_SUPERPIXELS,
        signed=True,
    ),
    Method(
        name="rise",
        run=perturbation.rise,
        result="heatmap",
        summary="random smooth masks averaged by the probability of what they show",
        cost="4000",
        paper="Petsiuk et al. 2018, arXiv 1806.07421",
        needs=frozenset({"key", "batch_size"}),
    ),
    Method(
        name="occlusion",
        run=perturbation.occlusion,
        result="heatmap",
        summary="the drop of the score when a sliding window is covered",
        cost="170 at 224 x 224",
        paper="Zeiler, Fergus 2014, arXiv 1311.2901",
        needs=frozenset({"batch_size"}),
        signed=True,
    ),
)
