"""Place where work runs: made once from the options of a user, taken by every command."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from rich.console import Console

from nx47dask.cluster.pool import open_pool
from nx47dask.cluster.spec import ClusterSpec, LocalSpec, read_cluster
from nx47dask.engine.events import JobTitle
from nx47dask.engine.pools import Pool
from nx47dask.errors import InputError
from nx47dask.models.backends import Device

__all__ = ["Where", "WhereOptions"]


class WhereOptions(TypedDict, total=False):
    """Keywords of :meth:`Where.of`, which every command takes too."""

    cluster: str | None
    workers: int | None
    serial: bool
    console: Console | None


def _standard_error() -> Console:
    return Console(stderr=True)


@dataclass(frozen=True)
class Where:
    """Place where a command runs its tasks, and console for its progress.

    Attributes
    ----------
    cluster : ClusterSpec or None
        Cluster to start or reach; None runs the tasks one after another in this process.
    console : rich.console.Console
        Console for the progress; by default standard error.

    Examples
    --------
    >>> place = Where.of(workers=4)
    >>> place.cluster.kind, place.cluster.workers
    ('local', 4)
    >>> Where.of(serial=True).cluster is None
    True
    """

    cluster: ClusterSpec | None
    console: Console = field(default_factory=_standard_error)

    @classmethod
    def of(
        cls,
        where: Where | None = None,
        *,
        cluster: str | None = None,
        workers: int | None = None,
        serial: bool = False,
        console: Console | None = None,
    ) -> Where:
        """Make the place from the options of a command.

        Parameters
        ----------
        where : Where, optional
            Place that was made before; no other option may be given with it.
        cluster : str, optional
            YAML file, ``tcp://HOST:PORT`` or scheduler file; by default ``NX47DASK_CLUSTER``, else ``cluster.yaml``
            here, else a local cluster.
        workers : int, optional
            Worker processes of the cluster that is started.
        serial : bool
            Run in this process, without a cluster.
        console : rich.console.Console, optional
            Console for the progress; by default standard error.

        Raises
        ------
        InputError
            The cluster file is missing or has an unknown key or value, or another option is given with ``where``.
        """
        if where is not None:
            if serial or any(option is not None for option in (cluster, workers, console)):
                raise InputError("where: cluster, workers, serial and console are part of it; give them to Where.of")
            return where
        spec = None if serial else read_cluster(cluster, workers)
        return cls(spec) if console is None else cls(spec, console)

    @property
    def serial(self) -> bool:
        """True if tasks run in this process, without a cluster."""
        return self.cluster is None

    @property
    def device(self) -> Device | None:
        """Device for ``device: auto`` of a network: cuda with GPU workers; None leaves it to what this machine has."""
        return "cuda" if self.cluster is not None and "GPU" in self.cluster.pools else None

    def for_gpus(self) -> Where:
        """Return the same place with a worker for each GPU of this machine; unchanged unless its cluster is local."""
        return replace(self, cluster=self.cluster.for_gpus()) if isinstance(self.cluster, LocalSpec) else self

    def open_pool(
        self, report: Path | None = None, title: JobTitle | None = None, worker_bytes: int | None = None
    ) -> AbstractContextManager[Pool]:
        """Open the pool of workers; see :func:`~nx47dask.cluster.pool.open_pool` for the parameters.

        Raises
        ------
        ClusterError
            The cluster cannot be started or reached.
        """
        return open_pool(self.cluster, self.console, report, title, worker_bytes)
