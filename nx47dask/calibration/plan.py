"""Plan a calibration: labelled volumes, search space and folds, checked before anything runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from nx47dask.calibration.methods.space import Candidate, SearchSpace, default_space, space_from, variant
from nx47dask.calibration.methods.verdict import Fold, folds
from nx47dask.detectors import ResidualBand
from nx47dask.errors import InputError
from nx47dask.files.documents import read_document
from nx47dask.files.paths import is_remote, locate
from nx47dask.io import Volume, discover
from nx47dask.runs.folder import refuse_nesting
from nx47dask.runs.identity import FolderPlan
from nx47dask.stages.ingest import REVISION as INGEST_REVISION
from nx47dask.stages.ingest import STAGE as INGEST
from nx47dask.stages.score import REVISION as SCORE_REVISION
from nx47dask.stages.score import STAGE as SCORE
from nx47dask.stages.score import check_labels, find_labels
from nx47dask.workflow import Workflow, load_workflow, workflow_of

__all__ = ["Calibration", "plan_calibration"]

SEARCH_REVISION = 1
"""Increased when the same seed asks for other candidates."""
REVISIONS = {INGEST: INGEST_REVISION, SCORE: SCORE_REVISION, "search": SEARCH_REVISION}
"""Revisions of what is neither a step nor a detector."""
STARTUP_SHARE = 3
"""The first 1 / 3 of the trials cover the space before the search begins."""
LEAST_TRIALS = 2
LARGEST_GRID = 20_000
"""Number of points; a larger space is sampled."""
PACKAGES = ("optuna", "sklearn", "pyarrow")
SCROLLS = "train.csv"


@dataclass(frozen=True)
class Calibration(FolderPlan):
    """Plan of a calibration.

    Attributes
    ----------
    volumes, labels : dict of str to Volume
        By id.
    base : Workflow
        Workflow whose parameters are searched.
    space : SearchSpace
    scrolls : dict of str to str
        Scroll by volume, as far as it is known.
    baseline : str
        Workflow, frozen baseline or run folder.
    trials, startup : int
        Number of trials of each study, and of those at its beginning that cover the space.
    seed : int
    recall_loss : float
        Largest accepted loss of recall on a held-out volume against the baseline, 0 to 1.
    command : str
        Command line for it, as a person would type it.
    """

    volumes: dict[str, Volume]
    labels: dict[str, Volume]
    base: Workflow
    space: SearchSpace
    scrolls: dict[str, str]
    baseline: str
    trials: int
    seed: int
    recall_loss: float
    command: str

    @property
    def method(self) -> Literal["grid", "tpe"]:
        """Method of the search: a grid if every range has a step and there are at most 20,000 points."""
        size = self.space.size
        return "grid" if size is not None and size <= LARGEST_GRID else "tpe"

    @property
    def startup(self) -> int:
        return max(1, self.trials // STARTUP_SHARE)

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "revisions": self.base.revisions
            | {INGEST: INGEST_REVISION, SCORE: SCORE_REVISION, "search": SEARCH_REVISION},
            "workflow": self.base.resolved,
            "space": {key: repr(dimension) for key, dimension in self.space.dimensions.items()},
            "inputs": {name: volume.fingerprint for name, volume in self.volumes.items()},
            "labels": {name: volume.fingerprint for name, volume in self.labels.items()},
            "scrolls": self.scrolls,
            "baseline": self.baseline,
            "trials": self.trials,
            "seed": self.seed,
        }

    @property
    def folds(self) -> list[Fold]:
        """Folds that leave out one volume each, and those that leave out one scroll, unless they are the same."""
        by_volume = folds(list(self.volumes), None, "volume")
        known = {fold.held_out for fold in by_volume}
        by_scroll = folds(list(self.volumes), self.scrolls, "scroll")
        return by_volume + [
            replace(fold, name=f"scroll {fold.name}") for fold in by_scroll if fold.held_out not in known
        ]

    def workflow_of(self, candidate: Candidate) -> Workflow:
        """Return the workflow of a candidate."""
        return workflow_of(variant(self.base.resolved, candidate), f"{self.base.name}-calibrated")


def plan_calibration(
    images: Sequence[str | Path],
    labels: str | Path,
    out: str | Path,
    workflow: str | Path,
    space: str | Path | None,
    *,
    trials: int,
    seed: int,
    baseline: str,
    recall_loss: float,
) -> Calibration:
    """Read and check the inputs of a calibration; see :func:`nx47dask.calibration.calibrate.calibrate`.

    Raises
    ------
    InputError
        A volume, its labels, the space or the workflow cannot be used.
    """
    folder = locate(out)
    if is_remote(folder):
        raise InputError(
            f"{folder}: a calibration writes to a folder of this machine",
            hint="name a local --out, and copy it from there",
        )
    if trials < LEAST_TRIALS or not 0 <= recall_loss <= 1:
        raise InputError(
            f"trials {trials}, recall loss {recall_loss:g}: expected at least {LEAST_TRIALS} trials and a share from "
            "0 to 1",
            hint="choose other --trials or another --recall-loss",
        )
    volumes = {volume.id: volume for volume in discover(images)}
    refuse_nesting([*images, labels], folder)
    labelled = find_labels(labels, {name: volume.shape for name, volume in volumes.items()})
    for volume in labelled.values():
        check_labels(volume)
    base = load_workflow(workflow)
    if isinstance(base.sources, ResidualBand):
        raise InputError(
            f"workflow {workflow}: residual_band gives a mask, so there is nothing to calibrate",
            hint="choose another --workflow",
        )
    _require_packages()
    given = ["nx47dask calibrate", *map(str, images), f"--labels {labels} --workflow {workflow} --baseline {baseline}"]
    given += [f"--space {space}"] if space else []
    given += [f"--trials {trials} --seed {seed} --recall-loss {recall_loss:g}"]
    scrolls = _scrolls(labels, volumes)
    return Calibration(
        folder,
        volumes,
        labelled,
        base,
        _space(space, base),
        scrolls,
        baseline,
        trials,
        seed,
        recall_loss,
        " ".join(given),
    )


def _require_packages() -> None:
    """Refuse missing packages before hours of work, not after them."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f'calibrate needs {", ".join(missing)}: pip install "nx47dask[calibrate]"')


def _space(path: str | Path | None, base: Workflow) -> SearchSpace:
    if path is None:
        return default_space(base.resolved)
    document = read_document(Path(path))
    return space_from(document.data, base.resolved, document.error)


def _scrolls(labels: str | Path, volumes: dict[str, Volume]) -> dict[str, str]:
    """Read the scroll of each volume from the competition's table beside the labels; empty without the table."""
    table = locate(labels).parent / SCROLLS
    if not table.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))
    if not {"id", "scroll_id"}.issubset(rows.fieldnames or ()):
        raise InputError(f"{table}: has the columns {rows.fieldnames}; expected id and scroll_id, or no such file")
    return {row["id"]: row["scroll_id"] for row in rows if row["id"] in volumes}
