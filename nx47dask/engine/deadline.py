"""A time limit: when a run has to stop starting tasks so that it can close in time."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

from nx47dask.engine.events import Observer
from nx47dask.engine.ledger import Record
from nx47dask.errors import InputError

__all__ = ["Deadline", "parse_duration"]

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+(?:\.\d*)?)s)?")


def parse_duration(text: str) -> float:
    """Seconds of ``8h30m``, ``30m``, ``90s``, ``1h5m10s`` or a plain number of seconds.

    Raises
    ------
    InputError
        The text is none of these.
    """
    given = text.strip()
    match = _DURATION.fullmatch(given + "s" if given.replace(".", "", 1).isdecimal() else given)
    parts = {unit: float(value) for unit, value in (match.groupdict() if match else {}).items() if value}
    seconds = sum(value * _UNITS_S[unit] for unit, value in parts.items())
    if seconds <= 0:
        raise InputError(f"time limit {text!r}: expected hours, minutes and seconds such as 8h30m, 45m, 90s or 90")
    return seconds


class Deadline(Observer):
    """An observer of a run that knows when its time is over.

    A task that is under way cannot be called back, so the longest one seen so far is kept in reserve, beside the time
    that closing takes.

    Parameters
    ----------
    limit_s : float
        Seconds from now in which the run must have ended.
    closing_s : float
        Seconds that are needed when no more tasks run.
    clock : callable
        The time in seconds, on a clock that only goes forward.

    Attributes
    ----------
    limited : bool
        Whether there is a limit at all; infinity is none.
    """

    def __init__(self, limit_s: float, closing_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limited = math.isfinite(limit_s)
        self._clock = clock
        self._end_s = clock() + limit_s - closing_s
        self._longest_s = 0.0

    def over(self) -> bool:
        """Whether a task that starts now could end too late."""
        return self._clock() + self._longest_s >= self._end_s

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        self._longest_s = max(self._longest_s, record["seconds"])
