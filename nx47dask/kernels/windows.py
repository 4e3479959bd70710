"""Inference of a block by overlapping windows: a pure function of voxels, a lattice and a network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import InputError
from nx47dask.geometry import Box, Index, WindowLattice
from nx47dask.kernels.blending import (
    MOST_OVERLAPS,
    Blend,
    Values,
    accumulate,
    add_weights,
    finish,
    window_weights,
)
from nx47dask.kernels.compiled import compiled

__all__ = ["SUPPORT_CELL_VOX", "Variant", "blend_windows", "occupied_cells", "read_box", "variants"]

SUPPORT_CELL_VOX = 8
"""Edge of the cells in which a scan counts as empty or occupied; cells start at global multiples of it."""

Voxels = NDArray[np.unsignedinteger]
Floats = NDArray[np.float32]
Run = Callable[[Iterable[Floats]], Iterator[Floats]]


class Variant(NamedTuple):
    """Symmetry of a window for test-time augmentation: a flip along axes, then a turn in the Y-X plane."""

    axes: tuple[int, ...]
    quarter_turns: int

    def apply(self, window: NDArray[Any]) -> NDArray[Any]:
        """Return the window as the network sees it; a view."""
        return np.rot90(np.flip(window, self.axes), self.quarter_turns, (1, 2))

    def undo(self, window: NDArray[Any]) -> NDArray[Any]:
        """Return the network's answer, turned back; a view."""
        return np.flip(np.rot90(window, -self.quarter_turns, (1, 2)), self.axes)


def variants(mirrors: tuple[tuple[int, ...], ...], rotations: tuple[int, ...]) -> tuple[Variant, ...]:
    """List the different ways to show a window to a network; the unchanged window is the first.

    Parameters
    ----------
    mirrors : tuple of tuples of int
        Sets of axes (0 is Z) to flip together, in addition to no flip.
    rotations : tuple of int
        Quarter turns in the Y-X plane, 1 to 3, in addition to no turn. Each turn is combined with each flip; equal
        combinations count once.
    """
    marked = np.arange(8).reshape(2, 2, 2)
    distinct: dict[bytes, Variant] = {}
    for turns, axes in itertools.product((0, *rotations), ((), *mirrors)):
        variant = Variant(axes, turns)
        distinct.setdefault(variant.apply(marked).tobytes(), variant)
    return tuple(distinct.values())


def read_box(lattice: WindowLattice, core: Box) -> Box:
    """Return the box to read for ``core``: its windows, extended to whole cells, clipped to the volume."""
    return lattice.context(core).align(SUPPORT_CELL_VOX).clip(Box.of_shape(lattice.shape))


