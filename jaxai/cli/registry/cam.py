"""The CAM family on the command line."""

from ... import cam
from .method import Method

METHODS = (
    Method(
        name="grad_cam",
        title="Grad-CAM",
        run=cam.grad_cam,
        result="heatmap",
        summary="channels of a layer weighted by their mean gradient",
        cost="1 + k heads",
        paper="Selvaraju et al. 2017, arXiv 1610.02391",
        needs=frozenset({"layer", "batch_size"}),
    ),
)
