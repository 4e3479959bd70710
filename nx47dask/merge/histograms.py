"""Thresholds of a whole volume from the histograms of its blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["quantile_levels"]


def quantile_levels(histograms: NDArray[np.int64], quantiles: tuple[float, ...]) -> NDArray[np.int64]:
    """Return the level above each quantile of uint8 or uint16 values.

    Parameters
    ----------
    histograms : ndarray of int64, shape (rows, 256 or 65536)
        A histogram per slice, or a single histogram of the volume.
    quantiles : tuple of float, in [0, 1]

    Returns
    -------
    ndarray of int64, shape (rows, quantiles), values from 1 to 256 or 65536
        At most a share of ``1 - q`` of the voxels has this value or a higher one (the quantile is numpy's
        ``inverted_cdf``).
    """
    cumulated = np.cumsum(histograms, axis=1)
    total = cumulated[:, -1]
    columns = [np.argmax(cumulated >= np.maximum(np.ceil(q * total), 1)[:, None], axis=1) + 1 for q in quantiles]
    return np.stack(columns, axis=1).astype(np.int64)
