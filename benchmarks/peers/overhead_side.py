"""lime, shap and Captum around a model that costs nothing: the mean of sixteen pixels of each image."""

import numpy as np
import shap
import torch
from captum import attr
from lime import lime_image

PACKAGES = ("lime", "shap", "captum", "torch", "numpy")


def about():
    """Return what the table says of this side."""
    return {"device": f"cpu, {torch.get_num_threads()} threads"}


def prepare(command):
    """Return a run that explains one image [height, width, 3] by `samples` masks, and returns the weights."""
    image = np.load(command["image"])
    segments = np.load(command["segments"]).astype(np.int64)
    return _RUNS[command["method"]](image, segments, command["samples"], command["at_once"])


def _lime(image, segments, samples, at_once):
    photo = image.astype(np.float64)

    def predict(images):
        return np.asarray(images)[:, ::56, ::56].mean((1, 2))

    def run():
        explainer = lime_image.LimeImageExplainer(random_state=0)
        result = explainer.explain_instance(
            photo,
            predict,
            labels=(0,),
            top_labels=None,
            hide_color=None,
            num_samples=samples,
            batch_size=at_once,
            segmentation_fn=lambda image: segments,
        )
        weights = dict(result.local_exp[0])
        return np.array([weights[s] for s in range(segments.max() + 1)])

    return run


def _shap(image, segments, samples, at_once):
    count = int(segments.max()) + 1

    def predict(coalitions):
        scores = []
        for start in range(0, len(coalitions), at_once):
            shown = coalitions[start : start + at_once][:, segments].astype(np.float32)[..., None]
            scores.append((image * shown)[:, ::56, ::56].mean((1, 2))[:, 0])
        return np.concatenate(scores)

    def run():
        np.random.seed(0)
        explainer = shap.KernelExplainer(predict, np.zeros((1, count)))
        return explainer.shap_values(np.ones((1, count)), nsamples=samples, silent=True, l1_reg=False)[0]

    return run


def _captum(method):
    def prepare(image, segments, samples, at_once):
        x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
        features = torch.from_numpy(segments)[None, None].expand_as(x)

        def run():
            torch.manual_seed(0)
            values = method(lambda images: images[:, :, ::56, ::56].mean((2, 3))).attribute(
                x,
                baselines=0,
                target=0,
                feature_mask=features,
                n_samples=samples,
                perturbations_per_eval=at_once,
                return_input_shape=False,
            )
            return values.numpy()[0]

        return run

    return prepare


_RUNS = {
    "lime": _lime,
    "captum-lime": _captum(attr.Lime),
    "shap": _shap,
    "captum-kernel-shap": _captum(attr.KernelShap),
}
