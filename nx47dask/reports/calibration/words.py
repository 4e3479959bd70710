"""Write values of a calibration as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from nx47dask.reports.calibration.document import CalibrationRecord
from nx47dask.words import signed

__all__ = ["NOTHING", "average", "baseline_name", "by_size", "cell", "change", "known", "setting"]

NOTHING = "Not measured in this calibration."


def average(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values; None if there is none."""
    numbers = known(values)
    return fmean(numbers) if numbers else None


def cell(amount: float | None) -> str:
    """Return a value with four digits as text; empty for None."""
    return "" if amount is None else f"{amount:.4f}"


def change(amount: float | None) -> str:
    """Return a difference with its sign as text; empty for None."""
    return "" if amount is None else signed("score", amount)


def known(values: Iterable[float | None]) -> list[float]:
    """Return the values that are not None."""
    return [value for value in values if value is not None]


def by_size(shares: Mapping[str, float]) -> list[str]:
    """Return names in the order of their values, the largest first."""
    return sorted(shares, key=lambda name: -shares[name])


def setting(value: Any) -> str:
    """Return a value of a key in the form of ``--set``."""
    return value if isinstance(value, str) else json.dumps(value)


def baseline_name(calibration: CalibrationRecord) -> str:
    """Return the name of the baseline on the page."""
    return str(((calibration.get("workflows") or {}).get("baseline") or {}).get("name", "the baseline"))
