"""The perturbation family on the command line."""

from ... import perturbation
from .method import Method

METHODS = (
    Method(
        name="lime",
        run=perturbation.lime,
        result="segments",
        summary="a linear model of the probability in the superpixels shown",
        cost="1000",
        paper="Ribeiro et al. 2016, arXiv 1602.04938",
        needs=frozenset({"key", "segments", "batch_size"}),
        signed=True,
    ),
)
