"""Octants: the parts of a volume in which the competition counts topological features."""

from __future__ import annotations

from nx47dask.geometry import Block, BlockGrid, Box, Index

__all__ = ["HALO", "TOLERANCE", "octant_context", "octants"]

TOLERANCE = 2
"""Tolerance of surface Dice and agreement, in voxels."""
HALO = (16, 16, 16)
"""Voxels to read around an octant. Surface elements need ``TOLERANCE`` + 1. A defect belongs to the octant that holds
its middle, and is seen whole if it reaches less than this into another octant."""


def octants(shape: Index) -> BlockGrid:
    """Cut a volume in two along each axis; the first part is the larger, and an axis of one voxel is not cut."""
    depth, height, width = (-(-n // 2) for n in shape)
    return BlockGrid(shape, (depth, height, width))


def octant_context(grid: BlockGrid, octant: Block) -> Box:
    """Return the box to read for an octant: the octant with its halo, clipped to the volume."""
    return octant.box.expand(HALO).clip(Box.of_shape(grid.shape))