def occupied_cells(image: Voxels, outer: Box, level: int, cell_vox: int = SUPPORT_CELL_VOX) -> NDArray[np.bool_]:
    """Mark the cells of the volume that hold a voxel above a grey level.

    Parameters
    ----------
    image : ndarray of uint8 or uint16, shape of ``outer``
        Raw voxels.
    outer : Box
        Place of ``image`` in the volume. A cell that a face cuts is correct only at the volume's edge (see `read_box`).
    level : int
        Highest grey level of an empty voxel.
    cell_vox : int
        Edge of a cell in voxels; cells start at global multiples of it.

    Returns
    -------
    ndarray of bool, (cells along Z, Y, X)
        The first cell holds the first voxel of ``outer``.
    """
    covered = outer.align(cell_vox)
    cells = np.zeros([edge // cell_vox for edge in covered.shape], np.bool_)
    _mark(image, outer.relative_to(covered.start).start, level, cell_vox, cells)
    return cells


@compiled
def _mark(image: Voxels, offset: Index, level: int, cell_vox: int, cells: NDArray[np.bool_]) -> None:
    for z in range(image.shape[0]):
        for y in range(image.shape[1]):
            row = cells[(z + offset[0]) // cell_vox, (y + offset[1]) // cell_vox]
            for cell in range(len(row)):
                first = cell * cell_vox - offset[2]
                for x in range(max(first, 0), min(first + cell_vox, image.shape[2])):
                    if row[cell]:
                        break
                    row[cell] = image[z, y, x] > level


def blend_windows(
    image: Voxels,
    outer: Box,
    core: Box,
    lattice: WindowLattice,
    run: Run,
    *,
    normalise: Callable[[Voxels], Floats],
    blend: Blend = "gaussian",
    values: Values = "probability",
    mirrors: tuple[tuple[int, ...], ...] = (),
    rotations: tuple[int, ...] = (),
    batch: int = 1,
    occupied: NDArray[np.bool_] | None = None,
    skip: bool = True,
) -> Floats:
    """Compute the surface probability of a block from the windows that touch it.

    The result of a voxel depends on the volume and the lattice alone. So its bits are the same for every ``core`` that
    holds it, with and without skipping. The windows go to the network in raster order, in batches of fixed size.
    Memory holds two batches and 12 bytes per voxel of ``core``.

    Parameters
    ----------
    image : ndarray of uint8 or uint16, shape of ``outer``
        Raw voxels.
    outer, core : Box
        Box of ``image``, at least ``read_box(lattice, core)``, and box of the result; in voxels of the volume.
    lattice : WindowLattice
        Windows of the volume.
    run : callable
        Takes batches, float32 (batch, 1, Z, Y, X), and yields their answers in order, finite float32 (batch, Z, Y, X).
    normalise : callable
        Maps the raw voxels of a window to float32 (`Normalisation.resolve`).
    blend : {"gaussian", "constant"}
        Weights of a window.
    values : {"probability", "logit"}
        Kind of the network's answers; logits are averaged before the sigmoid.
    mirrors, rotations
        Test-time augmentation, see `variants`; the result is the mean over all variants.
    batch : int
        Windows in a batch, each variant counted; the last batch is filled up with its last window.
    occupied : ndarray of bool, optional
        Cells from `occupied_cells`; the probability is 0 in all other cells.
    skip : bool
        Leave out windows that reach no occupied cell of ``core``.

    Returns
    -------
    ndarray of float32, shape of ``core``, in [0, 1]

    Raises
    ------
    InputError
        Windows that are not square have quarter turns, or more windows cover a voxel than the sums can hold.
    """
    ways = variants(mirrors, rotations)
    _check(lattice, ways)
    weights = window_weights(lattice.window, blend, lattice.placement)
    windows = list(lattice.touching(core))
    if occupied is not None and skip:
        windows = [window for window in windows if _reaches(window.clip(core), occupied, outer)]
    entries = list(itertools.product(windows, ways))
    inputs = _inputs(image, outer, lattice.shape, windows, ways, normalise)
    groups = (entries[n : n + batch] for n in range(0, len(entries), batch))
    sums = np.zeros(core.shape, np.int64)
    for group, answers in zip(groups, run(_batches(inputs, batch)), strict=True):
        for (window, way), answer in zip(group, answers, strict=False):
            at, begin, shape = _overlap(window, core)
            accumulate(sums, at, way.undo(answer), weights, begin, shape, values)
    return _finish(sums, core, lattice, weights, len(ways), values, occupied, outer)


def _check(lattice: WindowLattice, ways: tuple[Variant, ...]) -> None:
    _, height, width = lattice.window
    if height != width and any(way.quarter_turns % 2 for way in ways):
        raise InputError(
            f"test-time rotations: a window of {height} x {width} voxels in the Y-X plane is not square",
            hint="choose a square window or leave out rotations",
        )
    if lattice.most_overlaps * len(ways) > MOST_OVERLAPS:
        raise InputError(
            f"windows of {lattice.window} voxels with a step of {lattice.step}: {lattice.most_overlaps} of them cover "
            f"one voxel, in {len(ways)} variants, but sums hold {MOST_OVERLAPS} in all",
            hint="choose a larger step",
        )


def _overlap(window: Box, core: Box) -> tuple[Index, Index, Index]:
    """Intersect a window with a core; return the start in the core, the start in the window, and the shape."""
    part = window.clip(core)
    return part.relative_to(core.start).start, part.relative_to(window.start).start, part.shape


def _reaches(part: Box, occupied: NDArray[np.bool_], outer: Box) -> bool:
    cells = (
        slice(a // SUPPORT_CELL_VOX - first // SUPPORT_CELL_VOX, -(-b // SUPPORT_CELL_VOX) - first // SUPPORT_CELL_VOX)
        for a, b, first in zip(part.start, part.stop, outer.start, strict=True)
    )
    return bool(occupied[tuple(cells)].any())


def _inputs(
    image: Voxels,
    outer: Box,
    shape: Index,
    windows: list[Box],
    ways: tuple[Variant, ...],
    normalise: Callable[[Voxels], Floats],
) -> Iterator[NDArray[Any]]:
    for window in windows:
        normal = normalise(_crop(image, outer, shape, window))
        for way in ways:
            yield way.apply(normal)


def _crop(image: Voxels, outer: Box, shape: Index, window: Box) -> Voxels:
    """Crop a window; voxels outside the volume are reflections at its faces that repeat the edge voxel."""
    if window.clip(outer) == window:
        return image[window.relative_to(outer.start).slices]
    reflected = []
    for n, first, a, b in zip(shape, outer.start, window.start, window.stop, strict=True):
        voxels = np.arange(a, b) % (2 * n)
        reflected.append(np.minimum(voxels, 2 * n - 1 - voxels) - first)
    crop: Voxels = image[np.ix_(*reflected)]
    return crop


def _batches(inputs: Iterator[NDArray[Any]], batch: int) -> Iterator[Floats]:
    for first in inputs:
        filled = np.empty((batch, 1, *first.shape), np.float32)
        for place, entry in enumerate(itertools.chain([first], itertools.islice(inputs, batch - 1))):
            filled[place, 0] = entry
        filled[place + 1 :] = filled[place]
        yield filled


def _finish(
    sums: NDArray[np.int64],
    core: Box,
    lattice: WindowLattice,
    weights: NDArray[np.int32],
    times: int,
    values: Values,
    occupied: NDArray[np.bool_] | None,
    outer: Box,
) -> Floats:
    """Divide by the total weights; they follow from the lattice and are computed layer by layer, so none are stored."""
    result = np.empty(core.shape, np.float32)
    (z0, y0, x0), (z1, y1, x1) = core.start, core.stop
    for first in range(z0 // SUPPORT_CELL_VOX * SUPPORT_CELL_VOX, z1, SUPPORT_CELL_VOX):
        layer = Box((first, y0, x0), (first + SUPPORT_CELL_VOX, y1, x1)).clip(core)
        totals = np.zeros(layer.shape, np.int64)
        for window in lattice.touching(layer):
            at, begin, shape = _overlap(window, layer)
            add_weights(totals, at, weights, begin, shape)
        inside = layer.relative_to(core.start).slices
        result[inside] = finish(sums[inside], totals, times, values)
        if occupied is not None:
            result[inside] *= _cells_of(layer, occupied, outer)
    return result


def _cells_of(layer: Box, occupied: NDArray[np.bool_], outer: Box) -> NDArray[np.bool_]:
    """Return the state of the cell of each voxel of a layer, shape (1, Y, X)."""
    z, y, x = (
        np.arange(a, b) // SUPPORT_CELL_VOX - first // SUPPORT_CELL_VOX
        for a, b, first in zip(layer.start, layer.stop, outer.start, strict=True)
    )
    return occupied[np.ix_(z[:1], y, x)]
