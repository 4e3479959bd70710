"""The competition's score, combined from octants; ``docs/scoring.md`` explains it.

The topological counts are defined by octants; surface Dice and variation of information are sums over octants. So
memory holds only an octant with a small halo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from nx47dask.files.summaries import pack_arrays, unpack_arrays
from nx47dask.geometry import Block, BlockGrid, Box
from nx47dask.kernels.components import find_components
from nx47dask.metrics.defects import Place, find_bridges, find_holes
from nx47dask.metrics.octants import TOLERANCE, octant_context, octants
from nx47dask.metrics.surface import count_within, surface_areas, surface_codes
from nx47dask.metrics.terms import TERMS, OctantSums, ScoreValues, dice, ratio
from nx47dask.metrics.topology import count_features
from nx47dask.metrics.variation import VOLUME_COMPONENTS, count_overlaps, unite_overlaps, variation_of_information

__all__ = [
    "DEFECT_KINDS",
    "IGNORE",
    "Agreement",
    "Defect",
    "DefectKind",
    "Defects",
    "OctantMeasures",
    "Score",
    "combine_octants",
    "count_octant",
    "measure_octant",
    "official_score",
]

IGNORE = 2
"""Label of voxels that the score leaves out."""
DefectKind = Literal["holes", "bridges"]
DEFECT_KINDS: tuple[DefectKind, ...] = ("holes", "bridges")
LARGEST_PLACES = 50
"""Largest number of places kept for each kind of defect."""


class Agreement(TypedDict):
    """How voxels agree at a tolerance, each in [0, 1]; 1 where there is nothing to be wrong about."""

    precision: float
    recall: float
    dice: float


class Defect(TypedDict):
    """The place of a spurious hole or bridge: its box in the volume, and its voxels."""

    box: str
    voxels: int


class Defects(TypedDict):
    """Spurious features of one kind.

    Attributes
    ----------
    count : int
    places : list of Defect
        The largest 50, largest first.
    """

    count: int
    places: list[Defect]


class Score(ScoreValues):
    """The score of a volume.

    Attributes
    ----------
    voi_split, voi_merge : float
        In bits.
    counts : list of list of int, shape (3, 3)
        For dimensions 0, 1, 2 the features matched, of the prediction, of the labels.
    agreement : dict of str to Agreement
        At a tolerance of "0" and "2" voxels.
    defects : dict of str to Defects
        ``holes`` and ``bridges``; empty where their places were not looked for.
    """

    voi_split: float
    voi_merge: float
    counts: list[list[int]]
    agreement: dict[str, Agreement]
    defects: dict[DefectKind, Defects]


class SurfaceCounts(TypedDict):
    """What surface Dice and agreement of an octant are made of.

    Attributes
    ----------
    surface : list of float
        Area near the other surface, and area, of the prediction and of the labels.
    voxels : list of int
        Of both masks; of the prediction near the labels, of the prediction; the same of the labels.
    """

    surface: list[float]
    voxels: list[int]


class OctantMeasures(SurfaceCounts):
    """What is measured in one octant.

    Attributes
    ----------
    counts : list of list of int, shape (3, 3)
        As in :class:`Score`.
    overlaps : str
        Overlaps of components, packed.
    defects : dict of str to Defects
        As in :class:`Score`.
    """

    counts: list[list[int]]
    overlaps: str
    defects: dict[DefectKind, Defects]


def official_score(prediction: NDArray[Any], labels: NDArray[Any], *, places: bool = True) -> Score:
    """Score a prediction.

    Parameters
    ----------
    prediction : ndarray, shape (Z, Y, X)
        Foreground is any non-zero value.
    labels : ndarray, shape (Z, Y, X)
        0 background, 1 surface, 2 left out.
    places : bool
        Find the places of defects too; without them, ``defects`` is empty and the call is faster.

    Returns
    -------
    Score
        ``score`` and its :data:`~nx47dask.metrics.terms.TERMS` in [0, 1]; ``voi_split``, ``voi_merge`` in bits;
        ``counts``, for dimensions 0, 1, 2 the number of matched features, of features of the prediction, of features
        of the labels; ``agreement`` of voxels at a tolerance of 0 and 2 voxels; ``defects``, the spurious holes and
        bridges with their places.

    Raises
    ------
    ValueError
        The shapes differ or are not those of volumes, or the labels hold other values.

    Examples
    --------
    A perfect prediction of a sheet:

    >>> import numpy as np
    >>> import nx47dask
    >>> labels = np.zeros((12, 40, 40), dtype=np.uint8)
    >>> labels[5:8] = 1
    >>> prediction = labels == 1
    >>> nx47dask.official_score(prediction, labels)["score"]
    1.0

    A hole of a single voxel's width lowers the topology term above all:

    >>> prediction[5:8, 12, 15] = False
    >>> pierced = nx47dask.official_score(prediction, labels)
    >>> {name: round(pierced[name], 3) for name in ("score", "topo", "surface_dice", "voi")}
    {'score': 0.759, 'topo': 0.2, 'surface_dice': 1.0, 'voi': 0.998}
    >>> pierced["defects"]["holes"]
    {'count': 1, 'places': [{'box': '5:8,12:13,15:16', 'voxels': 3}]}

    Voxels with the label 2 do not count:

    >>> labels[:, 10:15, 13:18] = 2
    >>> nx47dask.official_score(prediction, labels)["score"]
    1.0
    """
    prediction, labels = np.asarray(prediction), np.asarray(labels)
    if prediction.shape != labels.shape or labels.ndim != 3 or not labels.size:
        raise ValueError(
            f"the prediction has shape {prediction.shape}, the labels have {labels.shape}; both must have the same "
            "three axes (Z, Y, X)"
        )
    if ((labels != 0) & (labels != 1) & (labels != IGNORE)).any():
        raise ValueError(f"labels are 0, 1 and {IGNORE}; these have {np.unique(labels)[:8].tolist()}")
    depth, height, width = labels.shape
    grid = octants((depth, height, width))
    parts = {}
    for octant in grid:
        part = octant_context(grid, octant).slices
        parts[octant.number] = measure_octant(grid, octant, prediction[part], labels[part], places=places)
    return combine_octants(grid, parts)


def measure_octant(
    grid: BlockGrid,
    octant: Block,
    prediction: NDArray[Any],
    labels: NDArray[Any],
    *,
    places: bool = True,
    topology: bool = True,
) -> OctantMeasures:
    """Measure an octant of a volume for :func:`combine_octants`.

    Parameters
    ----------
    grid : BlockGrid
        Grid of :func:`~nx47dask.metrics.octants.octants`.
    octant : Block
        A block of the grid.
    prediction, labels : ndarray
        Voxels of the box :func:`~nx47dask.metrics.octants.octant_context`.
    places : bool
        Find defects.
    topology : bool
        Count features, which takes most of the time; if False, ``counts`` are 0 until :func:`count_octant` fills them.

    Returns
    -------
    OctantMeasures
        Sums of the octant.
    """
    context = octant_context(grid, octant)
    masks = _masks(prediction, labels)
    inner = octant.box.relative_to(context.start)
    here, there = (np.ascontiguousarray(mask[inner.slices]) for mask in masks)
    of_prediction, of_labels = (
        find_components(mask.view(np.uint8), VOLUME_COMPONENTS, (), grid.inner_faces(octant)) for mask in (here, there)
    )
    return {
        "counts": (count_features(here, there) if topology else np.zeros((3, 3), np.int64)).tolist(),
        **_count_surface(*masks, grid, octant, context),
        "overlaps": pack_arrays(count_overlaps(of_prediction, of_labels)),
        "defects": _find_defects(*masks, octant.box, context) if places else {},
    }


def count_octant(prediction: NDArray[Any], labels: NDArray[Any]) -> list[list[int]]:
    """Count the features of an octant from its voxels without context; see ``counts`` of :func:`measure_octant`."""
    counts: list[list[int]] = count_features(*map(np.ascontiguousarray, _masks(prediction, labels))).tolist()
    return counts


def _masks(prediction: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return both as masks without the voxels that the score leaves out."""
    kept = labels != IGNORE
    return (prediction != 0) & kept, (labels != 0) & kept


