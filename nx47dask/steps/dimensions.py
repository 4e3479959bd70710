"""Values that a search tries for one parameter: a range of numbers, or a list of values.

Either can be an annotation of a parameter of a step, where it is the usual search range::

    sigma_vox: Annotated[float, Field(gt=0, le=8), Range(1, 6, 0.5)] = 3.0
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["DIGITS", "Choices", "Dimension", "Range"]

DIGITS = 10
"""Decimals that a value of a range is rounded to, so that 0.7 + 2 * 0.01 is 0.72."""


@dataclass(frozen=True)
class Range:
    """Range of numbers from ``low`` to ``high``, both included.

    Parameters
    ----------
    low, high : float
        Ends of the range; ``low`` is below ``high``.
    step : float, optional
        Distance of neighbouring values, from ``low`` on. By default every value between the ends is possible.
    log : bool
        Spread values evenly on a logarithmic scale; excludes a step.
    integer : bool
        Take whole numbers only.
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
        """Return the value at a share of the range in [0, 1]; evenly spread shares give evenly frequent values."""
        if self.size is not None:
            return self._step(min(int(share * self.size), self.size - 1))
        if self.log:
            return self._value(math.exp(math.log(self.low) + share * math.log(self.high / self.low)))
        return self._value(self.low + share * (self.high - self.low))

    def including(self, value: Any) -> Range:
        """Return the range itself: a value outside it is not searched."""
        del value
        return self

    def nearest(self, value: Any) -> Any:
        """Return the value of the range that is nearest to a number; the middle for anything else."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.at(0.5)
        inside = min(max(value, self.low), self.high)
        if self.size is None or self.step is None:
            return self._value(inside)
        return self._step(min(round((inside - self.low) / self.step), self.size - 1))

    def code(self, value: Any) -> float:
        """Return a number for a value, on the scale on which the range is even."""
        number = float(self.nearest(value))
        return math.log(number) if self.log else number

    def _step(self, number: int) -> Any:
        return self._value(self.low + number * (self.step or 0))

    def _value(self, number: float) -> Any:
        return round(number) if self.integer else round(float(number), DIGITS)


@dataclass(frozen=True)
class Choices:
    """List of JSON values to choose from, in a fixed order."""

    values: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.values)

    def at(self, share: float) -> Any:
        """Return the value at a share in [0, 1] of the list."""
        return self.values[min(int(share * self.size), self.size - 1)]

    def including(self, value: Any) -> Choices:
        """Return the choices with a value at their end, if it is not among them."""
        value = list(value) if isinstance(value, tuple) else value
        return self if value in self.values else Choices((*self.values, value))

    def nearest(self, value: Any) -> Any:
        """Return the value itself if it is listed, else the choice with the nearest numbers, else the first choice."""
        if value in self.values:
            return value
        distances = [_distance(value, choice) for choice in self.values]
        return self.values[distances.index(min(distances))]

    def code(self, value: Any) -> float:
        """Return the index in the list of the nearest value."""
        return float(self.values.index(self.nearest(value)))


Dimension = Range | Choices


def _distance(value: Any, other: Any) -> float:
    """Sum the absolute differences of two numbers or of two lists of equal length; infinite for anything else."""
    try:
        a, b = (np.atleast_1d(np.asarray(numbers, dtype=np.float64)) for numbers in (value, other))
    except (TypeError, ValueError):
        return math.inf
    distance = float(np.abs(a - b).sum()) if a.shape == b.shape else math.inf
    return math.inf if math.isnan(distance) else distance
