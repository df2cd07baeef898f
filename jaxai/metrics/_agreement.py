"""Agreement of raters on an order: Kendall's tau-b for two, Krippendorff's alpha for many."""

import numpy as np


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Return tau-b over the items that both have rated."""
    both = np.isfinite(a) & np.isfinite(b)
    signs = [np.sign(x[both][:, None] - x[both])[np.triu_indices(both.sum(), 1)] for x in (a, b)]
    norm = np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum())
    return float((signs[0] * signs[1]).sum() / norm) if norm > 0 else float("nan")


def krippendorff(values: np.ndarray) -> float:
    """Return Krippendorff's alpha for ordinal values [raters, items], NaN where a rater gives no value.

    1 - D_o / D_e: 1 if all raters agree, 0 if they agree as by chance, negative if they agree less; NaN if
    nothing can be compared. With n_c the number of values c, the ordinal distance between c and k is (sum_{g
    = c}^k n_g - (n_c + n_k) / 2)^2.

    References:
        Krippendorff: Computing Krippendorff's Alpha-Reliability. 2011, section D.
    """
    paired = np.isfinite(values)
    paired &= paired.sum(0) > 1
    levels, index = np.unique(values[paired], return_inverse=True)
    codes = np.zeros(values.shape, int)
    codes[paired] = index
    coincidences = np.zeros((len(levels), len(levels)))
    for item in range(values.shape[1]):
        given = codes[paired[:, item], item]
        if len(given):
            count = np.bincount(given, minlength=len(levels)).astype(float)
            coincidences += (np.outer(count, count) - np.diag(count)) / (len(given) - 1)
    number = coincidences.sum(1)
    total = number.sum()
    below = number.cumsum() - number / 2
    distance = np.square(below[:, None] - below)
    expected = (np.outer(number, number) * distance).sum() / max(total - 1, 1)
    if expected == 0:
        return float("nan")
    return float(1 - (coincidences * distance).sum() / expected)


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values [..., n] from 0, with the mean rank for equal ones; NaN stays NaN."""
    less = (values[..., None, :] < values[..., :, None]).sum(-1)
    same = (values[..., None, :] == values[..., :, None]).sum(-1)
    return np.where(np.isnan(values), np.nan, less + (same - 1) / 2)
