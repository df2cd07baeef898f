"""Gradient methods on the command line."""

from ... import gradients
from .method import Method

CHUNKED = frozenset({"batch_size"})
SEEDED = CHUNKED | {"key"}


def _pixels(name, summary, cost, paper, *, needs=CHUNKED, signed=True, title="") -> Method:
    """Return the method of pixel values, found in `jaxai.gradients` by its name."""
    return Method(
        name=name,
        run=getattr(gradients, name),
        result="pixels",
        summary=summary,
        cost=cost,
        paper=paper,
        needs=needs,
        signed=signed,
        title=title,
    )


METHODS = (
    _pixels(
        "saliency",
        "the gradient of the score with respect to the image",
        "1 + k backward",
        "Simonyan et al. 2014, arXiv 1312.6034",
    ),
    _pixels(
        "input_x_gradient",
        "the image times the gradient of the score",
        "1 + k backward",
        "Shrikumar et al. 2016, arXiv 1605.01713",
        title="input x gradient",
    ),
    _pixels(
        "integrated_gradients",
        "the gradient integrated from a baseline to the image",
        "50 (forward + k backward)",
        "Sundararajan et al. 2017, arXiv 1703.01365",
    ),
    _pixels(
        "blur_integrated_gradients",
        "the gradient integrated from the blurred image to the image",
        "100 (forward + k backward)",
        "Xu et al. 2020, arXiv 2004.03383",
        title="blur IG",
    ),
    _pixels(
        "guided_integrated_gradients",
        "the gradient integrated along the path of smallest gradients",
        "200 k (forward + backward)",
        "Kapishnikov et al. 2021, arXiv 2106.09788",
        title="guided IG",
    ),
    _pixels(
        "smooth_grad",
        "the gradient averaged over noisy copies of the image",
        "51 (forward + k backward)",
        "Smilkov et al. 2017, arXiv 1706.03825",
        needs=SEEDED,
        title="SmoothGrad",
    ),
    _pixels(
        "smooth_grad_squared",
        "the squared gradient averaged over noisy copies of the image",
        "51 (forward + k backward)",
        "Hooker et al. 2019, arXiv 1806.10758",
        needs=SEEDED,
        signed=False,
        title="SmoothGrad-squared",
    ),
    _pixels(
        "var_grad",
        "the variance of the gradient over noisy copies of the image",
        "51 (forward + k backward)",
        "Adebayo et al. 2018, arXiv 1810.03307",
        needs=SEEDED,
        signed=False,
        title="VarGrad",
    ),
    Method(
        name="full_grad",
        run=gradients.full_grad,
        result="heatmap",
        summary="input times gradient and bias times gradient of every layer, in one map",
        cost="1 + k backward",
        paper="Srinivas and Fleuret 2019, arXiv 1905.00780",
        needs=CHUNKED,
        title="FullGrad",
    ),
    Method(
        name="xrai",
        run=gradients.xrai,
        result="heatmap",
        summary="integrated gradients of regions from several segmentations, best first",
        cost="200 (forward + k backward)",
        paper="Kapishnikov et al. 2019, arXiv 1906.02825",
        needs=CHUNKED,
        signed=True,
        title="XRAI",
    ),
)
