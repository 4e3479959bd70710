"""What a report says, found out once: the page and the Markdown file both draw it."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nx47dask.baselines import read_external
from nx47dask.errors import InputError
from nx47dask.gates import MASK_NAMES, GateResult, check_gates, parse_gates
from nx47dask.geometry import Box, parse_bbox
from nx47dask.metrics.paired import PairedDifference, as_dict, paired_difference
from nx47dask.report.compare_tables import NAMES, interval, signed, value
from nx47dask.report.markup import duration, mebibytes, number, percent, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nx47dask.results import Run

__all__ = ["Facts", "Measure", "VolumeFacts", "checked_gates", "gather", "measure_cells"]

USUAL_DENSITY = (0.01, 0.30)
"""Shares of a scroll volume that its surfaces take; a mask outside them deserves a look."""
TERMS = ("score", "topo", "surface_dice", "voi")
CLEAN = "clean_volumes"


@dataclass(frozen=True)
class Measure:
    """A mean of the run, beside the baseline's.

    Attributes
    ----------
    name : str
        As gates name it, or ``public`` and ``private`` for scores that somebody else measured.
    run, baseline : float or None
        Over the volumes that both have; a sum for ``clean_volumes``.
    paired : PairedDifference or None
        None without a baseline, and where there are no values by volume.
    """

    name: str
    run: float | None
    baseline: float | None = None
    paired: PairedDifference | None = None

    @property
    def title(self) -> str:
        return NAMES.get(self.name, f"{self.name} score, recorded")

    def value(self, amount: float | None) -> str:
        return "" if amount is None else value(self.name, amount)


@dataclass(frozen=True)
class VolumeFacts:
    """One volume: what the metrics say of it, and of the baseline's mask of it where there is one."""

    id: str
    box: Box
    metrics: Mapping[str, Any]
    slices: Sequence[Mapping[str, Any]]
    baseline: Mapping[str, Any] | None
    baseline_slices: Sequence[Mapping[str, Any]]
    scores_compare: bool

    @property
    def mask(self) -> Mapping[str, Any]:
        mask: Mapping[str, Any] = self.metrics["mask"]
        return mask

    @property
    def score(self) -> Mapping[str, Any] | None:
        return self.metrics.get("score")

    @cached_property
    def values(self) -> dict[str, float]:
        """Measures of this volume by name."""
        return _values(self.metrics)

    @cached_property
    def baseline_values(self) -> dict[str, float]:
        """Measures of the baseline's mask by name; empty without one, without scores where labels differ."""
        return _values(self.baseline, scored=self.scores_compare) if self.baseline else {}

    def column(self, key: str) -> list[Any]:
        """A column of ``metrics/slices.csv``."""
        return [row[key] for row in self.slices]

    def baseline_column(self, key: str) -> list[Any]:
        """The baseline's values at the same z, None where it has none; empty without a baseline."""
        found = {row["z"]: row[key] for row in self.baseline_slices}
        return [found.get(row["z"]) for row in self.slices] if found else []


@dataclass(frozen=True)
class Facts:
    """What a report says.

    Attributes
    ----------
    verdict : str
        The outcome in a sentence or two.
    about : list of str
        Sentences that go with it.
    gates : list of GateResult
    warnings : list of str
        What deserves a look before the masks are used.
    measures : list of Measure
        Empty where there is nothing beyond density and components, and no baseline.
    compared : list of str
        Ids of the volumes that the measures cover.
    volumes : list of VolumeFacts
    """

    run: Run
    baseline: Run | None
    verdict: str
    about: list[str]
    gates: list[GateResult]
    warnings: list[str]
    measures: list[Measure]
    compared: list[str]
    volumes: list[VolumeFacts]

    @property
    def name(self) -> str:
        return self.run.path.resolve().name

    @property
    def baseline_name(self) -> str:
        return self.baseline.path.resolve().name if self.baseline else ""

    @property
    def caption(self) -> str:
        """What the measures are of."""
        over = f"Over {plural(len(self.compared), 'volume')}"
        if not self.baseline:
            return f"{over}."
        bootstrap = ", with a 95 % interval from a bootstrap of the volumes" if len(self.compared) > 1 else ""
        return (
            f"{over}. Differences are this run - {self.baseline_name}{bootstrap}; higher, lower and equal count "
            "volumes by this run's value; p is that of the sign test."
        )


