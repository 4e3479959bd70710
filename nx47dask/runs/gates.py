"""Check regression gates: limits on the loss of a candidate against its baseline."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypedDict

from nx47dask.errors import GateError, InputError
from nx47dask.metrics.paired import ROUNDING_ERROR
from nx47dask.runs.measures import MASK_NAMES, NAMES, SCORE_NAMES, mean_measures, shared_measures
from nx47dask.runs.run import Run

__all__ = [
    "Gate",
    "GateRecord",
    "GateResult",
    "check_gates",
    "check_run",
    "gates_first",
    "parse_gates",
    "require_passed",
]


@dataclass(frozen=True)
class Gate:
    """A limit on the difference, candidate - baseline, of a mean.

    Attributes
    ----------
    name : str
        One of :data:`nx47dask.runs.measures.NAMES`.
    relation : ">=" or "<="
    limit : float
        Smallest or largest difference that passes; a difference within 1e-12 of it passes too.
    """

    name: str
    relation: Literal[">=", "<="]
    limit: float

    def __str__(self) -> str:
        short = f"{self.limit:g}"
        return f"{self.name}{self.relation}{short if float(short) == self.limit else repr(self.limit)}"


class GateRecord(TypedDict):
    """A gate that was checked, as JSON values.

    Attributes
    ----------
    gate : str
        In words, such as ``score>=0``.
    name : str
        Of the mean.
    baseline, candidate, difference : float
        Both means, and candidate - baseline.
    passed : bool
    """

    gate: str
    name: str
    baseline: float
    candidate: float
    difference: float
    passed: bool


@dataclass(frozen=True)
class GateResult:
    """A gate and the two means on which it was checked."""

    gate: Gate
    baseline: float
    candidate: float

    @property
    def difference(self) -> float:
        """Candidate - baseline."""
        return self.candidate - self.baseline

    @property
    def passed(self) -> bool:
        """True when the difference keeps the limit."""
        if self.gate.relation == ">=":
            return self.difference >= self.gate.limit - ROUNDING_ERROR
        return self.difference <= self.gate.limit + ROUNDING_ERROR

    @classmethod
    def of(cls, record: GateRecord) -> GateResult:
        """Make a result from the JSON values of :meth:`as_dict`."""
        (gate,) = parse_gates(record["gate"])
        return cls(gate, record["baseline"], record["candidate"])

    def as_dict(self) -> GateRecord:
        """Return the gate in words, its name, both means, the difference and the verdict as JSON values."""
        return {
            "gate": str(self.gate),
            "name": self.gate.name,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "difference": self.difference,
            "passed": self.passed,
        }

    def __str__(self) -> str:
        return (
            f"{self.gate} {'passed' if self.passed else 'failed'}: {self.gate.name} {self.baseline:.6g} -> "
            f"{self.candidate:.6g}, difference {self.difference:+.6g}"
        )


def parse_gates(text: str, *, scored: bool = True) -> list[Gate]:
    """Read ``score>=0,recall>=-0.01``.

    Parameters
    ----------
    text : str
        ``NAME>=VALUE`` or ``NAME<=VALUE``, comma separated.
    scored : bool
        Both runs have scores; without scores only density and components can be gated.

    Raises
    ------
    InputError
        A gate cannot be read, names an unknown measure, or needs scores that are not there.
    """
    return [_parse_gate(part.strip(), text, scored) for part in text.split(",")]


def check_gates(
    gates: Sequence[Gate], baseline: Mapping[str, float], candidate: Mapping[str, float]
) -> list[GateResult]:
    """Check gates on the means of two runs.

    Parameters
    ----------
    gates : sequence of Gate
    baseline, candidate : mapping of str to float
        The means of each run by name.

    Raises
    ------
    InputError
        A gate names a mean that one of the runs does not have.
    """
    for gate in gates:
        if gate.name not in baseline or gate.name not in candidate:
            known = ", ".join(name for name in baseline if name in candidate)
            raise InputError(f"gate {gate}: {gate.name} is not known of both runs; known here: {known}")
    return [GateResult(gate, baseline[gate.name], candidate[gate.name]) for gate in gates]


def check_run(gates: str | None, baseline: Run | None, candidate: Run) -> tuple[list[GateResult], list[str]]:
    """Check the gates of a run against its baseline, on the means over the volumes that both have.

    Parameters
    ----------
    gates : str or None
        As for :func:`parse_gates`.
    baseline : Run or None
        Without gates or a baseline there is nothing to check.
    candidate : Run

    Returns
    -------
    list of GateResult
    list of str
        Notes for the report: the gates of an unfinished run are not checked.

    Raises
    ------
    InputError
        A gate cannot be read, the runs share no volume, or a gate needs scores that one of them does not have.
    """
    if not gates or baseline is None:
        return [], []
    if candidate.unfinished:
        return [], [f"Gates are not checked, since the run is not finished: {gates}."]
    shared = shared_measures(baseline, candidate)
    if not shared:
        raise InputError(
            f"{candidate.path} has the volumes {', '.join(candidate.volumes)}, the baseline {baseline.path} has "
            f"{', '.join(baseline.volumes)}",
            hint="gates need a volume of which both have the same part",
        )
    before, now = (mean_measures(side) for side in zip(*shared.values(), strict=True))
    return check_gates(parse_gates(gates, scored="score" in before), before, now), []


def require_passed(results: Sequence[GateResult]) -> None:
    """Refuse a candidate that fails a gate.

    Raises
    ------
    GateError
        A gate failed; the message names each failed gate with both means and the difference.
    """
    failed = [str(result) for result in results if not result.passed]
    if failed:
        count = "the gate" if len(results) == 1 else f"{len(failed)} of {len(results)} gates"
        raise GateError(f"the candidate fails {count}: {'; '.join(failed)}")


@contextmanager
def gates_first(results: Sequence[GateResult]) -> Iterator[None]:
    """Raise for a failed gate if the work inside fails, so that a page that cannot be drawn hides no failed gate.

    Raises
    ------
    GateError
        As :func:`require_passed`, with the error of the work as its context.
    """
    try:
        yield
    except Exception:
        require_passed(results)
        raise


def _parse_gate(part: str, text: str, scored: bool) -> Gate:
    known = NAMES if scored else MASK_NAMES
    match = re.fullmatch(r"(\w+)\s*(>=|<=)\s*(\S+)", part)
    try:
        limit = float(match[3]) if match else math.nan
    except ValueError:
        limit = math.nan
    if match is None or not math.isfinite(limit):
        raise InputError(
            f"gate {text!r}: cannot read {part!r}; expected NAME>=VALUE or NAME<=VALUE, comma separated",
            hint=f"quote it, such as --gate 'score>=0,recall>=-0.01'; names: {', '.join(known)}",
        )
    if match[1] in known:
        return Gate(match[1], ">=" if match[2] == ">=" else "<=", limit)
    if match[1] in SCORE_NAMES:
        raise InputError(
            f"gate {part}: {match[1]} needs scores of both runs for the same labels",
            hint=f"give --labels, or gate {' or '.join(known)}",
        )
    raise InputError(f"gate {part}: no value {match[1]!r}; known: {', '.join(known)}")
