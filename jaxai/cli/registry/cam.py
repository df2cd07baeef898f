"""The CAM family on the command line."""

from ... import cam
from . import adapters
from .method import Method

LAYER = frozenset({"layer", "batch_size"})
SEEDED = LAYER | {"key"}


def _heatmap(
    name, summary, cost, paper, *, needs=LAYER, title="", unit="", signed=False, **options
) -> Method:
    """Return the method of a map of a layer, found in `jaxai.cam` by its name."""
    return Method(
        name=name,
        run=getattr(cam, name),
        result="heatmap",
        summary=summary,
        cost=cost,
        paper=paper,
        needs=needs,
        options=options,
        signed=signed,
        title=title,
        unit=unit,
    )


METHODS = (
    _heatmap(
        "grad_cam",
        "channels of a layer weighted by their mean gradient",
        "1 + k heads",
        "Selvaraju et al. 2017, arXiv 1610.02391",
        title="Grad-CAM",
    ),
    _heatmap(
        "class_activation_map",
        "channels weighted by the linear layer behind global average pooling",
        "1 + k heads",
        "Zhou et al. 2016, arXiv 1512.04150",
        title="CAM",
    ),
    _heatmap(
        "grad_cam_plus_plus",
        "Grad-CAM with positive gradients weighted by higher derivatives",
        "1 + k heads",
        "Chattopadhyay et al. 2018, arXiv 1710.11063",
        title="Grad-CAM++",
    ),
    _heatmap(
        "smooth_grad_cam_plus_plus",
        "Grad-CAM++ with derivatives averaged over noisy copies",
        "1 + 4 (forward + k heads)",
        "Omeiza et al. 2019, arXiv 1908.01224",
        needs=SEEDED,
        title="Smooth Grad-CAM++",
    ),
    _heatmap(
        "xgrad_cam",
        "channels weighted by gradients averaged over their activation",
        "1 + k heads",
        "Fu et al. 2020, arXiv 2008.02312",
        title="XGrad-CAM",
    ),
    _heatmap(
        "hires_cam",
        "activations times gradients, position by position",
        "1 + k heads",
        "Draelos and Carin 2020, arXiv 2011.08891",
        title="HiResCAM",
    ),
    _heatmap(
        "element_wise_grad_cam",
        "positive products of activations and gradients",
        "1 + k heads",
        "as pytorch-grad-cam's GradCAMElementWise",
        title="element-wise Grad-CAM",
    ),
    _heatmap(
        "layer_cam",
        "activations weighted by their own positive gradients",
        "1 + k heads",
        "Jiang et al. 2021, doi 10.1109/TIP.2021.3089943",
        title="LayerCAM",
    ),
    _heatmap(
        "shapley_cam",
        "channels weighted by Shapley values to second order",
        "1 + 2 k heads",
        "Cai 2025, arXiv 2501.06261",
        title="ShapleyCAM",
    ),
    _heatmap(
        "finer_cam",
        "Grad-CAM of a class against those with the nearest scores",
        "1 + k heads",
        "Zhang et al. 2025, arXiv 2501.11309",
        title="Finer-CAM",
    ),
    _heatmap(
        "eigen_cam",
        "first principal component of the activations, for no class",
        "1",
        "Muhammad and Yeasin 2020, arXiv 2008.00299",
        title="Eigen-CAM",
    ),
    _heatmap(
        "eigen_grad_cam",
        "first principal component of activations times gradients",
        "1 + k heads",
        "as pytorch-grad-cam's EigenGradCAM",
        title="EigenGradCAM",
    ),
    _heatmap(
        "kpca_cam",
        "first kernel principal component of the activations, for no class",
        "1",
        "Karmani et al. 2024, arXiv 2410.00267",
        title="KPCA-CAM",
    ),
    _heatmap(
        "fem",
        "channels weighted by how many of their positions stand out, for no class",
        "1",
        "Fuad et al. 2020, doi 10.1109/IPTA50016.2020.9286629",
        title="FEM",
    ),
    _heatmap(
        "score_cam",
        "channels weighted by the score of the image masked by them",
        "1 + one a channel",
        "Wang et al. 2020, arXiv 1910.01279",
        title="Score-CAM",
    ),
    _heatmap(
        "ss_cam",
        "Score-CAM with noisy masks",
        "1 + 35 a channel",
        "Wang et al. 2020, arXiv 2006.14255",
        needs=SEEDED,
        title="SS-CAM",
    ),
    _heatmap(
        "is_cam",
        "Score-CAM with masks that grow",
        "1 + 10 a channel",
        "Naidu et al. 2020, arXiv 2010.03023",
        title="IS-CAM",
    ),
    _heatmap(
        "ablation_cam",
        "channels weighted by the score lost without them",
        "1 + one head a channel",
        "Desai and Ramaswamy 2020, WACV",
        title="Ablation-CAM",
    ),
    _heatmap(
        "recipro_cam",
        "each position's features scored alone",
        "1 + one head a position",
        "Byun and Lee 2024, arXiv 2209.14074",
        title="Recipro-CAM",
        unit="probability",
    ),
    _heatmap(
        "random_cam",
        "channels weighted at random: a baseline",
        "1",
        "as pytorch-grad-cam's RandomCAM",
        needs=SEEDED,
        title="random CAM",
    ),
    Method(
        name="fused_cam",
        run=adapters.fused_cam,
        result="heatmap",
        summary="LayerCAM of the last layer of each resolution, the largest value of all",
        cost="1 + k heads a resolution",
        paper="Jiang et al. 2021, doi 10.1109/TIP.2021.3089943",
        needs=frozenset({"batch_size"}),
        title="fused LayerCAM",
    ),
    Method(
        name="guided_grad_cam",
        run=cam.guided_grad_cam,
        result="pixels",
        summary="guided backpropagation times Grad-CAM",
        cost="3 + k (backward + head)",
        paper="Selvaraju et al. 2017, arXiv 1610.02391",
        needs=LAYER,
        signed=True,
        title="guided Grad-CAM",
    ),
)
