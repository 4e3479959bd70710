"""Text for numbers, measures and lists, the same in every report."""

from __future__ import annotations

from typing import TypedDict

__all__ = [
    "PAIRED_HEAD",
    "Paired",
    "duration",
    "few_volumes",
    "in_brackets",
    "interval",
    "mebibytes",
    "number",
    "over",
    "paired_cells",
    "percent",
    "plural",
    "signed",
    "size",
    "value",
]

PAIRED_HEAD = ("95 % interval", "higher", "lower", "equal", "p")
"""Column titles of a paired difference."""
ENOUGH_VOLUMES = 6
"""Smallest number of volumes with which the sign test can reach p < 0.05."""


def number(value: float) -> str:
    """Write 12345 as ``12,345``, and a fraction with two digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def percent(share: float) -> str:
    """Write 0.1187 as ``11.9 %``; a small share gets more digits, so that it does not look like zero."""
    if share == 0:
        return "0 %"
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 volume``, ``1,200 volumes``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """Write seconds as ``40 ms``, ``0.4 s``, ``34 s``, ``12 min 5 s`` or ``3 h 20 min``."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def mebibytes(size_bytes: float) -> str:
    """Write bytes in MiB."""
    return f"{size_bytes / 2**20:,.0f} MiB"


def size(size_bytes: float) -> str:
    """Write bytes as ``640 MiB``, ``5.2 GiB`` or ``1.3 TiB``."""
    for unit in ("MiB", "GiB"):
        size_bytes /= 1024 if unit == "GiB" else 2**20
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "MiB" else f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1024:,.1f} TiB"


def value(name: str, amount: float) -> str:
    """Write the mean of a measure: a count, or a share with four digits, as gates have."""
    if name == "clean_volumes":
        return f"{amount:.0f}"
    return number(float(amount)) if name == "components" else f"{amount:.4f}"


def signed(name: str, difference: float) -> str:
    """Write a difference with its sign and the digits of :func:`value`; a tiny share gets more digits."""
    if difference == 0:
        return "0"
    if name == "clean_volumes":
        return f"{difference:+.0f}"
    if name == "components":
        return f"{difference:+,.2f}"
    return f"{difference:+.4f}" if abs(difference) >= 0.0001 else f"{difference:+.1e}"


class Paired(TypedDict):
    """A paired difference as JSON values; see :class:`~nx47dask.metrics.paired.PairedDifference`."""

    mean: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    p: float


def interval(name: str, paired: Paired) -> str:
    """Write an interval as ``-0.0010 to +0.0120``; the text is empty for a single volume, which has no interval."""
    if _volumes(paired) < 2:
        return ""
    return f"{signed(name, paired['low'])} to {signed(name, paired['high'])}"


def in_brackets(name: str, paired: Paired) -> str:
    """Write an interval for a sentence: `` (95 % interval -0.0010 to +0.0120 over 8 volumes)``."""
    text = interval(name, paired)
    return f" ({f'95 % interval {text} ' if text else ''}{over(paired)})"


def over(paired: Paired) -> str:
    """Write the number of volumes as ``over 8 volumes``."""
    return f"over {plural(_volumes(paired), 'volume')}"


def few_volumes(count: int) -> list[str]:
    """Return the warnings on intervals over this many volumes; none where there are enough."""
    if not 0 < count < ENOUGH_VOLUMES:
        return []
    if count == 1:
        return ["There is one volume only: the intervals are its differences, and say nothing of other volumes."]
    note = (
        f"There are {count} volumes only: a 95 % interval over so few is hardly more than the range of their "
        f"differences, and the sign test cannot reach p < 0.05 with fewer than {ENOUGH_VOLUMES}."
    )
    return [note]


def paired_cells(name: str, paired: Paired | None) -> list[str]:
    """Return the cells under ``PAIRED_HEAD``; they are empty where nothing is paired."""
    if paired is None:
        return [""] * len(PAIRED_HEAD)
    counts = (paired["wins"], paired["losses"], paired["ties"])
    return [interval(name, paired), *map(number, counts), f"{paired['p']:.3g}"]


def _volumes(paired: Paired) -> int:
    return paired["wins"] + paired["losses"] + paired["ties"]
