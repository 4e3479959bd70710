"""What the plan has projected beside what the run has measured."""

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
    """One quantity.

    Attributes
    ----------
    name, who : str
        In a table, and as the subject of a sentence.
    projected_bytes, measured_bytes : int
        Nothing was measured (0) where nothing had to run.
    """

    name: str
    who: str
    projected_bytes: int
    measured_bytes: int


def projections(run: Run) -> list[Projection]:
    """Memory of a worker and of the client, and the disk."""
    memory, disk = run.manifest["memory"], run.manifest["disk"]
    worker = max(stage["peak_rss_bytes"] for stage in run.manifest["stages"].values())
    client = memory["client_peak_rss_bytes"]
    return [
        Projection("memory of a worker", "A worker took", memory["projected_worker_bytes"], worker),
        Projection("memory of the client", "The client took", memory["projected_client_bytes"], client),
        Projection("disk", "The run folder took", disk["projected_bytes"], disk["measured_bytes"]),
    ]


def projections_table(run: Run) -> Html:
    """Projected beside measured."""
    rows = [
        (one.name, mebibytes(one.projected_bytes), mebibytes(one.measured_bytes) if one.measured_bytes else "not run")
        for one in projections(run)
    ]
    caption = "Peaks. The client's memory is that with the scheduler of a local cluster."
    return table(caption, ("", "projected", "measured"), rows, "tnn")


def projections_warnings(run: Run) -> Iterator[str]:
    """What took more than projected."""
    for one in projections(run):
        if one.measured_bytes > one.projected_bytes:
            what = "disk" if one.name == "disk" else "memory"
            measured, projected = mebibytes(one.measured_bytes), mebibytes(one.projected_bytes)
            yield f"{one.who} {measured} of {what}, more than the {projected} projected."
