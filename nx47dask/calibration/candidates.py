"""Candidates of a calibration on labelled volumes: fused, post-processed and scored as wholes, in memory.

The probability of each source is detected once and kept as float32; a candidate's mask is, byte for byte, what
``nx47dask run`` makes with its workflow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors import quantise, weighted_mean
from nx47dask.geometry import Box
from nx47dask.io import ArrayStore, Volume
from nx47dask.kernels.components import Labelling, label
from nx47dask.metrics.octants import octant_context, octants
from nx47dask.metrics.score import combine_octants, count_octant, measure_octant
from nx47dask.metrics.terms import CHEAP, SCORES, TERMS, ScoreKey
from nx47dask.steps.base import LocalStep
from nx47dask.steps.passes import compile_passes
from nx47dask.steps.whole import whole_mask
from nx47dask.workflow import Workflow

__all__ = [
    "CandidateTerms",
    "LeastScore",
    "Subject",
    "evaluate",
    "field_of",
    "labels_of",
    "mask_of",
    "mask_terms",
    "scan_of",
    "source_key",
    "subject_bytes",
    "without_weight",
]

NEAR = "2"
"""Key of the agreement within 2 voxels."""
TOPOLOGY_SLACK = 0.05
"""Largest gain of the topology term over the best candidate that is thought possible."""
SCORE_SLACK = 0.01
"""Largest loss of score on one volume against the best candidate that keeps a candidate in the search."""
BYTES_PER_VOXEL = 48
"""Memory for a candidate from fusion to score per voxel of a volume; sources and libraries are extra."""
PROCESS_BYTES = 300 << 20


@dataclass(frozen=True)
class Subject:
    """A labelled volume with the probability of each source.

    Attributes
    ----------
    image : Volume or ArrayStore
        The scan.
    sources : tuple of (str, ArrayStore)
        Float32 probability by :func:`source_key`.
    labels : Volume
        0 background, 1 surface, 2 left out.
    """

    image: Volume | ArrayStore
    sources: tuple[tuple[str, ArrayStore], ...]
    labels: Volume

    @property
    def id(self) -> str:
        return self.labels.id

    @property
    def box(self) -> Box:
        return Box.of_shape(self.labels.shape)


@dataclass(frozen=True)
class LeastScore:
    """Terms of the best candidate so far on a volume; features are counted only for candidates that can reach them.

    Attributes
    ----------
    score, topo : float
    """

    score: float
    topo: float

    def in_play(self, terms: Mapping[str, float]) -> bool:
        """Return True if a candidate with these cheap terms can still come near the best score."""
        most = min(1.0, self.topo + TOPOLOGY_SLACK)
        cheap = math.fsum(TERMS[name].weight * terms[name] for name in CHEAP)
        return cheap + TERMS["topo"].weight * most >= self.score - SCORE_SLACK


def source_key(item: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a text that identifies an entry of ``detect`` without its weight and number (``sheetness#2``)."""
    return json.dumps(without_weight(item), sort_keys=True)


