"""Clusters of maps: images for which a network uses similar evidence, right reasons or artefacts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .._frame import checks
from . import _needs

_SIDE = 16
_DENSE = 1000
_MOST = 10


@dataclass(frozen=True, eq=False)
class Clusters:
    """Images with similar maps.

    Attributes:
        images: Their numbers, [n].
        labels: The cluster of each, from 0 (the largest), [n].
        eigenvalues: The smallest of the graph's Laplacian, ascending. As many clusters stand apart as there
            are eigenvalues before the widest gap.
        means: The mean map of each cluster, of maps that were divided by their sums of magnitudes,
            [clusters, height, width].
    """

    images: np.ndarray
    labels: np.ndarray
    eigenvalues: np.ndarray
    means: np.ndarray

    def __repr__(self) -> str:
        sizes = ", ".join(str(n) for n in np.bincount(self.labels))
        return f"Clusters({len(self.images)} images: {sizes})"

    def __len__(self) -> int:
        return len(self.means)

    def members(self, cluster: int) -> np.ndarray:
        """Return the numbers of a cluster's images.

        Raises:
            IndexError: If there is no such cluster.
        """
        if not 0 <= cluster < len(self):
            raise IndexError(f"clusters are numbered from 0 to {len(self) - 1}; got {cluster}")
        return self.images[self.labels == cluster]


def of_maps(
    images: np.ndarray, maps: np.ndarray, *, num_clusters: int | None, neighbors: int, seed: int
) -> Clusters:
    """Return the clusters of maps.

    The affinity of two maps is 1 if one is among the nearest neighbours of the other. The rows of the
    eigenvectors of I - D^(-1/2) A D^(-1/2) with the smallest eigenvalues are normalized and clustered.

    Args:
        images: Numbers of the images, [n].
        maps: Their maps, [n, height, width]; maps that are not finite are left out.
        num_clusters: Number of clusters; None chooses the widest gap between eigenvalues.
        neighbors: Nearest neighbours of each map in the graph.
        seed: Seed of k-means.

    Raises:
        ValueError: If there are too few maps, or a number is not positive.
        ImportError: If scikit-learn is not installed.
    """
    neighbors = checks.at_least(neighbors, "neighbors", 1)
    fine = np.isfinite(maps).all((1, 2))
    images, maps = images[fine], maps[fine].astype(np.float64)
    count = len(maps)
    least = max(4, checks.at_least(num_clusters or 1, "num_clusters", 1) + 1)
    if count < least:
        raise ValueError(f"clusters need at least {least} maps without errors; got {count}")
    sizes = np.abs(maps).sum((1, 2), keepdims=True)
    shares = np.divide(maps, sizes, out=np.zeros_like(maps), where=sizes > 0)
    learn_neighbors, learn_cluster = _needs.learn("neighbors"), _needs.learn("cluster")
    graph = learn_neighbors.kneighbors_graph(_small(shares), min(neighbors, count - 1), include_self=False)
    values, vectors = _spectrum(graph.maximum(graph.T), min(count - 1, max(_MOST + 1, num_clusters or 0)))
    if num_clusters is None:
        num_clusters = int(np.argmax(np.diff(values[: _MOST + 1]))) + 1
    rows = vectors[:, :num_clusters]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    found = learn_cluster.KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(rows)
    order = np.argsort(-np.bincount(found, minlength=num_clusters), kind="stable")
    labels = np.argsort(order)[found]
    means = np.stack([shares[labels == label].mean(0) for label in range(labels.max() + 1)])
    return Clusters(images, labels, values, means.astype(np.float32))


def _small(maps: np.ndarray) -> np.ndarray:
    """Return maps of at most 16 values a side, which are means, flat."""
    height, width = (min(_SIDE, side) for side in maps.shape[1:])
    if (height, width) == maps.shape[1:]:
        return maps.reshape(len(maps), -1)
    scaled = maps * (maps.shape[1] * maps.shape[2])  # In 32 bits, too.
    small = [Image.fromarray(one.astype(np.float32)) for one in scaled]
    return np.stack([np.asarray(one.resize((width, height), Image.Resampling.BOX)).ravel() for one in small])


def _spectrum(affinity: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest eigenvalues of a graph's normalized Laplacian, and their vectors."""
    degree = np.asarray(affinity.sum(1)).ravel()
    root = 1 / np.sqrt(degree)
    scaled = affinity.multiply(root[:, None]).multiply(root[None]).tocsr()
    if len(degree) <= _DENSE:
        values, vectors = np.linalg.eigh(scaled.toarray())
    else:
        from scipy.sparse.linalg import eigsh

        # It starts from numbers of its own, or draws them at random.
        values, vectors = eigsh(scaled, k=count, which="LA", v0=np.ones(len(degree)))
    order = np.argsort(-values)[:count]
    return np.maximum(1 - values[order], 0), vectors[:, order]
