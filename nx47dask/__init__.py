"""Surface masks of rolled papyri from micro-CT volumes of any size, on any Dask cluster.

``run`` does the main job, ``open_run`` opens its result; both load their libraries when they are called first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nx47dask.version import __version__ as __version__

if TYPE_CHECKING:
    from nx47dask.errors import Nx47Error as Nx47Error
    from nx47dask.metrics.score import official_score as official_score
    from nx47dask.phantom import Phantom as Phantom
    from nx47dask.phantom import write_phantom as write_phantom
    from nx47dask.results import Run as Run
    from nx47dask.results import open_run as open_run
    from nx47dask.stages.calibration.job import calibrate_workflow as calibrate_workflow
    from nx47dask.stages.run import plan as plan
    from nx47dask.stages.run import run as run
    from nx47dask.stages.score import score_volumes as score_volumes
    from nx47dask.workflow import load_workflow as load_workflow

_PUBLIC = {
    "Nx47Error": "nx47dask.errors",
    "Phantom": "nx47dask.phantom",
    "Run": "nx47dask.results",
    "calibrate_workflow": "nx47dask.stages.calibration.job",
    "load_workflow": "nx47dask.workflow",
    "official_score": "nx47dask.metrics.score",
    "open_run": "nx47dask.results",
    "plan": "nx47dask.stages.run",
    "run": "nx47dask.stages.run",
    "score_volumes": "nx47dask.stages.score",
    "write_phantom": "nx47dask.phantom",
}

__all__ = [
    "Nx47Error",
    "Phantom",
    "Run",
    "calibrate_workflow",
    "load_workflow",
    "official_score",
    "open_run",
    "plan",
    "run",
    "score_volumes",
    "write_phantom",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
