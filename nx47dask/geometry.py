"""Boxes, block grids, halos and window lattices: integers only, no arrays.

Every coordinate is in voxels and in the order Z, Y, X; every interval is half-open.
"""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from nx47dask.errors import InputError

__all__ = [
    "AXES",
    "Block",
    "BlockGrid",
    "Box",
    "Index",
    "Placement",
    "WindowLattice",
    "add_radii",
    "copy_layout",
    "parse_bbox",
    "storage_chunk",
]

Index = tuple[int, int, int]
Placement = Literal["flush", "even"]
AXES = "zyx"

_LARGEST_CHUNK = 128
_SMALLEST_CHUNK = 32
_COPIED_EDGE = 256
_COPIED_VOXELS = 1 << 27


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels.

    Parameters
    ----------
    start, stop : tuple of int
        First voxel inside and first voxel outside, per axis (Z, Y, X).
    """

    start: Index
    stop: Index

    @classmethod
    def of_shape(cls, shape: Index) -> Box:
        """Return the box of a whole volume of this shape."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Index:
        return _triple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def middle(self) -> Index:
        """Voxel in the middle, rounded down."""
        return _triple((a + b) // 2 for a, b in zip(self.start, self.stop, strict=True))

    def contains(self, voxel: Index) -> bool:
        """Return True if a voxel lies inside."""
        return all(a <= v < b for a, v, b in zip(self.start, voxel, self.stop, strict=True))

    def expand(self, radius_zyx: Index) -> Box:
        """Grow the box by a radius on both sides of each axis, without clipping."""
        return Box(
            _triple(a - r for a, r in zip(self.start, radius_zyx, strict=True)),
            _triple(b + r for b, r in zip(self.stop, radius_zyx, strict=True)),
        )

    def clip(self, to: Box) -> Box:
        """Return the part of this box that lies inside another; it is empty where they share no voxel."""
        start = _triple(map(max, self.start, to.start))
        return Box(start, _triple(map(max, start, map(min, self.stop, to.stop))))

    def shift(self, by: Index) -> Box:
        """Move the box by an offset."""
        return Box(
            _triple(a + d for a, d in zip(self.start, by, strict=True)),
            _triple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def relative_to(self, origin: Index) -> Box:
        """Return the same box in coordinates that start at ``origin``."""
        return self.shift(_triple(-o for o in origin))

    def align(self, to: int) -> Box:
        """Return the smallest box that contains this box and has faces at multiples of ``to``, without clipping."""
        return Box(
            _triple(a // to * to for a in self.start),
            _triple(-(-b // to) * to for b in self.stop),
        )

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a grid: its running number (raster order), its grid index and its box."""

    number: int
    index: Index
    box: Box

    def __str__(self) -> str:
        return f"block {self.number} [{self.box}]"


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """A volume cut into equal blocks; those at the far edges may be smaller.

    Parameters
    ----------
    shape : tuple of int
        Shape of the volume in voxels.
    block_shape : tuple of int
        Shape of a block in voxels.
    """

    shape: Index
    block_shape: Index

    @property
    def counts(self) -> Index:
        """Number of blocks per axis."""
        return _triple(-(-s // b) for s, b in zip(self.shape, self.block_shape, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def block(self, index: Index) -> Block:
        """Return the block at a grid index."""
        _, ny, nx = self.counts
        start = _triple(i * b for i, b in zip(index, self.block_shape, strict=True))
        stop = _triple(min(a + b, s) for a, b, s in zip(start, self.block_shape, self.shape, strict=True))
        return Block((index[0] * ny + index[1]) * nx + index[2], index, Box(start, stop))

    def numbered(self, number: int) -> Block:
        """Return the block with a running number (raster order)."""
        _, ny, nx = self.counts
        return self.block((number // (ny * nx), number // nx % ny, number % nx))

    def __iter__(self) -> Iterator[Block]:
        """Yield all blocks in Morton order, so that blocks close in time are close in space."""
        indices = map(_triple, map(iter, itertools.product(*map(range, self.counts))))
        return (self.block(index) for index in sorted(indices, key=_morton))

    def touching(self, box: Box) -> Iterator[Block]:
        """Yield the blocks that share a voxel with a box inside the grid, in raster order."""
        ends = zip(box.start, box.stop, self.block_shape, strict=True)
        ranges = [range(a // edge, -(-b // edge)) for a, b, edge in ends]
        return (self.block(_triple(iter(index))) for index in itertools.product(*ranges))

    def along_axes(self, measure: Callable[[Box], Index]) -> tuple[list[int], list[int], list[int]]:
        """Measure the blocks along each axis, instead of all blocks of the grid.

        This works where the number along an axis depends only on the block's extent along that axis, as the shape of
        a halo does. The product of a block's three numbers is then separable: its sum over all blocks is the product
        of the three sums, and its maximum is the product of the three maxima.

        Parameters
        ----------
        measure : callable
            Takes the box of a block and returns a number for each of Z, Y, X.

        Returns
        -------
        tuple of list of int
            The numbers along Z, Y and X, in the order of the blocks.
        """
        z, y, x = self.counts
        return (
            [measure(self.block((n, 0, 0)).box)[0] for n in range(z)],
            [measure(self.block((0, n, 0)).box)[1] for n in range(y)],
            [measure(self.block((0, 0, n)).box)[2] for n in range(x)],
        )

    def neighbour(self, block: Block, offset: Index) -> Block | None:
        """Return the block at an offset of grid steps, or None outside the grid."""
        index = _triple(i + o for i, o in zip(block.index, offset, strict=True))
        inside = all(0 <= i < n for i, n in zip(index, self.counts, strict=True))
        return self.block(index) if inside else None

    def inner_faces(self, block: Block) -> tuple[tuple[bool, bool], ...]:
        """Tell for each axis if the low face and the high face touch another block."""
        return tuple((i > 0, i < n - 1) for i, n in zip(block.index, self.counts, strict=True))


@dataclass(frozen=True, slots=True)
class WindowLattice:
    """The overlapping windows of a volume; their places depend on its shape alone, not on blocks or workers.

    Along an axis where the volume is smaller than the window there is one centred window: it starts at
    ``-((window - shape) // 2)``, where MONAI and nnU-Net pad. Voxels outside the volume are reflections that repeat
    the edge voxel (numpy's ``symmetric``). This is defined for a volume of any size, even of a single voxel.

    Parameters
    ----------
    shape, window : tuple of int
        Shapes of the volume and of a window, in voxels.
    step : tuple of int
        Distance from a window to the next in voxels, at most the window; with ``even``, the largest distance.
    placement : {"flush", "even"}
        ``flush``: starts at 0, step, 2 step, ...; the last window ends with the volume (MONAI's
        ``dense_patch_slices``). ``even``: as few windows, equally spaced, starts rounded to whole voxels, halves to
        even (nnU-Net's ``compute_steps_for_sliding_window``).

    Raises
    ------
    InputError
        A shape, window or step is not positive, or a step is larger than the window.
    """

    shape: Index
    window: Index
    step: Index
    placement: Placement = "flush"

    def __post_init__(self) -> None:
        for axis, n, w, s in zip(AXES, self.shape, self.window, self.step, strict=True):
            if n < 1 or not 1 <= s <= w:
                raise InputError(
                    f"windows along {axis}: a volume of {n}, a window of {w} and a step of {s} voxels; "
                    "each must be at least 1 and the step at most the window, or voxels are left out"
                )

    @property
    def starts(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """First voxels of the windows, per axis, ascending."""
        sizes = zip(self.shape, self.window, self.step, strict=True)
        z, y, x = (_window_starts(n, w, s, self.placement) for n, w, s in sizes)
        return z, y, x

    @property
    def counts(self) -> Index:
        """Number of windows per axis."""
        return _triple(map(len, self.starts))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def touching(self, box: Box) -> Iterator[Box]:
        """Yield the windows that share a voxel with a box, in raster order; they may reach outside a small volume."""
        for start in itertools.product(*self._starts_touching(box)):
            yield Box(_triple(iter(start)), _triple(a + w for a, w in zip(start, self.window, strict=True)))

    def counts_touching(self, box: Box) -> Index:
        """Count the windows per axis that share a voxel with a box."""
        return _triple(map(len, self._starts_touching(box)))

    def count_touching(self, box: Box) -> int:
        """Count the windows that share a voxel with a box."""
        return math.prod(self.counts_touching(box))

    def context(self, box: Box) -> Box:
        """Return the box to read for a box inside the volume: all that its windows cover, clipped to the volume."""
        starts = self._starts_touching(box)
        stop = _triple(axis[-1] + w for axis, w in zip(starts, self.window, strict=True))
        return Box(_triple(axis[0] for axis in starts), stop).clip(Box.of_shape(self.shape))

    @property
    def most_overlaps(self) -> int:
        """Largest number of windows that cover a voxel (27 for a step of half a window)."""
        return math.prod(
            max(last + 1 - bisect_right(axis, axis[last] - w) for last in range(len(axis)))
            for axis, w in zip(self.starts, self.window, strict=True)
        )

    def _starts_touching(self, box: Box) -> list[tuple[int, ...]]:
        spans = zip(self.starts, self.window, box.start, box.stop, strict=True)
        return [axis[bisect_right(axis, a - w) : bisect_left(axis, b)] for axis, w, a, b in spans]


def add_radii(*radii_zyx: Index) -> Index:
    """Add the radii of a chain of local operators, per axis."""
    return _triple(sum(axis) for axis in zip((0, 0, 0), *radii_zyx, strict=True))


def storage_chunk(block: int) -> int:
    """Return the edge of the storage chunk inside a work block: its largest divisor up to 128 voxels.

    Raises
    ------
    InputError
        The block has no voxel, or it is above 128 voxels and has no divisor from 32 to 128.
    """
    if block < 1:
        raise InputError(
            f"block {block}: a work block has at least 1 voxel along each edge", hint="choose a larger --block"
        )
    if block <= _LARGEST_CHUNK:
        return block
    for edge in range(_LARGEST_CHUNK, _SMALLEST_CHUNK - 1, -1):
        if block % edge == 0:
            return edge
    nearest = round(block / _SMALLEST_CHUNK) * _SMALLEST_CHUNK
    raise InputError(
        f"block {block}: storage chunks of {_SMALLEST_CHUNK} to {_LARGEST_CHUNK} voxels must divide a block, "
        "and none does",
        hint=f"--block {nearest} works",
    )


def copy_layout(edges: Index, shape: Index, block: int) -> tuple[Index, Index]:
    """Choose shards for a copy that hold whole chunks of its source, so that each source chunk is read once.

    Parameters
    ----------
    edges : tuple of int
        Shape of the source's chunks.
    shape : tuple of int
        Shape of the volume.
    block : int
        Edge of a work block in voxels.

    Returns
    -------
    shard, chunk : tuple of int
        The edge of a shard is a multiple of the source's chunk near 256 voxels, or near the block where that is
        smaller. A shard has at most 512³ voxels unless a chunk of the source has more. Chunks divide the shard; their
        edge is at most 128 voxels where possible.
    """
    target = min(block, _COPIED_EDGE)
    sizes = [min(edge, n) for edge, n in zip(edges, shape, strict=True)]
    times = [max(1, min(round(target / size), -(-n // size))) for size, n in zip(sizes, shape, strict=True)]
    while math.prod(sizes) * math.prod(times) > _COPIED_VOXELS and max(times) > 1:
        most = times.index(max(times))
        times[most] = -(-times[most] // 2)
    shard = [size * n for size, n in zip(sizes, times, strict=True)]
    chunk = (_dividing_chunk(edge, size) for edge, size in zip(shard, sizes, strict=True))
    return _triple(iter(shard)), _triple(chunk)


def parse_bbox(text: str, shape: Index) -> Box:
    """Parse ``z0:z1,y0:y1,x0:x1`` (half-open, global voxels, open ends allowed).

    Raises
    ------
    InputError
        The text is not of that form, or the box is empty or reaches outside the volume.
    """
    parts = text.split(",")
    matches = [re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", part) for part in parts]
    if len(parts) != 3 or not all(matches):
        raise InputError(
            f"box {text!r}: expected z0:z1,y0:y1,x0:x1 in whole voxels", hint="write it such as --bbox 0:64,10:74,:"
        )
    ends = [(m[1], m[2]) for m in matches if m]
    start = _triple(int(a or 0) for a, _ in ends)
    stop = _triple(int(b) if b else s for (_, b), s in zip(ends, shape, strict=True))
    for axis, a, b, s in zip(AXES, start, stop, shape, strict=True):
        if not 0 <= a < b <= s:
            raise InputError(
                f"box {text!r}: {axis} {a}:{b} is empty or outside the volume's 0:{s}", hint="choose another --bbox"
            )
    return Box(start, stop)


def _dividing_chunk(shard: int, source: int) -> int:
    """Return a shard edge's largest divisor up to 128 voxels, or the source's chunk where that would be tiny."""
    divisor = next(edge for edge in range(min(shard, _LARGEST_CHUNK), 0, -1) if shard % edge == 0)
    return divisor if divisor >= min(_SMALLEST_CHUNK, shard) else source


@lru_cache(maxsize=256)
def _window_starts(shape: int, window: int, step: int, placement: Placement) -> tuple[int, ...]:
    last = shape - window
    if last <= 0:
        return (-(-last // 2),)
    steps = -(-last // step)
    if placement == "even":
        return tuple(round(last / steps * n) for n in range(steps + 1))  # in floats as nnU-Net does, for equal halves
    return tuple(min(n * step, last) for n in range(steps + 1))


def _morton(index: Index) -> int:
    code = 0
    for bit in range(max(index).bit_length()):
        for axis, i in enumerate(index):
            code |= (i >> bit & 1) << (3 * bit + 2 - axis)
    return code


def _triple(values: Iterator[int]) -> Index:
    z, y, x = values
    return z, y, x
