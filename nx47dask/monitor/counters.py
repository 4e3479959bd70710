"""Counters of jobs for Prometheus, on the scheduler's ``/metrics``; needs prometheus_client (extra ``metrics``)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nx47dask.monitor.state import DONE, QUARANTINED, REPEATED, RETRYING, SKIPPED, WAITING, Job, Jobs

__all__ = ["job_metrics", "register", "unregister"]

logger = logging.getLogger(__name__)

SUMS = (
    ("nx47dask_tasks", "Block tasks that ran to their end.", "tasks"),
    ("nx47dask_resumed_tasks", "Block tasks that an earlier client of the run had done.", "resumed"),
    ("nx47dask_retries", "Tries of block tasks that failed and were repeated.", "retried"),
    ("nx47dask_voxels", "Voxels of the block tasks that ran.", "voxels"),
    ("nx47dask_task_seconds", "Time of the block tasks that ran, in seconds.", "task_s"),
    ("nx47dask_written_bytes", "Bytes of the files that block tasks wrote.", "written_bytes"),
)


def job_metrics(jobs: Jobs) -> Iterator[Any]:
    """Yield the metric families of all jobs, labelled by run and stage, not by volume: there may be hundreds of these.

    Of several jobs of one name only the last counts.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    by_state = ("run", "stage", "state")
    ended = CounterMetricFamily("nx47dask_blocks", "Blocks that are done, skipped or quarantined.", labels=by_state)
    left = GaugeMetricFamily("nx47dask_blocks_left", "Blocks of the stages begun that are not done.", labels=by_state)
    volumes = GaugeMetricFamily("nx47dask_volumes", "Volumes by state.", labels=("run", "state"))
    running = GaugeMetricFamily("nx47dask_running", "Whether the run is under way.", labels=("run",))
    sums = [CounterMetricFamily(name, words, labels=("run", "stage")) for name, words, _ in SUMS]
    for run, job in {job.title["name"]: job for job in jobs.jobs.values()}.items():
        running.add_metric((run,), job.state == "running")
        for state, count in _volumes(job).items():
            volumes.add_metric((run, state), count)
        for stage, (counts, _) in job.totals().items():
            ended.add_metric((run, stage, "done"), counts[DONE] + counts[REPEATED])
            ended.add_metric((run, stage, "skipped"), counts[SKIPPED])
            ended.add_metric((run, stage, "quarantined"), counts[QUARANTINED])
            left.add_metric((run, stage, "waiting"), counts[WAITING])
            left.add_metric((run, stage, "retrying"), counts[RETRYING])
        for stage, totals in job.sums.items():
            for family, (_, _, key) in zip(sums, SUMS, strict=True):
                family.add_metric((run, stage), totals[key])
    yield from (ended, left, volumes, running, *sums)


def _volumes(job: Job) -> dict[str, int]:
    counts = dict.fromkeys(("waiting", "under way", "done", "quarantined"), 0)
    for volume in job.volumes.values():
        counts[volume.line()[0]] += 1
    return counts


def register(collect: Callable[[], Iterable[Any]]) -> Any:
    """Add the metrics that ``collect`` returns to ``/metrics`` of this process.

    Returns
    -------
    object or None
        Collector for :func:`unregister`; None where there is no prometheus_client, or another scheduler of this process
        is registered.
    """
    try:
        import prometheus_client
    except ImportError:
        return None

    class Collector:
        def collect(self) -> Iterable[Any]:
            return collect()

    collector = Collector()
    try:
        prometheus_client.REGISTRY.register(collector)
    except ValueError:  # two schedulers in one process
        logger.info("another scheduler of this process has the counters of nx47dask")
        return None
    return collector


def unregister(collector: Any) -> None:
    """Undo :func:`register`."""
    if collector is not None:
        import prometheus_client

        prometheus_client.REGISTRY.unregister(collector)
