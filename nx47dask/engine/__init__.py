"""Engine that schedules tasks: the window, tasks, the ledger, the lock, events. It uses no Dask client."""

from nx47dask.engine.ledger import Ledger, Record
from nx47dask.engine.lock import lock_run
from nx47dask.engine.pools import Pool, SerialPool
from nx47dask.engine.tasks import Batch, Failure, Pipeline, Result, Task
from nx47dask.engine.window import execute

__all__ = [
    "Batch",
    "Failure",
    "Ledger",
    "Pipeline",
    "Pool",
    "Record",
    "Result",
    "SerialPool",
    "Task",
    "execute",
    "lock_run",
]
