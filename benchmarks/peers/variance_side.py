"""lime, shap and Captum as estimators on a table of scores: their own code draws, weighs and fits.

A coalition's score stands at the position whose bit s says whether superpixel s is shown. Each library gets
an "image" of one pixel a superpixel, 1 where shown and 0 where hidden, and a model that looks it up.
"""

import numpy as np
import shap
import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnRidge
from lime import lime_image
from sklearn.linear_model import Ridge

PACKAGES = ("lime", "shap", "captum", "torch", "scikit-learn", "numpy")


class Table:
    """A model of masks [n, S] that counts its calls."""

    def __init__(self, path):
        self.values, self.calls = np.load(path).astype(np.float64), 0
        self.count = int(np.log2(len(self.values)))

    def __call__(self, masks):
        masks = np.asarray(masks)
        self.calls += len(masks)
        return self.values[(masks > 0.5).astype(np.int64) @ (1 << np.arange(self.count))]


def about():
    """Return what the table says of this side."""
    return {"device": "cpu"}


def prepare(command):
    """Return the run of an estimator over several seeds: [seeds, S + 1], values and then model calls."""
    run = _RUNS[command["estimator"]]
    calls, alpha = command["calls"], command.get("alpha", 1.0)

    def runs():
        rows = []
        for seed in range(command["seeds"]):
            table = Table(command["table"])
            np.random.seed(seed)
            torch.manual_seed(seed)
            rows.append(np.append(run(table, calls, alpha, seed), table.calls))
        return np.array(rows)

    return runs


def _lime(table, calls, alpha, seed):
    count = table.count
    explainer = lime_image.LimeImageExplainer(random_state=seed)
    result = explainer.explain_instance(
        np.ones((1, count, 3)),
        lambda images: table(np.asarray(images)[:, 0, :, 0])[:, None],
        labels=(0,),
        top_labels=None,
        hide_color=0,
        num_features=count,
        num_samples=calls,
        model_regressor=Ridge(alpha=alpha, fit_intercept=True),
        segmentation_fn=lambda image: np.arange(count)[None],
    )
    weights = dict(result.local_exp[0])
    return np.array([weights[s] for s in range(count)])


def _captum_lime(table, calls, alpha, seed):
    """Captum's Lime with lime_image's kernel and ridge: its draws and its fit."""

    def similarity(original, changed, mask, **keywords):
        distance = 1 - torch.sqrt(mask.double().mean(1))
        return torch.exp(-(distance**2) / (2 * 0.25**2))

    lime = attr.Lime(
        lambda x: torch.from_numpy(table(x.numpy())),
        interpretable_model=SkLearnRidge(alpha=alpha),
        similarity_func=similarity,
    )
    return _captum(lime, table, calls)


def _captum(method, table, calls):
    values = method.attribute(
        torch.ones(1, table.count),
        baselines=0,
        feature_mask=torch.arange(table.count)[None],
        n_samples=calls,
        perturbations_per_eval=min(calls, 250),
        return_input_shape=False,
    )
    return values.detach().numpy()[0]


def _shap(l1_reg):
    def run(table, calls, alpha, seed):
        count = table.count
        explainer = shap.KernelExplainer(table, np.zeros((1, count)))
        # It asks for the background and the image besides its samples.
        keywords = {} if l1_reg is None else {"l1_reg": l1_reg}
        found = explainer.shap_values(np.ones((1, count)), nsamples=calls - 2, silent=True, **keywords)
        return np.asarray(found)[0]

    return run


def _captum_shap(table, calls, alpha, seed):
    kernel = attr.KernelShap(lambda x: torch.from_numpy(table(x.numpy())))
    return _captum(kernel, table, calls - 1)


def _shap_permutation(table, calls, alpha, seed):
    count = table.count
    masker = shap.maskers.Independent(np.zeros((1, count)))
    explainer = shap.explainers.Permutation(table, masker, seed=seed)
    # A round walks an order forwards and backwards in 2 S + 1 calls.
    rounds = calls // (2 * count + 1)
    return explainer(np.ones((1, count)), max_evals=rounds * (2 * count + 1), silent=True).values[0]


_RUNS = {
    "lime": _lime,
    "captum-lime": _captum_lime,
    "shap-kernel": _shap(False),
    "shap-kernel-default": _shap(None),
    "captum-kernel-shap": _captum_shap,
    "shap-permutation": _shap_permutation,
}
