"""Overlap of two masks, slice by slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["joint_counts", "overlap"]


def joint_counts(first: NDArray[np.generic], second: NDArray[np.generic]) -> NDArray[np.int64]:
    """Count the voxels of two masks and of their intersection, per slice.

    Parameters
    ----------
    first, second : ndarray of bool or integer, shape (Z, Y, X)
        Foreground is any value but 0.

    Returns
    -------
    ndarray of int64, shape (3, Z)
        Per slice: number of voxels of the first mask, of the second, of both.
    """
    a, b = first != 0, second != 0
    return np.stack([np.count_nonzero(mask, axis=(1, 2)) for mask in (a, b, a & b)]).astype(np.int64)


def overlap(first_vox: int, second_vox: int, common_vox: int) -> tuple[float, float]:
    """Return Dice coefficient and IoU (Jaccard index) of two masks, in [0, 1]; 1 when both are empty."""
    together = first_vox + second_vox
    if together == 0:
        return 1.0, 1.0
    return 2 * common_vox / together, common_vox / (together - common_vox)
