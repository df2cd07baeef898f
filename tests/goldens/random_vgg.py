"""A torchvision-format VGG state dict with random weights, the same wherever NumPy runs."""

import numpy as np

WIDTHS = (64, 128, 256, 512, 512)
COUNTS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def state_dict(depth, *, norm, dense, seed):
    """Return torchvision's arrays by key; `dense` are the widths of the classifier's three layers."""
    rng = np.random.Generator(np.random.PCG64(seed))

    def uniform(shape, low, high):
        values = rng.random(shape, dtype=np.float32)
        values *= np.float32(high - low)
        values += np.float32(low)
        return values

    def weight(shape):
        bound = (6 / np.prod(shape[1:])) ** 0.5
        return uniform(shape, -bound, bound)

    state, position, channels = {}, 0, 3
    for count, width in zip(COUNTS[depth], WIDTHS, strict=True):
        for _ in range(count):
            state[f"features.{position}.weight"] = weight((width, channels, 3, 3))
            state[f"features.{position}.bias"] = uniform(width, -0.1, 0.1)
            if norm:
                position += 1
                state[f"features.{position}.weight"] = uniform(width, 0.5, 1.5)
                state[f"features.{position}.bias"] = uniform(width, -0.1, 0.1)
                state[f"features.{position}.running_mean"] = uniform(width, -0.1, 0.1)
                state[f"features.{position}.running_var"] = uniform(width, 0.5, 1.5)
                state[f"features.{position}.num_batches_tracked"] = np.asarray(7, np.int64)
            channels = width
            position += 2
        position += 1
    inputs = channels * 49
    for index, width in zip((0, 3, 6), dense, strict=True):
        state[f"classifier.{index}.weight"] = weight((width, inputs))
        state[f"classifier.{index}.bias"] = uniform(width, -0.1, 0.1)
        inputs = width
    return state
