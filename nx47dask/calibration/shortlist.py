"""Choose the candidates of a grid that are worth an official score, by the cheap terms.

Candidates that differ in thresholds and least object only are measured together with one labelling per low threshold
(:mod:`nx47dask.calibration.methods.table`), so a grid of thousands costs a few dozen labellings per volume. Only the
best of them get an official score.
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
"""Roles of the parameters whose values are measured together in a table."""


class CheapTerms(TypedDict):
    """Mean of the cheap terms for each candidate of a table."""

    cheap: list[float]


def shortlist(
    evaluations: Evaluations, space: SearchSpace, studies: Mapping[str, Sequence[str]], most: int
) -> Pipeline[dict[str, list[Candidate]]]:
    """Choose the best candidates of a grid for each study, by surface Dice within 2 voxels and information.

    These terms are measured on the masks after thresholds and small objects, before later steps.
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
    listed = {}
    for study, volumes in studies.items():
        means = np.array(
            [fmean(cheap[volume][evaluations.identity(candidate)] for volume in volumes) for candidate in everyone]
        )
        order = np.argsort(-means, kind="stable")
        listed[study] = [everyone[index] for index in order[:most]]
    return listed


def measure_table(subject: Subject, workflow: Workflow, sweeps: list[Sweep]) -> CheapTerms:
    """Measure the cheap terms of candidates on one field."""
    lows, highs = sorted({sweep.value for sweep in sweeps}), sorted({sweep.high_at(sweep.value) for sweep in sweeps})
    sizes = sorted({sweep.least_vox for sweep in sweeps})
    table = threshold_table(field_of(subject, workflow), lows, highs, sizes, by=sweeps[0].by, labels=labels_of(subject))
    places = [
        (lows.index(sweep.value), highs.index(sweep.high_at(sweep.value)), sizes.index(sweep.least_vox))
        for sweep in sweeps
    ]
    return {"cheap": [round(float(table.cheap[place]), DIGITS) for place in places]}


def _groups(space: SearchSpace) -> list[list[Candidate]]:
    """Group the candidates that share a table: they differ in thresholds and least object only."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in space.grid():
        rest = {key: value for key, value in candidate.items() if role_of(key) not in SWEPT}
        groups.setdefault(json.dumps(rest), []).append(candidate)
    return list(groups.values())


def _sweeps(members: Sequence[Candidate], evaluations: Evaluations) -> list[Sweep]:
    first = Sweep.of(evaluations.workflow_of(members[0]))
    return [first.at(candidate) for candidate in members]
