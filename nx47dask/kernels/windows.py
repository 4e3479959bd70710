"""Inference of one block by overlapping windows: a pure function of voxels, a lattice and a network."""

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

__all__ = ["CELL_VOX", "Variant", "blend_windows", "occupied_cells", "read_box", "variants"]

CELL_VOX = 8
"""Edge of the cells, anchored at global multiples of it, in which a scan counts as empty or not."""

Voxels = NDArray[np.unsignedinteger]
Floats = NDArray[np.float32]
Run = Callable[[Iterable[Floats]], Iterator[Floats]]


class Variant(NamedTuple):
    """A window turned over for test-time augmentation: flipped along axes, then turned in the Y-X plane."""

    axes: tuple[int, ...]
    quarter_turns: int

    def apply(self, window: NDArray[Any]) -> NDArray[Any]:
        """The window as the network sees it; a view."""
        return np.rot90(np.flip(window, self.axes), self.quarter_turns, (1, 2))

    def undo(self, window: NDArray[Any]) -> NDArray[Any]:
        """The network's answer, turned back; a view."""
        return np.flip(np.rot90(window, -self.quarter_turns, (1, 2)), self.axes)


def variants(mirrors: tuple[tuple[int, ...], ...], rotations: tuple[int, ...]) -> tuple[Variant, ...]:
    """The different ways to show a window to a network, the one as it is first.

    Parameters
    ----------
    mirrors : tuple of tuples of int
        Sets of axes (0 is Z) to flip together, each beside no flip at all.
    rotations : tuple of int
        Quarter turns in the Y-X plane, 1 to 3, each beside no turn; each goes with each flip, and what comes out
        twice counts once.
    """
    marked = np.arange(8).reshape(2, 2, 2)
    found: dict[bytes, Variant] = {}
    for turns, axes in itertools.product((0, *rotations), ((), *mirrors)):
        variant = Variant(axes, turns)
        found.setdefault(variant.apply(marked).tobytes(), variant)
    return tuple(found.values())


def read_box(lattice: WindowLattice, core: Box) -> Box:
    """What to read for the result of ``core``: its windows, out to whole cells, clipped to the volume."""
    return lattice.context(core).align(CELL_VOX).clip(Box.of_shape(lattice.shape))


def occupied_cells(image: Voxels, outer: Box, level: int, cell_vox: int = CELL_VOX) -> NDArray[np.bool_]:
    """Which cells of the volume hold a voxel above a grey level.

    Parameters
    ----------
    image : ndarray of uint8 or uint16, shape of ``outer``
        Raw voxels.
    outer : Box
        Where they lie in the volume; cells cut by its faces are right where that is the volume's edge (`read_box`).
    level : int
        Grey level up to which a voxel is empty.
    cell_vox : int
        Edge of a cell in voxels; cells are anchored at multiples of it.

    Returns
    -------
    ndarray of bool, (cells along Z, Y, X)
        The first is the one that holds the first voxel of ``outer``.
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
    """Surface probability of one block, blended from the windows that touch it.

    Every voxel's result depends on the volume and the lattice alone, so it is the same bits for every ``core`` that
    holds it, with and without skipping. The windows go to the network in raster order, in batches of fixed size; all
    that is held is two batches and 12 bytes per voxel of ``core``.

    Parameters
    ----------
    image : ndarray of uint8 or uint16, shape of ``outer``
        Raw voxels.
    outer, core : Box
        What was read, at least ``read_box(lattice, core)``, and what is wanted; voxels of the volume.
    lattice : WindowLattice
        Windows of the volume.
    run : callable
        From batches, float32 (batch, 1, Z, Y, X), to one answer each, finite float32 (batch, Z, Y, X), in order.
    normalise : callable
        From the raw voxels of a window to float32 (`Normalisation.resolve`).
    blend : {"gaussian", "constant"}
        Weights of a window.
    values : {"probability", "logit"}
        What the network answers; logits are averaged before the sigmoid.
    mirrors, rotations
        Test-time augmentation, see `variants`; the mean over all of them.
    batch : int
        Windows in a batch, variants counted; the last batch is filled up with its last window.
    occupied : ndarray of bool, optional
        Of `occupied_cells`; the probability is 0 in the other cells.
    skip : bool
        Leave out windows that reach no occupied cell of ``core``.

    Returns
    -------
    ndarray of float32, shape of ``core``, in [0, 1]

    Raises
    ------
    InputError
        Quarter turns of windows that are not square, or more windows over one voxel than the sums can hold.
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
    """The common part of a window and a core: its start in the core, its start in the window, its shape."""
    part = window.clip(core)
    return part.relative_to(core.start).start, part.relative_to(window.start).start, part.shape


def _reaches(part: Box, occupied: NDArray[np.bool_], outer: Box) -> bool:
    cells = (
        slice(a // CELL_VOX - first // CELL_VOX, -(-b // CELL_VOX) - first // CELL_VOX)
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
    """The voxels of a window; those outside the volume are reflected at its faces, the edge voxel repeated."""
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
    """Divide by the total weights, which follow from the lattice: a layer of cells at a time, so none are stored."""
    result = np.empty(core.shape, np.float32)
    (z0, y0, x0), (z1, y1, x1) = core.start, core.stop
    for first in range(z0 // CELL_VOX * CELL_VOX, z1, CELL_VOX):
        layer = Box((first, y0, x0), (first + CELL_VOX, y1, x1)).clip(core)
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
    """The cell of each voxel of a layer, shape (1, Y, X)."""
    z, y, x = (
        np.arange(a, b) // CELL_VOX - first // CELL_VOX
        for a, b, first in zip(layer.start, layer.stop, outer.start, strict=True)
    )
    return occupied[np.ix_(z[:1], y, x)]
