"""The candidates of a grid that the cheap terms leave in play.

Of candidates that differ in thresholds and least object only, one labelling per low threshold measures all
(:mod:`nx47dask.calibration.methods.table`), so a grid of thousands costs a few dozen labellings a volume. Only the
best of them are scored officially.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import TypedDict

import numpy as np

from nx47dask.calibration.candidates import Subject, field_of, labels_of
from nx47dask.calibration.findings import Sweep
from nx47dask.calibration.methods.space import Candidate, SearchSpace, role_of
from nx47dask.calibration.methods.table import threshold_table
from nx47dask.calibration.search import Evaluations
from nx47dask.engine import Batch, Pipeline, Task
from nx47dask.steps.parameters import Role
from nx47dask.workflow import Workflow

__all__ = ["shortlist"]

DIGITS = 6
SWEPT = (Role.LOW_THRESHOLD, Role.HIGH_THRESHOLD, Role.LEAST_OBJECT)
"""Roles of the parameters that a table answers at once."""


class CheapTerms(TypedDict):
    """Of each candidate of a table the mean of the terms that are cheap."""

    cheap: list[float]


def shortlist(
    evaluations: Evaluations, space: SearchSpace, studies: Mapping[str, Sequence[str]], most: int
) -> Pipeline[dict[str, list[Candidate]]]:
    """The best candidates of a grid for the volumes of each study, by surface Dice at 2 voxels and information.

    They are those of the masks after thresholds and small objects, before later steps.
    """
    groups = _groups(space)
    pairs = list(product(evaluations.subjects, groups))
    tasks = (
        Task(
            number,
            f"volume {volume}, {len(members)} candidates",
            measure_table,
            (evaluations.subjects[volume], evaluations.workflow_of(members[0]), _sweeps(members, evaluations)),
            evaluations.subjects[volume].box.size,
        )
        for number, (volume, members) in enumerate(pairs)
    )
    voxels = sum(evaluations.subjects[volume].box.size for volume, _ in pairs)
    records: dict[int, CheapTerms] = yield Batch("shortlist", tasks, len(pairs), voxels)
    cheap: dict[str, dict[str, float]] = {volume: {} for volume in evaluations.subjects}
    for number, (volume, members) in enumerate(pairs):
        cheap[volume] |= zip(map(evaluations.identity, members), records[number]["cheap"], strict=True)
    everyone = [candidate for members in groups for candidate in members]
    found = {}
    for study, volumes in studies.items():
        means = np.array([fmean(cheap[volume][evaluations.identity(one)] for volume in volumes) for one in everyone])
        order = np.argsort(-means, kind="stable")
        found[study] = [everyone[index] for index in order[:most]]
    return found


def measure_table(subject: Subject, workflow: Workflow, sweeps: list[Sweep]) -> CheapTerms:
    """The cheap terms of candidates on one field."""
    lows, highs = sorted({one.value for one in sweeps}), sorted({one.high_at(one.value) for one in sweeps})
    sizes = sorted({one.least_vox for one in sweeps})
    table = threshold_table(field_of(subject, workflow), lows, highs, sizes, by=sweeps[0].by, labels=labels_of(subject))
    places = [
        (lows.index(one.value), highs.index(one.high_at(one.value)), sizes.index(one.least_vox)) for one in sweeps
    ]
    found = [table.cheap[place] for place in places]
    return {"cheap": [round(float(value), DIGITS) for value in found]}


def _groups(space: SearchSpace) -> list[list[Candidate]]:
    """Candidates that share a table: they differ in thresholds and least object only."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in space.grid():
        rest = {key: value for key, value in candidate.items() if role_of(key) not in SWEPT}
        groups.setdefault(json.dumps(rest), []).append(candidate)
    return list(groups.values())


def _sweeps(members: Sequence[Candidate], evaluations: Evaluations) -> list[Sweep]:
    first = Sweep.of(evaluations.workflow_of(members[0]))
    return [first.at(one) for one in members]
