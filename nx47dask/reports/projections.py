"""Show the projections of the plan beside the measurements of the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nx47dask.reports.markup import Html, table
from nx47dask.words import mebibytes

if TYPE_CHECKING:
    from nx47dask.runs.run import Run

__all__ = ["projections", "projections_table", "projections_warnings"]


@dataclass(frozen=True)
class Projection:
    """Quantity that a plan projects and a run measures.

    Attributes
    ----------
    name, who : str
        Name in a table, and beginning of a sentence.
    projected_bytes, measured_bytes : int
        Bytes; ``measured_bytes`` is 0 if nothing had to run.
    """

    name: str
    who: str
    projected_bytes: int
    measured_bytes: int


def projections(run: Run) -> list[Projection]:
    """Return the projections of the memory of a worker and of the client, and of the disk."""
    memory, disk = run.manifest["memory"], run.manifest["disk"]
    worker = max(stage["peak_rss_bytes"] for stage in run.manifest["stages"].values())
    client = memory["client_peak_rss_bytes"]
    return [
        Projection("memory of a worker", "A worker took", memory["projected_worker_bytes"], worker),
        Projection("memory of the client", "The client took", memory["projected_client_bytes"], client),
        Projection("disk", "The run folder took", disk["projected_bytes"], disk["measured_bytes"]),
    ]


def projections_table(run: Run) -> Html:
    """Return the table of projected and measured quantities."""
    rows = [
        (
            quantity.name,
            mebibytes(quantity.projected_bytes),
            mebibytes(quantity.measured_bytes) if quantity.measured_bytes else "not run",
        )
        for quantity in projections(run)
    ]
    caption = "Peaks. The client's memory is that with the scheduler of a local cluster."
    return table(caption, ("", "projected", "measured"), rows, "tnn")


def projections_warnings(run: Run) -> Iterator[str]:
    """Warn of quantities that exceed their projections."""
    for quantity in projections(run):
        if quantity.measured_bytes > quantity.projected_bytes:
            what = "disk" if quantity.name == "disk" else "memory"
            measured, projected = mebibytes(quantity.measured_bytes), mebibytes(quantity.projected_bytes)
            yield f"{quantity.who} {measured} of {what}, more than the {projected} projected."
