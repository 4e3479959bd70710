"""The place where work runs: made once from the options of a user, taken by every command."""

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
    """Keywords of :meth:`Where.of`, which every command takes as well."""

    cluster: str | None
    workers: int | None
    serial: bool
    console: Console | None


def _standard_error() -> Console:
    return Console(stderr=True)


@dataclass(frozen=True)
class Where:
    """The place where a command runs its tasks, and where it reports progress.

    Attributes
    ----------
    cluster : ClusterSpec or None
        None runs the tasks one after the other in this process.
    console : rich.console.Console
        Where progress goes.
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
            A place that was made before; nothing else may be given beside it.
        cluster : str, optional
            A YAML file, ``tcp://HOST:PORT`` or a scheduler file; by default ``NX47DASK_CLUSTER``, else
            ``cluster.yaml`` here, else a local cluster.
        workers : int, optional
            Worker processes of the cluster that is started.
        serial : bool
            Run in this process, without a cluster.
        console : rich.console.Console, optional
            Where progress goes; by default standard error.

        Raises
        ------
        InputError
            The cluster file is missing or has a key or value that is not known, or ``where`` is not alone.
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
        """Meaning of ``device: auto`` of a network here: cuda where GPU workers are; None: what this machine has."""
        return "cuda" if self.cluster is not None and "GPU" in self.cluster.pools else None

    def for_gpus(self) -> Where:
        """Return the same place with a worker for each GPU of this machine, where its cluster is a local one."""
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
