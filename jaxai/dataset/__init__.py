"""Whole data sets explained: a plan, shards as units of work, a store that any number of workers fill.

`plan` writes what is to be done into a folder, `run` does it (again after a crash: only what is missing),
`status` says how far it is, `open` reads what there is. Needs the extra `dataset` (TensorStore and PyArrow).
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
