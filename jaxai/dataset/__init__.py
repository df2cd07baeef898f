"""Whole data sets explained: a plan, shards as units of work, a store that any number of workers fill.

`plan` writes what is to be done into a folder, `run` does it (again after a crash: only what is missing),
`status` says how far it is, `open` reads what there is. Needs the extra `dataset` (TensorStore and PyArrow).
"""

from ._plan import Plan, plan
from ._run import run
from ._status import Status, status
from ._store import Store, open

__all__ = ["Plan", "Status", "Store", "open", "plan", "run", "status"]
