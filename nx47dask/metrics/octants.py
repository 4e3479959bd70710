"""Octants: the parts of a volume in which the competition counts topological features."""

from __future__ import annotations

from nx47dask.geometry import Block, BlockGrid, Box, Index

__all__ = ["HALO", "TOLERANCE", "octant_context", "octants"]

TOLERANCE = 2
"""Of surface Dice and agreement, in voxels."""
HALO = (16, 16, 16)
"""Voxels around a part that are read with it. Surface elements and what is near them need ``TOLERANCE`` + 1; a defect
is placed in the octant that has its middle, and seen whole if it reaches less than this into another."""


def octants(shape: Index) -> BlockGrid:
    """A volume cut in two along each axis, the first part the larger; an axis of one voxel is one part."""
    depth, height, width = (-(-n // 2) for n in shape)
    return BlockGrid(shape, (depth, height, width))


def octant_context(grid: BlockGrid, octant: Block) -> Box:
    """What is read of a volume to measure an octant: the octant with its halo."""
    return octant.box.expand(HALO).clip(Box.of_shape(grid.shape))
