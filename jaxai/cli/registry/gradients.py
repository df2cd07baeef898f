"""Gradient methods on the command line."""

from ... import gradients
from . import adapters
from .method import Method

CHUNKED = frozenset({"batch_size"})
SEEDED = CHUNKED | {"key"}
LAYERED = CHUNKED | {"layer"}
COLOURED = SEEDED | {"normalize"}


def _pixels(name, summary, cost, paper, *, needs=CHUNKED, signed=True, title="") -> Method:
    """Return the method of pixel values, found in `jaxai.gradients` by its name."""
    return Method(
        name=name,
        run=getattr(adapters, name, None) or getattr(gradients, name),
        result="pixels",
        summary=summary,
        cost=cost,
        paper=paper,
        needs=needs,
        signed=signed,
        title=title,
    )


def _layered(name, summary, cost, paper) -> Method:
    """Return the method of a layer's attributions, summed over its features."""
    return Method(
        name=name,
        run=getattr(adapters, name),
        result="heatmap",
        summary=summary,
        cost=cost,
        paper=paper,
        needs=LAYERED,
        signed=True,
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
        "expected_gradients",
        "integrated gradients averaged over baselines, here eight plain colours",
        "200 (forward + k backward)",
        "Erion et al. 2021, arXiv 1906.10670",
        needs=COLOURED,
    ),
    _pixels(
        "gradient_shap",
        "expected gradients of noisy copies of the image, against eight plain colours",
        "50 (forward + k backward)",
        "Lundberg, Lee 2017, arXiv 1705.07874",
        needs=COLOURED,
        title="GradientSHAP",
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
    Method(
        name="forgrad",
        run=adapters.forgrad,
        result="heatmap",
        summary="the gradient without its high frequencies, which come from strides and pools",
        cost="1 + k backward",
        paper="Muzellec et al. 2024, arXiv 2307.09591",
        needs=CHUNKED,
        title="FORGrad",
    ),
    _layered(
        "layer_gradients",
        "a layer's activations times their gradient, summed over its features",
        "1 + k heads",
        "as Captum's LayerGradientXActivation",
    ),
    _layered(
        "layer_integrated_gradients",
        "integrated gradients of a layer's activations, summed over its features",
        "2 + 50 k heads",
        "Sundararajan et al. 2017, arXiv 1703.01365",
    ),
    _layered(
        "internal_influence",
        "a layer's gradient averaged along the path of integrated gradients",
        "50 (forward + k heads)",
        "Leino et al. 2018, arXiv 1802.03788",
    ),
    _layered(
        "conductance",
        "the flow of integrated gradients through a layer",
        "51 (forward + k heads)",
        "Dhamdhere et al. 2019, arXiv 1805.12233",
    ),
)
