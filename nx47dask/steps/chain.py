"""A chain of local steps on one block, and what each of them changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box
from nx47dask.steps.base import Binarise, LocalStep

__all__ = ["Changes", "apply_chain"]

Changes = dict[str, list[int]]
"""Voxels that a step added and removed."""


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
        With their names.
    data : ndarray of uint8 or uint16, shape (Z, Y, X)
        Probability or mask of a block with the context that the steps need.
    image : ndarray of uint8 or uint16, shape (Z, Y, X), optional
        The scan there, where a step reads it.
    levels : ndarray of int64, shape (1 or Z, thresholds), optional
        What thresholds that are quantiles have become.
    core : Box
        The part of ``data`` whose result is wanted.

    Returns
    -------
    result : ndarray
        The shape of ``data``; exact in the core.
    changes : dict
        Of thresholds and of steps on masks, in the core.
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
