"""Boxes, block grids and halos: integers only, no arrays.

Every coordinate is in voxels and in the order Z, Y, X; every interval is half-open.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from nx47dask.errors import InputError

__all__ = ["AXES", "Block", "BlockGrid", "Box", "Index", "add_radii", "parse_bbox", "storage_chunk"]

Index = tuple[int, int, int]
AXES = "zyx"

_LARGEST_CHUNK = 128
_SMALLEST_CHUNK = 32


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
        """The box of a whole volume of this shape."""
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
        """The voxel in the middle."""
        return _triple((a + b) // 2 for a, b in zip(self.start, self.stop, strict=True))

    def contains(self, voxel: Index) -> bool:
        """Whether a voxel lies inside."""
        return all(a <= v < b for a, v, b in zip(self.start, voxel, self.stop, strict=True))

    def expand(self, radius_zyx: Index) -> Box:
        """Grow by a radius on both sides of each axis, without clipping."""
        return Box(
            _triple(a - r for a, r in zip(self.start, radius_zyx, strict=True)),
            _triple(b + r for b, r in zip(self.stop, radius_zyx, strict=True)),
        )

    def clip(self, to: Box) -> Box:
        """The part of this box that lies inside another."""
        start = _triple(map(max, self.start, to.start))
        return Box(start, _triple(map(max, start, map(min, self.stop, to.stop))))

    def shift(self, by: Index) -> Box:
        """Move by an offset."""
        return Box(
            _triple(a + d for a, d in zip(self.start, by, strict=True)),
            _triple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def relative_to(self, origin: Index) -> Box:
        """The same box in coordinates that start at ``origin``."""
        return self.shift(_triple(-o for o in origin))

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
        """The block at a grid index."""
        _, ny, nx = self.counts
        start = _triple(i * b for i, b in zip(index, self.block_shape, strict=True))
        stop = _triple(min(a + b, s) for a, b, s in zip(start, self.block_shape, self.shape, strict=True))
        return Block((index[0] * ny + index[1]) * nx + index[2], index, Box(start, stop))

    def numbered(self, number: int) -> Block:
        """The block of a running number (raster order)."""
        _, ny, nx = self.counts
        return self.block((number // (ny * nx), number // nx % ny, number % nx))

    def __iter__(self) -> Iterator[Block]:
        """All blocks in Morton order, so that blocks close in time are close in space."""
        indices = map(_triple, map(iter, itertools.product(*map(range, self.counts))))
        return (self.block(index) for index in sorted(indices, key=_morton))

    def neighbour(self, block: Block, offset: Index) -> Block | None:
        """The block at an offset of grid steps, or None outside the grid."""
        index = _triple(i + o for i, o in zip(block.index, offset, strict=True))
        inside = all(0 <= i < n for i, n in zip(index, self.counts, strict=True))
        return self.block(index) if inside else None

    def inner_faces(self, block: Block) -> tuple[tuple[bool, bool], ...]:
        """Per axis, whether the low and the high face touch another block."""
        return tuple((i > 0, i < n - 1) for i, n in zip(block.index, self.counts, strict=True))


def add_radii(*radii_zyx: Index) -> Index:
    """The radius of a chain of local operators: radii add."""
    return _triple(sum(axis) for axis in zip((0, 0, 0), *radii_zyx, strict=True))


def storage_chunk(block: int) -> int:
    """Edge of the storage chunk inside a work block: the largest divisor up to 128 voxels.

    Raises
    ------
    InputError
        A block above 128 voxels has no divisor from 32 to 128.
    """
    if block < 1:
        raise InputError(f"--block {block}: a work block has at least 1 voxel along each edge")
    if block <= _LARGEST_CHUNK:
        return block
    for edge in range(_LARGEST_CHUNK, _SMALLEST_CHUNK - 1, -1):
        if block % edge == 0:
            return edge
    nearest = round(block / _SMALLEST_CHUNK) * _SMALLEST_CHUNK
    raise InputError(
        f"--block {block}: storage chunks of {_SMALLEST_CHUNK} to {_LARGEST_CHUNK} voxels must divide a block, "
        f"and none does; {nearest} works"
    )


def parse_bbox(text: str, shape: Index) -> Box:
    """Read ``z0:z1,y0:y1,x0:x1`` (half-open, global voxels, open ends allowed).

    Raises
    ------
    InputError
        The text is not of that form, or the box is empty or reaches outside the volume.
    """
    parts = text.split(",")
    matches = [re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", part) for part in parts]
    if len(parts) != 3 or not all(matches):
        raise InputError(f"--bbox {text!r}: expected z0:z1,y0:y1,x0:x1 in whole voxels, e.g. 0:64,10:74,:")
    ends = [(m[1], m[2]) for m in matches if m]
    start = _triple(int(a or 0) for a, _ in ends)
    stop = _triple(int(b) if b else s for (_, b), s in zip(ends, shape, strict=True))
    for axis, a, b, s in zip(AXES, start, stop, shape, strict=True):
        if not 0 <= a < b <= s:
            raise InputError(f"--bbox {text!r}: {axis} {a}:{b} is empty or outside the volume's 0:{s}")
    return Box(start, stop)


def _morton(index: Index) -> int:
    code = 0
    for bit in range(max(index).bit_length()):
        for axis, i in enumerate(index):
            code |= (i >> bit & 1) << (3 * bit + 2 - axis)
    return code


def _triple(values: Iterator[int]) -> Index:
    z, y, x = values
    return z, y, x
