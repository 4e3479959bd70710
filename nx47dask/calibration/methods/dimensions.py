"""What one key of a search space may be: a range of numbers, or a list of values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["DIGITS", "Choices", "Dimension", "Range"]

DIGITS = 10
"""Decimals of a value of a range: 0.7 + 2 * 0.01 is 0.72."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Parameters
    ----------
    low, high : float
        ``low`` is below ``high``.
    step : float, optional
        Distance of neighbouring values, from ``low`` on; by default any value.
    log : bool
        Even on the logarithm; has no step.
    integer : bool
        Whole numbers.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    integer: bool = False

    @property
    def size(self) -> int | None:
        """Number of values; None without a step."""
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    @property
    def values(self) -> tuple[Any, ...]:
        """Every value, rising; none without a step."""
        return tuple(self._step(number) for number in range(self.size or 0))

    def at(self, share: float) -> Any:
        """The value at a share of the range in [0, 1]; evenly spread shares give evenly frequent values."""
        if self.size is not None:
            return self._step(min(int(share * self.size), self.size - 1))
        if self.log:
            return self._value(math.exp(math.log(self.low) + share * math.log(self.high / self.low)))
        return self._value(self.low + share * (self.high - self.low))

    def nearest(self, value: Any) -> Any:
        """The value of the range that is nearest to a number; the middle for anything else."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.at(0.5)
        inside = min(max(value, self.low), self.high)
        if self.size is None or self.step is None:
            return self._value(inside)
        return self._step(min(round((inside - self.low) / self.step), self.size - 1))

    def code(self, value: Any) -> float:
        """A number for a value, on the scale that the range is even on."""
        number = float(self.nearest(value))
        return math.log(number) if self.log else number

    def _step(self, number: int) -> Any:
        return self._value(self.low + number * (self.step or 0))

    def _value(self, number: float) -> Any:
        return round(number) if self.integer else round(float(number), DIGITS)


@dataclass(frozen=True)
class Choices:
    """Values to choose from, JSON values in a fixed order."""

    values: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.values)

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1] of the list."""
        return self.values[min(int(share * self.size), self.size - 1)]

    def nearest(self, value: Any) -> Any:
        """The value itself if it is listed, else the one with the nearest numbers, else the first."""
        if value in self.values:
            return value
        distances = [_distance(value, one) for one in self.values]
        return self.values[distances.index(min(distances))]

    def code(self, value: Any) -> float:
        """Place in the list of the nearest value."""
        return float(self.values.index(self.nearest(value)))


Dimension = Range | Choices


def _distance(value: Any, other: Any) -> float:
    """Sum of the absolute differences of numbers or lists of as many numbers; infinite for anything else."""
    try:
        a, b = (np.atleast_1d(np.asarray(one, dtype=np.float64)) for one in (value, other))
    except (TypeError, ValueError):
        return math.inf
    distance = float(np.abs(a - b).sum()) if a.shape == b.shape else math.inf
    return math.inf if math.isnan(distance) else distance
