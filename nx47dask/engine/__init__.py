"""Runs tasks on a cluster, or without one: the scheduling window, the ledger, events.

Only this folder imports ``dask.distributed``, and of it only :mod:`nx47dask.engine.cluster`.
"""

from nx47dask.engine.ledger import Ledger, Record, lock_run
from nx47dask.engine.window import Batch, Pipeline, Pool, SerialPool, Task, execute

__all__ = ["Batch", "Ledger", "Pipeline", "Pool", "Record", "SerialPool", "Task", "execute", "lock_run"]
