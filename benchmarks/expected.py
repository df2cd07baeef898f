"""The ratios that jaxai sets out to reach on a CPU with oneDNN in float32, as shipped and tuned."""

from typing import Any

# (as shipped, tuned); None where nothing was promised.
_VGG16: dict[tuple[str, str], tuple[float | None, float | None]] = {
    ("grad_cam", "pytorch-grad-cam"): (4.0, 1.1),
    ("grad_cam", "captum"): (1.3, 1.05),
    ("integrated_gradients", "captum"): (1.3, 1.05),
    ("smooth_grad", "captum"): (1.3, 1.05),
    ("ablation_cam", "pytorch-grad-cam"): (20.0, None),
    ("score_cam", "pytorch-grad-cam"): (1.5, 1.1),
    ("lime", "lime"): (1.4, 1.1),
    ("occlusion", "captum"): (3.0, None),
    ("visualize", "torch-lucent"): (2.0, None),
    ("lrp", "zennit"): (1.5, None),
}
_LITE: dict[str, tuple[float | None, float | None]] = {
    "lime": (2.0, 1.5),
    "pytorch-grad-cam": (5.0, 1.5),
    "xplique": (None, None),  # The aims are of PyTorch's libraries.
    "torch.compile": (None, None),
}


def expected(case: dict[str, Any], peer: str, tuned: bool) -> float | None:
    """Return the ratio that a row is meant to reach; None where there is no such aim."""
    if case["network"] == "efficientnet_lite0":
        return _LITE.get(peer, (None, 1.5))[tuned]
    if case["method"] == "grad_cam" and case["options"].get("targets") == 10:
        return None if tuned else 6.0
    return _VGG16.get((case["method"], peer), (None, None))[tuned]
