"""A progress bar for runs of more than two seconds, with the remaining time."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from . import _bars as bars

_PATIENCE = 2.0  # seconds before a bar appears
# Passes of a step that tell how long one takes; fewer take less time than compiling them.
_TELLING = 100
_PAUSE = 0.2  # seconds between two drawings, which a notebook sends to a browser
_ALMOST = 0.99  # of a step whose estimate was too low


class Progress:
    """The progress of a run: the work of its steps is counted in passes of the network, which are timed.

    Args:
        shown: False shows nothing; True shows a bar in a notebook, or on the standard error if that is a
            terminal.
        clock: Returns seconds.
    """

    def __init__(self, shown: bool = True, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kind = bars.place() if shown else None
        self._clock = clock
        self._begin = clock()
        self._bar: bars.Bar | None = None
        self._drawn = 0.0
        self._costs: dict[str, float] = {}
        self._photos = 1
        self._done = 0.0
        self._rate: float | None = None
        self._timed = (0.0, 0.0)  # passes and seconds of finished steps
        self._now: tuple[str, float, float] = ("", 0.0, 0.0)  # name, passes and start of the running step

    def __enter__(self) -> "Progress":
        self._begin = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def expect(self, photos: int, costs: Mapping[str, float]) -> None:
        """Set the number of photos, and the cost of each step per photo in passes."""
        self._photos, self._costs = photos, dict(costs)

    def calibrate(self, passes: float, seconds: float) -> None:
        """Set the time that some passes took, used until steps have finished."""
        if self._rate is None and passes > 0:
            self._rate = seconds / passes

    def skip(self, photos: int) -> None:
        """Leave out photos: all their steps count as done."""
        self._done += photos * sum(self._costs.values())

    @contextmanager
    def step(self, name: str, photos: int) -> Iterator[None]:
        """Time the body as a step for some photos."""
        cost, start = self._costs.get(name, 1.0) * photos, self._clock()
        self._now = (name, cost, start)
        try:
            self.tick()
            yield
        finally:
            self._done += cost
            if cost >= _TELLING:
                passes, seconds = self._timed
                self._timed = (passes + cost, seconds + self._clock() - start)
                self._rate = self._timed[1] / self._timed[0]
            self._now = (name, 0.0, self._clock())

    def state(self) -> tuple[str, float, float | None]:
        """Return the name of the running step, the share of all work that is done, and the seconds left."""
        name, cost, start = self._now
        total = self._photos * sum(self._costs.values()) or 1.0
        running = self._clock() - start
        share = min(_ALMOST, running / (cost * self._rate)) if self._rate and cost else 0.0
        done = min(1.0, (self._done + cost * share) / total)
        # Nothing is known of a step that takes longer than was thought.
        known = self._rate is not None and share < _ALMOST
        return name, done, (1 - done) * total * self._rate if known and self._rate else None

    def tick(self) -> None:
        """Draw the bar if it is due."""
        now = self._clock()
        if self._kind is None or now - self._begin < _PATIENCE or now - self._drawn < _PAUSE:
            return
        self._drawn = now
        name, done, left = self.state()
        bar = self._bar = self._bar or self._kind()
        bar.show(name, done, remaining(left), known=left is not None or done > 0)


@contextmanager
def moving(name: str) -> Iterator[None]:
    """Show activity while the body runs for an unknown time, such as a download.

    Args:
        name: What the body does.
    """
    with Progress() as progress, progress.step(name, 1):
        over = threading.Event()

        def tick() -> None:
            while not over.wait(_PAUSE):
                progress.tick()

        beside = threading.Thread(target=tick, name="jaxai-bar", daemon=True)
        beside.start()
        try:
            yield
        finally:
            over.set()
            beside.join()


def remaining(seconds: float | None) -> str:
    """Return an estimate of the time that is left in words.

    Example:
        >>> remaining(75.0), remaining(8.2), remaining(None)
        ('about 2 min left', 'about 8 s left', '')
    """
    if seconds is None:
        return ""
    return (
        f"about {max(1, round(seconds))} s left"
        if seconds < 60
        else f"about {-(-seconds // 60):.0f} min left"
    )
