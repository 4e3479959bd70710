"""Time limit of a run, which stops the start of new tasks early enough to close in time."""

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
    """Return the seconds of ``8h30m``, ``30m``, ``90s``, ``1h5m10s`` or a plain number of seconds.

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
    """Observer of a run that tells when its time is over.

    A running task cannot be called back. So the time of the longest task so far is kept in reserve, together with the
    time that closing takes.

    Parameters
    ----------
    limit_s : float
        Seconds from now in which the run must end; infinity for no limit.
    closing_s : float
        Seconds that closing takes when no more tasks run.
    clock : callable
        Function that returns the time in seconds, from a clock that never goes back.

    Attributes
    ----------
    limited : bool
        True if there is a limit.
    """

    def __init__(self, limit_s: float, closing_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limited = math.isfinite(limit_s)
        self._clock = clock
        self._end_s = clock() + limit_s - closing_s
        self._longest_s = 0.0

    def over(self) -> bool:
        """Return True if a task that starts now could end too late."""
        return self._clock() + self._longest_s >= self._end_s

    def task_finished(self, volume: str, record: Record, voxels: int, resumed: bool) -> None:
        self._longest_s = max(self._longest_s, record["seconds"])