def combine_octants(grid: BlockGrid, parts: Mapping[int, OctantMeasures]) -> Score:
    """Combine the octants of a volume into the result of :func:`official_score`."""
    ordered = [parts[number] for number in sorted(parts)]
    counts = np.sum([part["counts"] for part in ordered], axis=0)
    overlaps = unite_overlaps(grid, {number: unpack_arrays(part["overlaps"]) for number, part in parts.items()})
    split, merge = variation_of_information(overlaps)
    near, area, covered, labelled = (math.fsum(part["surface"][i] for part in ordered) for i in range(4))
    sums = OctantSums(counts.tolist(), (near, area, covered, labelled), split, merge)
    terms = {name: term.of(sums) for name, term in TERMS.items()}
    score = math.fsum(TERMS[name].weight * value for name, value in terms.items())
    return {
        **cast("ScoreValues", {"score": score, **terms}),
        "voi_split": split,
        "voi_merge": merge,
        "counts": counts.tolist(),
        "agreement": _agreement(np.sum([part["voxels"] for part in ordered], axis=0)),
        "defects": {kind: _largest([part["defects"][kind] for part in ordered]) for kind in ordered[0]["defects"]},
    }


def _count_surface(
    prediction: NDArray[np.bool_], labels: NDArray[np.bool_], grid: BlockGrid, octant: Block, context: Box
) -> SurfaceCounts:
    """Measure the sums for surface Dice and agreement.

    A surface element belongs to the octant of its upper voxel; elements beyond the volume's far faces belong to the
    last octant.
    """
    close = octant.box.expand((TOLERANCE + 1,) * 3).clip(context)
    masks = [np.ascontiguousarray(mask[close.relative_to(context.start).slices]) for mask in (prediction, labels)]
    inner = octant.box.relative_to(close.start)
    z, y, x = (b + (end == n) for b, end, n in zip(inner.stop, octant.box.stop, grid.shape, strict=True))
    codes = [surface_codes(mask) for mask in masks]
    surface, voxels = [], [int(np.count_nonzero((masks[0] & masks[1])[inner.slices]))]
    for side in (0, 1):
        total, near = count_within(codes[side], codes[1 - side], Box(inner.start, (z, y, x)))
        surface += [surface_areas(near), surface_areas(total)]
        total, near = count_within(masks[side].view(np.uint8), masks[1 - side].view(np.uint8), inner)
        voxels += [int(near[1]), int(total[1])]
    return {"surface": surface, "voxels": voxels}


