"""Explaining whole data sets: a plan, shards as units of work, a store that any number of workers fill.

`plan` writes the plan into a folder, `run` executes it (after a crash only what is missing), `status` reports
the progress, `open` reads the results. Needs the extra `dataset` (TensorStore and PyArrow).
"""

from ._arrays import Maps
from ._clusters import Clusters
from ._compared import Compared, compare
from ._page import page
from ._plan import Plan, plan
from ._run import run
from ._status import Status, status
from ._store import Store, open

__all__ = [
    "Clusters",
    "Compared",
    "Maps",
    "Plan",
    "Status",
    "Store",
    "compare",
    "open",
    "page",
    "plan",
    "run",
    "status",
]
