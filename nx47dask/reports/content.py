"""Collect the facts of a report once, for the page and for the Markdown file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from nx47dask.metrics.paired import as_dict
from nx47dask.reports.projections import projections_warnings
from nx47dask.runs.baselines import ExternalScores, read_external
from nx47dask.runs.measures import MASK_NAMES, TITLES, mean_measures, paired_measures, run_measures, shared_measures
from nx47dask.words import (
    Paired,
    duration,
    few_volumes,
    in_brackets,
    over,
    percent,
    plural,
    signed,
    value,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nx47dask.geometry import Box
    from nx47dask.metrics.score import Score
    from nx47dask.metrics.shape import MaskShape, SliceRow
    from nx47dask.runs.gates import GateResult
    from nx47dask.runs.manifest import VolumeMetrics
    from nx47dask.runs.run import Run

__all__ = ["Facts", "Measure", "VolumeFacts", "gather"]

Column = Literal["density", "dice_with_previous", "components_8"]
EXTERNAL: tuple[Literal["public", "private"], ...] = ("public", "private")
"""Names of scores that were measured elsewhere."""
USUAL_DENSITY = (0.01, 0.30)
"""Usual range of the density of a mask; a mask outside of it gets a warning."""


@dataclass(frozen=True)
class Measure:
    """Mean of a measure of the run, beside that of the baseline.

    Attributes
    ----------
    name : str
        Name as in gates, or ``public`` and ``private`` for scores that were measured elsewhere.
    run, baseline : float or None
        Means over the volumes that both have; a sum for ``clean_volumes``.
    paired : Paired or None
        None without a baseline, and where there are no values by volume.
    """

    name: str
    run: float | None
    baseline: float | None = None
    paired: Paired | None = None

    @property
    def title(self) -> str:
        return TITLES.get(self.name, f"{self.name} score")

    def value(self, amount: float | None) -> str:
        return "" if amount is None else value(self.name, amount)

    @property
    def cells(self) -> list[str]:
        """Run, baseline and difference as text."""
        now, before = self.run, self.baseline
        difference = "" if now is None or before is None else signed(self.name, now - before)
        return [self.value(self.run), self.value(self.baseline), difference]


@dataclass(frozen=True)
class VolumeFacts:
    """Metrics of a volume, and of the mask of the baseline if there is one.

    Attributes
    ----------
    metrics, baseline : VolumeMetrics
        Entries of ``metrics/volumes.json``; None if the baseline does not have the same part of the volume.
    slices, baseline_slices : sequence of SliceRow
        Rows of ``metrics/slices.csv``.
    values, baseline_values : mapping of str to float
        Measures by name; those of the baseline have no scores if it was scored with other labels.
    """

    id: str
    box: Box
    metrics: VolumeMetrics
    slices: Sequence[SliceRow]
    values: Mapping[str, float]
    baseline: VolumeMetrics | None
    baseline_slices: Sequence[SliceRow]
    baseline_values: Mapping[str, float]

    @property
    def mask(self) -> MaskShape:
        return self.metrics["mask"]

    @property
    def score(self) -> Score | None:
        return self.metrics.get("score")

    def column(self, key: Column) -> list[Any]:
        """Return a column of ``metrics/slices.csv``."""
        return [row[key] for row in self.slices]

    def baseline_column(self, key: Column) -> list[Any]:
        """Return the values of the baseline at the same z, None where it has none; empty without a baseline."""
        values = {row["z"]: row[key] for row in self.baseline_slices}
        return [values.get(row["z"]) for row in self.slices] if values else []


@dataclass(frozen=True)
class Facts:
    """Facts of a report.

    Attributes
    ----------
    verdict : str
        The outcome in a sentence or two.
    about : list of str
        Further sentences on the outcome.
    gates : list of GateResult
    warnings : list of str
        Points to check before the masks are used.
    measures : list of Measure
        Means; empty if there are only density and components, and no baseline.
    compared : int
        Number of volumes that the measures cover.
    volumes : list of VolumeFacts
    """

    run: Run
    baseline: Run | None
    verdict: str
    about: list[str]
    gates: list[GateResult]
    warnings: list[str]
    measures: list[Measure]
    compared: int
    volumes: list[VolumeFacts]

    @property
    def passed(self) -> bool | None:
        """True if all gates passed; None without gates."""
        return all(gate.passed for gate in self.gates) if self.gates else None

    @property
    def caption(self) -> str:
        """Description of the volumes that the means are over."""
        over = f"Over {plural(self.compared, 'volume')}"
        if not self.baseline:
            return f"{over}."
        bootstrap = ", with a 95 % interval from a bootstrap of the volumes" if self.compared > 1 else ""
        return (
            f"{over}. Differences are this run - {self.baseline.name}{bootstrap}; higher, lower and equal count "
            "volumes by this run's value; p is that of the sign test."
        )


def gather(run: Run, baseline: Run | None, gates: Sequence[GateResult], warnings: Sequence[str] = ()) -> Facts:
    """Collect the facts of a finished run, with the warnings of the caller.

    Raises
    ------
    InputError
        External scores that were recorded are damaged.
    """
    volumes = _volumes(run, baseline)
    compared = [volume for volume in volumes if baseline is None or volume.baseline]
    measures = [*_external(run, baseline), *_measures(compared)]
    if baseline is None and all(measure.name in MASK_NAMES for measure in measures):
        measures = []  # the verdict and the table of volumes say the same
    ended = datetime.fromtimestamp(run.manifest["ended_s"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    owners = [(run, "this run"), *([(baseline, f"the baseline {baseline.name}")] if baseline else [])]
    notes = [(owner, read_external(source.path).get("note")) for source, owner in owners]
    verdict = _verdict(run, baseline, measures)
    about = [
        *([_outcome(run)] if verdict else []),
        f"Workflow {run.manifest['workflow']['name']}, nx47dask {run.manifest['nx47dask']}, ended {ended}.",
        *(f"Recorded with the external scores of {owner}: {note}." for owner, note in notes if note),
    ]
    return Facts(
        run=run,
        baseline=baseline,
        verdict=" ".join([*_failed(run), verdict or _outcome(run), *_gate_verdict(gates)]),
        about=about,
        gates=list(gates),
        warnings=[*warnings, *_warnings(run), *(_comparison_warnings(run, baseline, compared) if baseline else ())],
        measures=measures,
        compared=len(compared),
        volumes=volumes,
    )


def _measures(volumes: Sequence[VolumeFacts]) -> Iterator[Measure]:
    """Yield the means; a measure that the baseline has too is averaged over the volumes for which both have it."""
    before = [volume.baseline_values for volume in volumes]
    now = [{name: volume.values[name] for name in volume.baseline_values} for volume in volumes]
    means, before_means, paired = mean_measures(now), mean_measures(before), paired_measures(before, now)
    for name, mean in mean_measures([volume.values for volume in volumes]).items():
        difference = as_dict(paired[name]) if name in paired else None
        yield Measure(name, means.get(name, mean), before_means.get(name), difference)


def _external(run: Run, baseline: Run | None) -> Iterator[Measure]:
    now = read_external(run.path)
    before = read_external(baseline.path) if baseline else ExternalScores()
    for key in EXTERNAL:
        if key in now or key in before:
            yield Measure(key, now.get(key), before.get(key))


def _verdict(run: Run, baseline: Run | None, measures: Sequence[Measure]) -> str:
    """Return the score, or else the density, against the baseline as a sentence; empty if neither is known."""
    by_name = {measure.name: measure for measure in measures}
    score, density = by_name.get("score"), by_name.get("density")
    several = len(run.volumes) > 1
    if score:
        return f"{'Mean score' if several else 'Score'} {score.value(score.run)}{_against(score, baseline)}."
    if baseline and density and density.paired:
        return (
            f"{'Mean density' if several else 'Density'} {density.value(density.run)}, "
            f"{density.value(density.baseline)} in the baseline {baseline.name}, "
            f"{over(density.paired)}."
        )
    return ""


def _against(score: Measure, baseline: Run | None) -> str:
    if baseline is None or score.paired is None:
        return ""
    mean = score.paired["mean"]
    side = f"{abs(mean):.4f} {'above' if mean > 0 else 'below'}" if mean else "as"
    return f", {side} the baseline {baseline.name}{in_brackets('score', score.paired)}"


def _gate_verdict(gates: Sequence[GateResult]) -> Iterator[str]:
    failed = [str(result.gate) for result in gates if not result.passed]
    if failed:
        yield f"{len(failed)} of {plural(len(gates), 'gate')} failed: {', '.join(failed)}."
    elif gates:
        yield f"{'The gate' if len(gates) == 1 else f'All {len(gates)} gates'} passed."


def _failed(run: Run) -> Iterator[str]:
    if run.failures:
        yield f"Not complete: {plural(len(run.failures), 'block')} quarantined."


def _outcome(run: Run) -> str:
    masks = [run.volume_metrics[volume]["mask"] for volume in run.volumes]
    stages = run.manifest["stages"].values()
    if not masks:
        return f"No volume is finished after {duration(run.manifest['wall_s'])}."
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
    if run.unfinished:
        zipped = ", and an empty mask in submission.zip" if "submission.zip" in run.manifest["artefacts_sha256"] else ""
        yield f"Not finished, so not in this report{zipped}: {_listed(run.unfinished)}."
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
    yield from projections_warnings(run)


def _comparison_warnings(run: Run, baseline: Run, compared: Sequence[VolumeFacts]) -> Iterator[str]:
    ids = {volume.id for volume in compared}
    for side, name in ((run, "this run"), (baseline, "the baseline")):
        only = [volume for volume in side.volumes if volume not in ids]
        if only:
            yield f"Not compared, since only {name} has them or the boxes differ: {_listed(only)}."
    yield from few_volumes(len(compared))
    other = [volume.id for volume in compared if volume.score and "score" not in volume.baseline_values]
    if other:
        yield f"Scores are not compared where the baseline's labels are others or missing: {_listed(other)}."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20:,} more"


def _volumes(run: Run, baseline: Run | None) -> list[VolumeFacts]:
    values, slices = run_measures(run), _slices_by_volume(run)
    shared = shared_measures(baseline, run) if baseline else {}
    other = _slices_by_volume(baseline) if baseline else {}
    return [
        VolumeFacts(
            id=volume,
            box=run[volume].box,
            metrics=run[volume].metrics,
            slices=slices[volume],
            values=values[volume],
            baseline=baseline[volume].metrics if baseline and volume in shared else None,
            baseline_slices=other[volume] if volume in shared else (),
            baseline_values=shared[volume][0] if volume in shared else {},
        )
        for volume in run.volumes
    ]


def _slices_by_volume(run: Run) -> dict[str, list[SliceRow]]:
    slices: dict[str, list[SliceRow]] = defaultdict(list)
    for row in run.metrics:
        slices[row["volume"]].append(row)
    return slices