def without_weight(item: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return an entry of ``detect`` without its weight and number, as for a single source."""
    ((name, parameters),) = item.items()
    return {name.partition("#")[0]: {key: value for key, value in parameters.items() if key != "weight"}}


def subject_bytes(subject: Subject) -> int:
    """Project the peak memory of a worker that evaluates candidates, in bytes."""
    return PROCESS_BYTES + subject.box.size * (BYTES_PER_VOXEL + 4 * len(subject.sources))


class CandidateTerms(TypedDict):
    """Result of the evaluation of a candidate; see :func:`mask_terms`."""

    terms: dict[str, float]


def evaluate(subject: Subject, workflow: Workflow, least: LeastScore | None = None) -> CandidateTerms:
    """Score a candidate on a volume, and measure its mask.

    If surface Dice and variation of information show that ``least`` is out of reach, features are not counted:
    ``score`` and ``topo`` are missing then.
    """
    return {"terms": mask_terms(mask_of(subject, workflow), labels_of(subject), least)}


def mask_terms(mask: NDArray[np.bool_], labels: NDArray[np.uint8], least: LeastScore | None = None) -> dict[str, float]:
    """Measure ``score`` and its terms, precision and recall within 2 voxels, density and components of a mask."""
    depth, height, width = mask.shape
    grid = octants((depth, height, width))
    parts = {}
    for octant in grid:
        context = octant_context(grid, octant).slices
        parts[octant.number] = measure_octant(
            grid, octant, mask[context], labels[context], places=False, topology=False
        )
    score = combine_octants(grid, parts)
    known: tuple[ScoreKey, ...] = CHEAP
    if least is None or least.in_play({name: score[name] for name in CHEAP}):
        for octant in grid:
            parts[octant.number]["counts"] = count_octant(mask[octant.box.slices], labels[octant.box.slices])
        score, known = combine_octants(grid, parts), SCORES
    near = score["agreement"][NEAR]
    return {
        **{name: score[name] for name in known},
        "precision": near["precision"],
        "recall": near["recall"],
        "density": float(mask.mean()),
        "components": float(label(mask, Labelling(26))[1]),
    }


def mask_of(subject: Subject, workflow: Workflow) -> NDArray[np.bool_]:
    """Compute the mask of a candidate, shape (Z, Y, X)."""
    passes = compile_passes(workflow.steps[_first_mask_step(workflow) :])
    image = scan_of(subject) if any(step_pass.reads_image for step_pass in passes) else None
    return whole_mask(passes, field_of(subject, workflow), image)


def field_of(subject: Subject, workflow: Workflow) -> NDArray[np.unsignedinteger]:
    """Return the input of the thresholds of a candidate: its sources fused, stored and smoothed; read-only."""
    steps = workflow.steps[: _first_mask_step(workflow)]
    detect = json.dumps([workflow.resolved["detect"], workflow.settings.combine, workflow.settings.probability])
    parts = [part for named in steps for part in named.step.parts()]
    return _field(subject, detect, tuple(part for part in parts if isinstance(part, LocalStep)))


def _first_mask_step(workflow: Workflow) -> int:
    return next(number for number, named in enumerate(workflow.steps) if named.step.gives == "mask")


# Tasks are ordered by volume and by field, so a worker needs one of each at a time.
@lru_cache(maxsize=1)
def _field(subject: Subject, detect: str, steps: tuple[LocalStep, ...]) -> NDArray[np.unsignedinteger]:
    data = _fused(subject, detect)
    for step in steps:
        data = step.apply(data, scan_of(subject) if step.reads_image else None)
    data.setflags(write=False)
    return data


@lru_cache(maxsize=1)
def _fused(subject: Subject, detect: str) -> NDArray[np.unsignedinteger]:
    """Return the probability of the weighted sources as a run stores it."""
    items, combine, dtype = json.loads(detect)
    weights = [next(iter(item.values())).get("weight", 1.0) for item in items]
    total = math.fsum(weights)
    sources = _sources(subject)
    parts = ((weight / total, sources[source_key(item)].copy()) for item, weight in zip(items, weights, strict=True))
    levels = quantise(weighted_mean(parts, subject.labels.shape, combine), np.dtype(dtype).type)
    levels.setflags(write=False)
    return levels


@lru_cache(maxsize=1)
def _sources(subject: Subject) -> dict[str, NDArray[np.float32]]:
    return {key: store.read(subject.box) for key, store in subject.sources}


@lru_cache(maxsize=1)
def labels_of(subject: Subject) -> NDArray[np.uint8]:
    """Read the labels of a volume, shape (Z, Y, X); do not write to them."""
    return subject.labels.read(subject.box).astype(np.uint8)


@lru_cache(maxsize=1)
def scan_of(subject: Subject) -> NDArray[np.unsignedinteger]:
    """Read the scan of a volume, shape (Z, Y, X); do not write to it."""
    return subject.image.read(subject.box)
