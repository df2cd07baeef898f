"""A small non-linear model and game in NumPy that goldens and tests can both compute."""

import numpy as np

SIZE = (24, 32)
CLASSES = 4


def toy_parameters():
    """Return the matrices of the toy model, the same with every version of NumPy."""
    random = np.random.RandomState(0)
    first = random.normal(size=(SIZE[0] * SIZE[1] * 3, 12)) / 12
    second = random.normal(size=(12, CLASSES))
    return first.astype(np.float32), second.astype(np.float32)


def toy_image():
    """Return a smooth random image, float32 [24, 32, 3] in [0, 1]."""
    random = np.random.RandomState(1)
    coarse = random.uniform(size=(3, 4, 3))
    return np.kron(coarse, np.ones((8, 8, 1))).astype(np.float32) * random.uniform(
        0.7, 1, size=(*SIZE, 3)
    ).astype(np.float32)


def toy_segments(rows=4, columns=5):
    """Return labels of slanted blocks, int64 [24, 32], 0 to rows x columns - 1."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    down = np.minimum((y + x // 8) * rows // (SIZE[0] + 4), rows - 1)
    return down * columns + x * columns // SIZE[1]


def toy_logits(images):
    """Return logits [n, 4] of images [n, 24, 32, 3]."""
    first, second = toy_parameters()
    return np.tanh(images.reshape(len(images), -1).astype(np.float32) @ first) @ second


def softmax(logits):
    """Return probabilities."""
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def game(masks, players, outputs=2):
    """Return the values [n, outputs] of coalitions [n, players]: pairwise and saturating effects."""
    random = np.random.RandomState(players)
    single = random.normal(size=(players, outputs))
    pair = random.normal(size=(outputs, players, players)) / players
    masks = np.asarray(masks, np.float64)
    values = masks @ single + np.einsum("np,opq,nq->no", masks, pair, masks)
    return np.tanh(values / 2) + 0.3 * values
