"""Values of a calibration in words."""

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
    """Mean of what is known; None where nothing is."""
    found = known(values)
    return fmean(found) if found else None


def cell(amount: float | None) -> str:
    """A value with four digits; empty where it is not known."""
    return "" if amount is None else f"{amount:.4f}"


def change(amount: float | None) -> str:
    """A difference with its sign; empty where it is not known."""
    return "" if amount is None else signed("score", amount)


def known(values: Iterable[float | None]) -> list[float]:
    """Those that are not None."""
    return [value for value in values if value is not None]


def by_size(shares: Mapping[str, float]) -> list[str]:
    """Names, the largest first."""
    return sorted(shares, key=lambda name: -shares[name])


def setting(value: Any) -> str:
    """A value of a key as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def baseline_name(calibration: CalibrationRecord) -> str:
    """What the page calls the baseline."""
    return str(((calibration.get("workflows") or {}).get("baseline") or {}).get("name", "the baseline"))
