"""Surface masks of rolled papyri from micro-CT volumes of any size, on any Dask cluster.

The commands of the command line are functions here, under the same names: ``run`` does the main job, ``open_run``
opens its result. Their libraries are loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nx47dask.version import __version__ as __version__

if TYPE_CHECKING:
    from nx47dask.calibration.calibrate import calibrate as calibrate
    from nx47dask.calibration.calibrate import calibrate as calibrate_workflow
    from nx47dask.cluster.where import Where as Where
    from nx47dask.commands.campaign import campaign as campaign
    from nx47dask.commands.compare import compare as compare
    from nx47dask.commands.freeze import freeze as freeze
    from nx47dask.commands.ingest import ingest as ingest
    from nx47dask.commands.plan import plan as plan
    from nx47dask.commands.report import report as report
    from nx47dask.commands.run import run as run
    from nx47dask.commands.score import score as score
    from nx47dask.commands.score import score as score_volumes
    from nx47dask.commands.validate import validate as validate
    from nx47dask.commands.verify import verify as verify
    from nx47dask.errors import Nx47Error as Nx47Error
    from nx47dask.metrics.score import official_score as official_score
    from nx47dask.phantom.render import Phantom as Phantom
    from nx47dask.phantom.write import write_phantom as write_phantom
    from nx47dask.runs.run import Run as Run
    from nx47dask.runs.run import open_run as open_run
    from nx47dask.workflow import load_workflow as load_workflow

_PUBLIC = {
    "Nx47Error": "nx47dask.errors.Nx47Error",
    "Phantom": "nx47dask.phantom.render.Phantom",
    "Run": "nx47dask.runs.run.Run",
    "Where": "nx47dask.cluster.where.Where",
    "calibrate": "nx47dask.calibration.calibrate.calibrate",
    "calibrate_workflow": "nx47dask.calibration.calibrate.calibrate",
    "campaign": "nx47dask.commands.campaign.campaign",
    "compare": "nx47dask.commands.compare.compare",
    "freeze": "nx47dask.commands.freeze.freeze",
    "ingest": "nx47dask.commands.ingest.ingest",
    "load_workflow": "nx47dask.workflow.load_workflow",
    "official_score": "nx47dask.metrics.score.official_score",
    "open_run": "nx47dask.runs.run.open_run",
    "plan": "nx47dask.commands.plan.plan",
    "report": "nx47dask.commands.report.report",
    "run": "nx47dask.commands.run.run",
    "score": "nx47dask.commands.score.score",
    "score_volumes": "nx47dask.commands.score.score",
    "validate": "nx47dask.commands.validate.validate",
    "verify": "nx47dask.commands.verify.verify",
    "write_phantom": "nx47dask.phantom.write.write_phantom",
}
"""Full path of each public name; ``calibrate_workflow`` and ``score_volumes`` are earlier names."""

__all__ = [
    "Nx47Error",
    "Phantom",
    "Run",
    "Where",
    "calibrate",
    "calibrate_workflow",
    "campaign",
    "compare",
    "freeze",
    "ingest",
    "load_workflow",
    "official_score",
    "open_run",
    "plan",
    "report",
    "run",
    "score",
    "score_volumes",
    "validate",
    "verify",
    "write_phantom",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, _, attribute = _PUBLIC[name].rpartition(".")
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
