"""Alternating timings: a ratio is the median over neighbouring runs, so that a slow spell hits both."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def seconds(run: Callable[[], object]) -> float:
    """Return how long `run` takes; it must wait for its own result."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def alternate(runs: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[float]]:
    """Time functions in turn, `repeats` rounds of all of them after one warm-up round.

    Args:
        runs: Functions by name; each waits for its own result.
        repeats: Number of rounds.

    Returns:
        The seconds of each round by name; the lists pair up by position.
    """
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return times


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median of the ratios of runs that were neighbours."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def spread(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest of the ratios of neighbours."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return min(ratios), max(ratios)