def _agreement(voxels: NDArray[np.int64]) -> dict[str, Agreement]:
    both, near_prediction, predicted, near_labels, labelled = (int(count) for count in voxels)
    return {
        str(tolerance): {
            "precision": ratio(right, predicted),
            "recall": ratio(covered, labelled),
            "dice": dice(right, predicted, covered, labelled),
        }
        for tolerance, right, covered in ((0, both, both), (TOLERANCE, near_prediction, near_labels))
    }


def _find_defects(
    prediction: NDArray[np.bool_], labels: NDArray[np.bool_], octant: Box, context: Box
) -> dict[DefectKind, Defects]:
    """Find the defects with their middle in an octant, from its context; boxes are in voxels of the volume."""
    defects: dict[DefectKind, Defects] = {}
    finders: tuple[tuple[DefectKind, Callable[..., list[Place]]], ...] = (
        ("holes", find_holes),
        ("bridges", find_bridges),
    )
    for kind, find in finders:
        places = [(place.box.shift(context.start), place.voxels) for place in find(prediction, labels)]
        own = [Defect(box=str(box), voxels=voxels) for box, voxels in places if octant.contains(box.middle)]
        defects[kind] = {"count": len(own), "places": own[:LARGEST_PLACES]}
    return defects


def _largest(parts: Sequence[Defects]) -> Defects:
    places = sorted((place for part in parts for place in part["places"]), key=lambda place: -place["voxels"])
    return {"count": sum(part["count"] for part in parts), "places": places[:LARGEST_PLACES]}
