"""Base classes of the specs of clusters: numbers of workers, pools, and the function that starts a cluster."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

__all__ = ["NO_WORKER_TIMEOUT_S", "Bounds", "ClusterSpec", "SizedSpec", "TwoPoolSpec", "Workers", "has_a_unit"]

NO_WORKER_TIMEOUT_S = 600.0
"""Default time to wait for a worker, in seconds, for kinds whose workers do not wait in a queue."""


class Bounds(BaseModel):
    """Smallest and largest number of workers between which Dask scales the cluster to the work."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: int = Field(ge=1)
    maximum: int

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.maximum < self.minimum:
            raise ValueError(f"maximum {self.maximum} is below minimum {self.minimum}")
        return self


def _count_or_bounds(value: Any) -> str:
    return "bounds" if isinstance(value, Bounds | dict) else "count"


Workers = Annotated[
    Annotated[int, Field(ge=0), Tag("count")] | Annotated[Bounds, Tag("bounds")], Discriminator(_count_or_bounds)
]


def has_a_unit(value: str | None) -> str | None:
    if value not in (None, "auto"):
        from dask.utils import parse_bytes

        parse_bytes(value)
    return value


class ClusterSpec(BaseModel):
    """Keys of ``cluster.yaml`` that every kind of cluster has, and the function that starts the kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    starter: ClassVar[str]
    """``module:function`` that starts the cluster, or reaches a running one. The module imports the packages of the
    kind at its top, so that only a run on such a cluster needs them."""
    runs_already: ClassVar[bool] = False

    kind: str
    no_worker_timeout_s: float | None = Field(default=None, gt=0)
    """Time without any worker after which the run stops, in seconds; None waits for ever, as in a queue."""
    dask: dict[str, Any] = {}
    """Settings for the Dask configuration, unchanged, for this run only, here and on the workers that are started."""

    @property
    def extra(self) -> str:
        """Extra of the package that the kind needs; empty where it needs none."""
        return ""

    @property
    def where_to_look(self) -> str:
        """Advice for a person when no worker comes."""
        return "see memory_limit and dask in cluster.yaml"

    @property
    def pools(self) -> tuple[str, ...]:
        """Resources that distinguish its pools of workers; empty for a single pool of CPU workers.

        Dask queues tasks that ask for no resource on the scheduler; all others go to workers at once.
        """
        return ()

    @property
    def expected_workers(self) -> int:
        """Smallest number of workers that there will be."""
        return 1


class SizedSpec(ClusterSpec):
    """Spec of a cluster that is started here, with workers for CPU tasks."""

    workers: Workers | None

    @property
    def expected_workers(self) -> int:
        if isinstance(self.workers, Bounds):
            return self.workers.minimum
        return 1 if self.workers is None else self.workers

    @model_validator(mode="after")
    def _has_workers(self) -> Self:
        if self.expected_workers == 0:
            raise ValueError("no workers at all; workers: 1 is the least")
        return self


class TwoPoolSpec(SizedSpec):
    """Spec of a cluster with GPU workers beside those for CPU tasks."""

    gpu_workers: int | None = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _can_be_scaled(self) -> Self:
        if self.gpu_workers != 0 and isinstance(self.workers, Bounds):
            raise ValueError(
                "Dask scales one pool of workers, and with gpu_workers there are two: "
                "give workers as a number, or leave gpu_workers out"
            )
        return self

    @property
    def pools(self) -> tuple[str, ...]:
        if self.gpu_workers == 0:
            return ()
        return ("GPU",) if self.workers == 0 else ("CPU", "GPU")

    @property
    def expected_workers(self) -> int:
        return super().expected_workers + (1 if self.gpu_workers is None else self.gpu_workers)
