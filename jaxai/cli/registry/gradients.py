"""Gradient methods on the command line."""

from ... import gradients
from .method import Method

METHODS = (
    Method(
        name="saliency",
        run=gradients.saliency,
        result="pixels",
        summary="the gradient of the score with respect to the image",
        cost="1 + k backward",
        paper="Simonyan et al. 2014, arXiv 1312.6034",
        needs=frozenset({"batch_size"}),
        signed=True,
    ),
    Method(
        name="integrated_gradients",
        run=gradients.integrated_gradients,
        result="pixels",
        summary="the gradient integrated from a baseline to the image",
        cost="50 (forward + k backward)",
        paper="Sundararajan et al. 2017, arXiv 1703.01365",
        needs=frozenset({"batch_size"}),
        signed=True,
    ),
)
