"""What a run is called and what its volumes go through; known before it starts."""

from __future__ import annotations

from nx47dask.engine.jobs import JobTitle
from nx47dask.stages import detect, export, ingest, measure, score
from nx47dask.stages.plan import RunPlan
from nx47dask.stages.postprocess import stage_name

__all__ = ["job_title"]


def job_title(planned: RunPlan) -> JobTitle:
    """What a run is called, and the stages over all voxels that every volume of it goes through."""
    passes = (stage_name(one.number) for one in planned.passes)
    stages = (ingest.STAGE, detect.STAGE, *passes, measure.STAGE, export.STAGE)
    return JobTitle(
        planned.out.absolute().name,
        str(planned.out),
        planned.workflow.name,
        tuple(job.id for job in planned.jobs),
        (*stages, score.STAGE) if planned.scored else stages,
    )