def gather(run: Run, baseline: Run | None, gates: Sequence[GateResult]) -> Facts:
    """Find out what the report of a finished run says.

    Raises
    ------
    InputError
        External scores that were recorded are damaged.
    """
    volumes = _volumes(run, baseline)
    compared = [volume for volume in volumes if baseline is None or volume.baseline]
    measures = [*_measures(compared, baseline is not None), *_external(run, baseline)]
    if baseline is None and all(measure.name in MASK_NAMES for measure in measures):
        measures = []  # the verdict and the table of volumes say the same
    ended = datetime.fromtimestamp(run.manifest["ended_s"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    notes = [read_external(one.path).get("note") for one in (run, baseline) if one]
    verdict = _verdict(run, baseline, measures)
    about = [
        *([_outcome(run)] if verdict else []),
        f"Workflow {run.manifest['workflow']['name']}, nx47dask {run.manifest['nx47dask']}, ended {ended}.",
        *(f"Recorded with the external scores: {note}." for note in notes if note),
    ]
    return Facts(
        run=run,
        baseline=baseline,
        verdict=" ".join([verdict or _outcome(run), *_gate_verdict(gates)]),
        about=about,
        gates=list(gates),
        warnings=[*_warnings(run), *_comparison_warnings(run, baseline, compared)],
        measures=measures,
        compared=[volume.id for volume in compared],
        volumes=volumes,
    )


def checked_gates(run: Run, baseline: Run, gates: str) -> list[GateResult]:
    """Check gates such as ``score>=0,recall>=-0.01`` on a run against a baseline.

    Raises
    ------
    InputError
        A gate cannot be read, the runs share no volume, or a gate needs scores that one of them does not have.
    """
    compared = [volume for volume in _volumes(run, baseline) if volume.baseline]
    if not compared:
        raise InputError(
            f"{run.path} has the volumes {', '.join(run.volumes)}, the baseline {baseline.path} has "
            f"{', '.join(baseline.volumes)}; gates need a volume that both have"
        )
    means = [measure for measure in _measures(compared, True) if measure.baseline is not None]
    before = {measure.name: measure.baseline for measure in means if measure.baseline is not None}
    now = {measure.name: measure.run for measure in means if measure.run is not None}
    return check_gates(parse_gates(gates, scored="score" in before), before, now)


def measure_cells(measure: Measure) -> tuple[str, ...]:
    """Baseline, difference, interval, higher, lower, equal and p of a measure as text."""
    now, before = measure.run, measure.baseline
    difference = "" if now is None or before is None else signed(name=measure.name, difference=now - before)
    paired = measure.paired
    if paired is None:
        return (measure.value(measure.baseline), difference, "", "", "", "", "")
    counts = (paired.wins, paired.losses, paired.ties)
    spread = interval(name=measure.name, paired=as_dict(paired)) if sum(counts) > 1 else ""
    return (measure.value(measure.baseline), difference, spread, *map(number, counts), f"{paired.p:.2g}")


def _values(metrics: Mapping[str, Any], *, scored: bool = True) -> dict[str, float]:
    """Measures of one volume by the names that gates use."""
    found: dict[str, Any] = {}
    score = metrics.get("score")
    if score and scored:
        found |= {name: score[name] for name in TERMS}
        for tolerance, suffix in (("0", ""), ("2", "_2")):
            found |= {f"{key}{suffix}": score["agreement"][tolerance][key] for key in ("precision", "recall", "dice")}
        found[CLEAN] = float(all(score["defects"][kind]["count"] == 0 for kind in ("holes", "bridges")))
    found |= {"density": metrics["mask"]["density"], "components": metrics["mask"]["components_26"]}
    return {name: float(one) for name, one in found.items() if one is not None and math.isfinite(one)}


def _measures(volumes: Sequence[VolumeFacts], compare: bool) -> Iterator[Measure]:
    for name in NAMES:
        own = [volume for volume in volumes if name in volume.values]
        both = [volume for volume in own if compare and name in volume.baseline_values]
        having = both or own  # without the baseline's, the run's own are still worth showing
        if not having:
            continue
        share = 1 if name == CLEAN else len(having)
        values = [volume.values[name] for volume in having]
        if not both:
            yield Measure(name, sum(values) / share)
            continue
        others = [volume.baseline_values[name] for volume in both]
        paired = None if name == CLEAN else paired_difference(others, values)
        yield Measure(name, sum(values) / share, sum(others) / share, paired)


def _external(run: Run, baseline: Run | None) -> Iterator[Measure]:
    now, before = (read_external(one.path) if one else {} for one in (run, baseline))
    for key in ("public", "private"):
        if key in now or key in before:
            yield Measure(key, now.get(key), before.get(key))


def _verdict(run: Run, baseline: Run | None, measures: Sequence[Measure]) -> str:
    """The score, or else the density against the baseline; empty where neither is known."""
    by_name = {measure.name: measure for measure in measures}
    score, density = by_name.get("score"), by_name.get("density")
    several = len(run.volumes) > 1
    if score:
        return f"{'Mean score' if several else 'Score'} {score.value(score.run)}{_against(score, baseline)}."
    if baseline and density and density.paired:
        return (
            f"{'Mean density' if several else 'Density'} {density.value(density.run)}, "
            f"{density.value(density.baseline)} in the baseline {baseline.path.resolve().name}."
        )
    return ""


def _against(score: Measure, baseline: Run | None) -> str:
    if baseline is None or score.paired is None:
        return ""
    name, paired = baseline.path.resolve().name, score.paired
    if paired.mean == 0:
        return f", as the baseline {name}"
    side = "above" if paired.mean > 0 else "below"
    sure = (
        f" (95 % interval {interval(name='score', paired=as_dict(paired))})"
        if paired.wins + paired.losses + paired.ties > 1
        else ""
    )
    return f", {abs(paired.mean):.4f} {side} the baseline {name}{sure}"


def _gate_verdict(gates: Sequence[GateResult]) -> Iterator[str]:
    failed = [str(result.gate) for result in gates if not result.passed]
    if failed:
        yield f"{len(failed)} of {plural(len(gates), 'gate')} failed: {', '.join(failed)}."
    elif gates:
        yield f"{'The gate' if len(gates) == 1 else f'All {len(gates)} gates'} passed."


def _outcome(run: Run) -> str:
    masks = [run.volume_metrics[volume]["mask"] for volume in run.volumes]
    stages = run.manifest["stages"].values()
    density = sum(mask["density"] for mask in masks) / len(masks)
    retried, resumed = (sum(stage[key] for stage in stages) for key in ("retried", "resumed"))
    return (
        f"{plural(len(masks), 'volume')} done in {duration(run.manifest['wall_s'])}"
        + (f" after a resume ({plural(resumed, 'task')} done before)" if resumed else "")
        + f": {'mean ' if len(masks) > 1 else ''}density {percent(density)}, "
        + f"{plural(sum(mask['components_26'] for mask in masks), 'component')} (26-connected), "
        + (f"{plural(retried, 'task')} retried." if retried else "nothing retried.")
    )


def _warnings(run: Run) -> Iterator[str]:
    low, high = USUAL_DENSITY
    constant, empty, unusual = [], [], []
    for volume in run.volumes:
        scan, mask = run.volume_metrics[volume]["scan"], run.volume_metrics[volume]["mask"]
        if scan["minimum"] == scan["maximum"]:
            constant.append(f"{volume} (every voxel is {scan['minimum']})")
        if mask["voxels"] == 0:
            empty.append(volume)
        elif not low <= mask["density"] <= high:
            unusual.append(f"{volume} ({percent(mask['density'])})")
    if unfinished := run.manifest.get("submission", {}).get("unfinished"):
        yield f"Not finished, and an empty mask in submission.zip: {_listed(unfinished)}."
    yield from (f"Approximate: {note}." for note in run.manifest["approximations"])
    for volume, source in run.manifest["inputs"].items():
        if source["absent_chunks"]:
            yield (
                f"{volume}: {source['absent_chunks']:,} of {source['chunks']:,} chunk files of the input are absent "
                "and were read as empty; a masked scan has such, and so has an unfinished copy."
            )
    if constant:
        yield f"The scan is constant: {_listed(constant)}."
    if empty:
        yield f"The mask is empty: {_listed(empty)}."
    if unusual:
        yield f"Density outside the usual {100 * low:.0f} to {100 * high:.0f} %: {_listed(unusual)}."
    projected = run.manifest["memory"]["projected_worker_bytes"]
    measured = max(stage["peak_rss_bytes"] for stage in run.manifest["stages"].values())
    if measured > projected:
        yield f"A worker took {mebibytes(measured)} of memory, more than the {mebibytes(projected)} projected."


def _comparison_warnings(run: Run, baseline: Run | None, compared: Sequence[VolumeFacts]) -> Iterator[str]:
    if baseline is None:
        return
    ids = {volume.id for volume in compared}
    for one, name in ((run, "this run"), (baseline, "the baseline")):
        only = [volume for volume in one.volumes if volume not in ids]
        if only:
            yield f"Not compared, since only {name} has them or the boxes differ: {_listed(only)}."
    other = [volume.id for volume in compared if volume.score and not volume.scores_compare]
    if other:
        yield f"Scores are not compared where the baseline's labels are others or missing: {_listed(other)}."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20:,} more"


def _volumes(run: Run, baseline: Run | None) -> list[VolumeFacts]:
    own = _slices_by_volume(run)
    other = _slices_by_volume(baseline) if baseline else {}
    found = []
    for volume, source in run.manifest["inputs"].items():
        z, y, x = source["shape"]
        same = baseline is not None and _comparable(run, baseline, volume)
        found.append(
            VolumeFacts(
                id=volume,
                box=parse_bbox(source["box"], (z, y, x)),
                metrics=run.volume_metrics[volume],
                slices=own[volume],
                baseline=baseline.volume_metrics[volume] if baseline and same else None,
                baseline_slices=other[volume] if same else (),
                scores_compare=same and _labels(run, volume) == _labels(baseline, volume) is not None,
            )
        )
    return found


def _comparable(run: Run, baseline: Run, volume: str) -> bool:
    """Whether the baseline has the same part of the volume."""
    source, other = (one.manifest["inputs"].get(volume) for one in (run, baseline))
    return other is not None and (source["shape"], source["box"]) == (other["shape"], other["box"])


def _labels(run: Run | None, volume: str) -> str | None:
    """What tells the labels of a volume from others; None without any."""
    labels = run.manifest.get("labels", {}).get(volume) if run else None
    if labels is None:
        return None
    # A Zarr's fingerprint is that of its metadata, which two volumes may share.
    return f"{labels['fingerprint']} {labels['path'] if labels['kind'] == 'zarr' else ''}"


def _slices_by_volume(run: Run) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in run.metrics:
        found[row["volume"]].append(row)
    return found
