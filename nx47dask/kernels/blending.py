"""Weighted mean of overlapping windows in fixed point: integer sums do not depend on the order of windows.

Weights have 29 binary digits and values 22, so a sum in 64 bits is exact for 4095 windows over one voxel. Fewer digits
are visible in the result, because near the faces of a volume every weight is small. With weights of 10 digits, up to
9 % of the voxels of a widely spread prediction differ from a mean in floating point by more than 1/255, some by 20/255.
Along the edges of a volume, nnU-Net's weights fall to 2**-27 of the peak.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Index, Placement
from nx47dask.kernels.compiled import compiled

__all__ = ["MOST_OVERLAPS", "Blend", "Values", "accumulate", "add_weights", "finish", "sigmoid", "window_weights"]

Blend = Literal["gaussian", "constant"]
Values = Literal["probability", "logit"]

MOST_OVERLAPS = 4095
"""Largest number of windows, with all test-time variants, over a voxel for which a sum cannot overflow 64 bits."""

WEIGHT_SCALE = 1 << 29
VALUE_SCALE: dict[Values, int] = {"probability": 1 << 20, "logit": 1 << 16}
LOGIT_LIMIT = 64.0
"""Limit of logits on both sides; the sigmoid is 0 or 1 long before it."""
RECIPROCALS = tuple(1 / n for n in range(12, 0, -1))


@lru_cache(maxsize=4)
def window_weights(window: Index, blend: Blend, placement: Placement) -> NDArray[np.int32]:
    """Return the weight of each voxel of a window.

    The Gaussian has a sigma of an eighth of the window; its details follow the same project as the placement.
    ``flush`` (MONAI's ``compute_importance_map``): the centre of an even window is between voxels, and weights are at
    least 0.001. ``even`` (nnU-Net's ``compute_gaussian``): the centre is voxel ``window // 2``, and weights are at
    least the last binary digit.

    Parameters
    ----------
    window : tuple of int
        Shape in voxels.
    blend : {"gaussian", "constant"}
        ``constant`` gives all voxels the same weight.
    placement : {"flush", "even"}
        Placement of the lattice of windows.

    Returns
    -------
    ndarray of int32, shape of the window
        From 1 to 2**29, which stands for a weight of 1; read-only and cached.
    """
    if blend == "constant":
        weights = np.full(window, WEIGHT_SCALE, np.int32)
    else:
        centres = [(n - 1) / 2 if placement == "flush" else n // 2 for n in window]
        axes = [
            np.exp(-0.5 * ((np.arange(n) - centre) / (n / 8)) ** 2) for n, centre in zip(window, centres, strict=True)
        ]
        peak = axes[0][:, None, None] * axes[1][:, None] * axes[2]
        if placement == "flush":
            np.maximum(peak, 1e-3, out=peak)
        weights = np.maximum(np.rint(peak * WEIGHT_SCALE), 1).astype(np.int32)
    weights.flags.writeable = False
    return weights


def accumulate(
    sums: NDArray[np.int64],
    at: Index,
    values: NDArray[np.float32],
    weights: NDArray[np.int32],
    begin: Index,
    shape: Index,
    kind: Values,
) -> None:
    """Add ``weight * value`` of a part of a window to the sums.

    Parameters
    ----------
    sums : ndarray of int64, shape (Z, Y, X)
        Sums, changed in place; C-contiguous.
    at, begin, shape : tuple of int
        First voxel of the part in the sums, first voxel in the window, and shape of the part.
    values : ndarray of float32, shape of the window
        Finite values. Probabilities are clipped to [0, 1] and cut to 20 binary digits after the point; logits are
        clipped to [-64, 64] and cut to 16 digits.
    weights : ndarray of int32, shape of the window
        Weights from `window_weights`.
    kind : {"probability", "logit"}
        Kind of the values.
    """
    low, high = (0.0, 1.0) if kind == "probability" else (-LOGIT_LIMIT, LOGIT_LIMIT)
    limits = np.float32(low), np.float32(high), np.float32(VALUE_SCALE[kind])
    _accumulate(sums, at, np.ascontiguousarray(values), weights, begin, shape, *limits)


@compiled
def _accumulate(
    sums: NDArray[np.int64],
    at: Index,
    values: NDArray[np.float32],
    weights: NDArray[np.int32],
    begin: Index,
    shape: Index,
    low: np.float32,
    high: np.float32,
    scale: np.float32,
) -> None:
    for z in range(shape[0]):
        for y in range(shape[1]):
            line = sums[at[0] + z, at[1] + y, at[2] : at[2] + shape[2]]
            value = values[begin[0] + z, begin[1] + y, begin[2] : begin[2] + shape[2]]
            weight = weights[begin[0] + z, begin[1] + y, begin[2] : begin[2] + shape[2]]
            for x in range(len(line)):
                line[x] += np.int64(np.int32(min(max(value[x], low), high) * scale)) * np.int64(weight[x])


@compiled
def add_weights(totals: NDArray[np.int64], at: Index, weights: NDArray[np.int32], begin: Index, shape: Index) -> None:
    """Add only the weights of a part of a window to ``totals``, in place; arguments as for `accumulate`."""
    for z in range(shape[0]):
        for y in range(shape[1]):
            line = totals[at[0] + z, at[1] + y, at[2] : at[2] + shape[2]]
            weight = weights[begin[0] + z, begin[1] + y, begin[2] : begin[2] + shape[2]]
            for x in range(len(line)):
                line[x] += weight[x]


def finish(sums: NDArray[np.int64], totals: NDArray[np.int64], times: int, kind: Values) -> NDArray[np.float32]:
    """Compute probabilities from the sums: divide in float64, apply the sigmoid to logits, round to float32.

    Parameters
    ----------
    sums : ndarray of int64, shape (Z, Y, X)
        Sums from `accumulate`.
    totals : ndarray of int64, same shape
        Sums from `add_weights`, each window once; positive.
    times : int
        Number of times that every window was accumulated (test-time variants).
    kind : {"probability", "logit"}
        Kind of the accumulated values.

    Returns
    -------
    ndarray of float32, same shape, in [0, 1]
    """
    result = np.empty(sums.shape, np.float32)
    unit = float(times * VALUE_SCALE[kind])
    _finish(np.ascontiguousarray(sums).reshape(-1), totals.reshape(-1), unit, kind == "logit", result.reshape(-1))
    return result


@compiled
def _finish(
    sums: NDArray[np.int64], totals: NDArray[np.int64], unit: float, logit: bool, result: NDArray[np.float32]
) -> None:
    for n in range(len(sums)):
        mean = np.divide(np.float64(sums[n]), np.float64(totals[n]) * unit)
        result[n] = sigmoid(mean) if logit else mean


@compiled
def sigmoid(logit: float) -> float:
    """Compute ``1 / (1 + exp(-logit))`` to 9 digits or more.

    The exponential is a Taylor series at a 128th of the exponent, followed by seven squarings. The exponential of a
    maths library may differ in the last digit between its scalar and its vector form, that is, with the length of a
    row.
    """
    part = min(max(logit, -LOGIT_LIMIT), LOGIT_LIMIT) / -128.0
    power = 1.0
    for factor in RECIPROCALS:
        power = 1.0 + power * part * factor
    for _ in range(7):
        power *= power
    quotient: float = np.divide(1.0, 1.0 + power)
    return quotient
