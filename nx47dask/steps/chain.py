"""Chains of local steps on one block, with the number of voxels that each step changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box
from nx47dask.steps.base import Binarise, LocalStep

__all__ = ["Changes", "apply_chain"]

Changes = dict[str, list[int]]
"""Numbers of voxels added and removed, by name of the step."""


def apply_chain(
    steps: Sequence[tuple[str, LocalStep]],
    data: NDArray[np.unsignedinteger],
    image: NDArray[np.unsignedinteger] | None,
    levels: NDArray[np.int64] | None,
    core: Box,
) -> tuple[NDArray[np.unsignedinteger], Changes]:
    """Apply local steps in order.

    Parameters
    ----------
    steps : sequence of (str, LocalStep)
        Steps with their names.
    data : ndarray of uint8 or uint16, shape (Z, Y, X)
        Probability or mask of a block with the context that the steps need.
    image : ndarray of uint8 or uint16, shape (Z, Y, X), optional
        Scan of the block, for steps that read it.
    levels : ndarray of int64, shape (1 or Z, thresholds), optional
        Stored probabilities in place of thresholds that are quantiles.
    core : Box
        Part of ``data`` whose result is wanted.

    Returns
    -------
    result : ndarray
        Result in the shape of ``data``; exact in the core.
    changes : dict
        Changes by thresholds and by steps on masks, counted in the core.
    """
    changes: Changes = {}
    for name, step in steps:
        if isinstance(step, Binarise):
            data = step.apply(data, levels=levels)
            changes[name] = [int(np.count_nonzero(data[core.slices])), 0]
            continue
        result = step.apply(data, image)
        if step.takes == "mask":
            before, after = data[core.slices] != 0, result[core.slices] != 0
            changes[name] = [int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after))]
        data = result
    return data, changes
