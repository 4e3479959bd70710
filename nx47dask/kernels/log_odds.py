"""Log-odds of probabilities and back, with the same bits for an array of any shape."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.blending import sigmoid
from nx47dask.kernels.compiled import compiled

__all__ = ["LARGEST_LOG_ODDS", "from_log_odds", "log_odds"]

LARGEST_LOG_ODDS = 16.0
"""Limit of the log-odds; it is reached about 1e-7 from a probability of 0 or 1, far below a step of uint16."""
LOG_2 = math.log(2)
SQRT_HALF = math.sqrt(0.5)
RECIPROCALS = tuple(1 / n for n in range(21, 0, -2))


def log_odds(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute ``log(p / (1 - p))``, clipped to ±16, of a probability in [0, 1]; float32 of the same shape."""
    result = np.empty(probability.shape, np.float32)
    _log_odds(np.ascontiguousarray(probability).reshape(-1), result.reshape(-1))
    return result


def from_log_odds(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute ``1 / (1 + exp(-x))`` of finite log-odds; float32 of the same shape."""
    result = np.empty(values.shape, np.float32)
    _from_log_odds(np.ascontiguousarray(values).reshape(-1), result.reshape(-1))
    return result


@compiled
def _log(number: float) -> float:
    """Compute the natural logarithm by the series of the inverse hyperbolic tangent; see `sigmoid` for the reason."""
    part, exponent = math.frexp(number)
    if part < SQRT_HALF:
        part, exponent = 2.0 * part, exponent - 1
    ratio = (part - 1.0) / (part + 1.0)
    series = 0.0
    for factor in RECIPROCALS:
        series = series * ratio * ratio + factor
    return exponent * LOG_2 + 2.0 * ratio * series


@compiled
def _log_odds(probability: NDArray[np.float32], result: NDArray[np.float32]) -> None:
    for i in range(probability.size):
        p = np.float64(probability[i])
        if p <= 0.0:
            result[i] = -LARGEST_LOG_ODDS
        elif p >= 1.0:
            result[i] = LARGEST_LOG_ODDS
        else:
            result[i] = min(max(_log(p / (1.0 - p)), -LARGEST_LOG_ODDS), LARGEST_LOG_ODDS)


@compiled
def _from_log_odds(values: NDArray[np.float32], result: NDArray[np.float32]) -> None:
    for i in range(values.size):
        result[i] = sigmoid(np.float64(values[i]))
