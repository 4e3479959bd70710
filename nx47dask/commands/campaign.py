"""Run a campaign: its runs, one after the other, and then the tables over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from nx47dask.cluster.where import Where, WhereOptions
from nx47dask.commands.campaign_file import Campaign, CampaignRun, RunMeasures, read_campaign, summarise
from nx47dask.commands.plan import plan
from nx47dask.commands.run import run
from nx47dask.commands.score import score
from nx47dask.errors import GateError, InputError, Nx47Error, PlanMismatchError
from nx47dask.geometry import Box
from nx47dask.io import Volume, discover
from nx47dask.metrics.score import Score
from nx47dask.planning.plan import RunPlan
from nx47dask.reports.campaign import refuse_other_files, write_campaign
from nx47dask.reports.documents import AboutRun, CampaignSummary
from nx47dask.runs.baselines import BASELINES, check_masks, find_run, read_external
from nx47dask.runs.measures import volume_measures
from nx47dask.runs.run import Run
from nx47dask.stages.score import find_labels

__all__ = ["campaign"]

AGAIN = "mend the cause, then give the same campaign command again"


@dataclass(frozen=True)
class _Setting:
    """Inputs and options that all runs of a campaign share."""

    campaign: Campaign
    volumes: Mapping[str, Volume]
    labels: Mapping[str, Volume]
    baseline: Path
    where: Where

    def say(self, line: str) -> None:
        self.where.console.print(line, markup=False, highlight=False, soft_wrap=True)


def campaign(
    file: str | Path,
    out: str | Path,
    *,
    baselines: str | Path = BASELINES,
    where: Where | None = None,
    **options: Unpack[WhereOptions],
) -> CampaignSummary:
    """Do the runs of a campaign file that are not finished, and compare all runs with its baseline.

    Parameters
    ----------
    file : path
        The campaign file.
    out : path
        Folder of all results: each run goes to ``out/<name>/`` (its repeats to ``out/<name>@2/`` and so on), the
        tables go to ``campaign.md``, ``campaign.csv``, ``campaign.json`` and ``campaign.html``. Called again, a
        campaign goes on where it stopped.
    baselines : path
        Folder of the frozen baselines.
    where, **options
        As for :func:`nx47dask.run`.

    Returns
    -------
    CampaignSummary
        Measures of all runs, as :func:`nx47dask.commands.campaign_file.summarise` returns them.

    Raises
    ------
    InputError
        The file, a volume, a label, a workflow or the baseline cannot be used, a run folder holds another run, or
        ``out`` holds other files.
    GateError
        The baseline has changed since it was frozen, or the masks of a finished run since they were written; or, after
        all is written, repeats differ or a run fails a gate.
    BlockError, RunStoppedError, StorageError
        A run stopped part-way; the same call goes on.

    Examples
    --------
    Run two settings of a workflow on a synthetic volume, and compare their scores:

    >>> from pathlib import Path
    >>> import nx47dask
    >>> (volume,) = nx47dask.write_phantom("sample", (24, 32, 32), seed=1)
    >>> text = '''
    ... volumes: [sample/train_images]
    ... labels: sample/train_labels
    ... baseline: plain
    ... runs:
    ...   plain: {workflow: v61.1}
    ...   wide: {workflow: v61.1, set: [detect.residual_band.sigma_base=2]}
    ... '''
    >>> _ = Path("sigma.yaml").write_text(text)
    >>> summary = nx47dask.campaign("sigma.yaml", "runs/sigma", serial=True)
    >>> {name: round(run["mean"]["score"], 2) for name, run in summary["runs"].items()}
    {'plain': 0.47, 'wide': 0.48}
    >>> round(summary["runs"]["wide"]["difference"]["score"]["mean"], 3)
    0.006
    """
    where = Where.of(where, **options)
    read, out = read_campaign(Path(file)), Path(out)
    refuse_other_files(out, [name for entry in read.runs for name in _folders(entry)])
    volumes = {volume.id: volume for volume in discover(read.volumes)}
    labels = find_labels(read.labels, {name: volume.shape for name, volume in volumes.items()}) if read.labels else {}
    plans = {entry: [_plan(read, entry, out / name, where) for name in _folders(entry)] for entry in read.runs}
    frozen = _frozen_baseline(read, Path(baselines), volumes)
    setting = _Setting(read, volumes, labels, frozen.path if frozen else out / read.baseline, where)
    # The baseline first: the reports of the other runs compare with it.
    first = sorted(read.runs, key=lambda entry: entry.name != read.baseline)
    done = {entry: [_run(setting, entry, planned) for planned in plans[entry]] for entry in first}
    measured = {}
    if frozen:
        measured[read.baseline] = _measured(setting, frozen, _baseline_scores(setting, frozen), _about(frozen))
    for entry in read.runs:
        once, *repeats = done[entry]
        about = _about(once)
        about["set"] = list(entry.overrides)
        about["repeats"] = [_differing(once, repeat) for repeat in repeats]
        measured[entry.name] = _measured(setting, once, once.scores, about)
    summary = summarise(measured, read.baseline, read.gates)
    try:
        write_campaign(read.path.stem, summary, out)
    finally:  # a page that cannot be drawn hides no gate
        _require_passed(summary, out)
    return summary


def _folders(entry: CampaignRun) -> list[str]:
    """Name the folders of a run and its repeats; no run can have the name of a repeat."""
    return [entry.name, *(f"{entry.name}@{number}" for number in range(2, entry.repeat + 1))]


def _plan(campaign: Campaign, entry: CampaignRun, folder: Path, where: Where) -> RunPlan:
    """Plan a run; refuse it, before anything is computed, if its folder holds another run."""
    planned = plan(
        campaign.volumes,
        folder,
        workflow=entry.workflow,
        overrides=entry.overrides,
        labels=campaign.labels,
        where=where,
    )
    try:
        planned.check(resume=True)
    except PlanMismatchError as error:
        raise error.with_hint("delete this folder, rename the run, or choose another --out") from error
    return planned


def _frozen_baseline(campaign: Campaign, baselines: Path, volumes: Mapping[str, Volume]) -> Run | None:
    """Open and check the baseline, if it is none of the runs of the campaign."""
    names = [entry.name for entry in campaign.runs]
    if campaign.baseline in names:
        return None
    beside = campaign.path.parent / campaign.baseline
    named = (baselines / campaign.baseline).is_dir() or not beside.is_dir()
    try:
        baseline = find_run(campaign.baseline if named else beside, baselines)
    except InputError as error:
        raise error.at(f"{campaign.path}: the baseline is none of the runs ({', '.join(names)})") from error
    baseline.require_finished("run the campaign")
    for name, volume in volumes.items():
        if name not in baseline.volumes:
            raise InputError(
                f"{baseline.path}: the baseline has no volume {name}; it has {', '.join(baseline.volumes)}",
                hint="compare with a baseline of the same volumes",
            )
        known, whole = baseline[name], Box.of_shape(volume.shape)
        if known.shape != volume.shape:
            raise InputError(
                f"volume {name}: its shape is {volume.shape}, in the baseline {baseline.path} it is {known.shape}",
                hint="compare with a baseline of the same volumes",
            )
        if known.box != whole:
            raise InputError(
                f"{baseline.path}: the baseline has only {known.box} of volume {name}, a campaign runs whole volumes, "
                f"here {whole}",
                hint="freeze a run without --bbox",
            )
    return baseline


def _run(setting: _Setting, entry: CampaignRun, planned: RunPlan) -> Run:
    """Return the finished run of a plan; compute it if it is not there."""
    folder = planned.out
    if _is_finished(planned) and Run(folder).scored_with(setting.labels):
        _require_masks(Run(folder))
        setting.say(f"{folder}: finished before, not run again")
        return Run(folder)
    setting.say(f"{folder}: workflow {planned.workflow.name}")
    try:
        return run(
            setting.campaign.volumes,
            folder,
            workflow=entry.workflow,
            overrides=entry.overrides,
            labels=setting.campaign.labels,
            baseline=None if folder == setting.baseline else setting.baseline,
            resume=planned.record.is_file(),
            where=setting.where,
        )
    except Nx47Error as error:
        # A campaign has no --resume: called again, it goes on by itself.
        hint = AGAIN if "--resume" in error.hint else error.hint
        raise error.at(f"run {folder.name} of the campaign").with_hint(hint) from error


def _is_finished(planned: RunPlan) -> bool:
    if not (planned.out / "manifest.json").is_file():
        return False
    done = Run(planned.out)
    there = all((done.path / name).is_file() for name in done.manifest["artefacts_sha256"])
    return there and done.manifest["plan_sha256"] == planned.digest and not done.unfinished


def _require_masks(done: Run) -> None:
    """Refuse a finished run whose masks were changed."""
    try:
        check_masks(done)
    except GateError as error:
        raise error.at(f"run {done.name} of the campaign").with_hint("delete this folder to run it again") from error


def _differing(once: Run, repeat: Run) -> list[str]:
    """List the volumes whose masks differ in their bytes."""
    before, now = (done.manifest["artefacts_sha256"] for done in (once, repeat))
    return [volume for volume in once.volumes if before[f"masks/{volume}.tif"] != now[f"masks/{volume}.tif"]]


def _measured(setting: _Setting, done: Run, scores: Mapping[str, Score], about: AboutRun) -> RunMeasures:
    """Collect the measures of the volumes of the campaign; scores only if the campaign has labels."""
    volumes = {
        name: volume_measures(done.volume_metrics[name]["mask"], scores[name] if setting.labels else None)
        for name in setting.volumes
    }
    return RunMeasures(volumes, about)


def _about(done: Run) -> AboutRun:
    """Workflow, release and plan of a run, from its manifest."""
    manifest = done.manifest
    return {
        "workflow": manifest["workflow"]["name"],
        "nx47dask": manifest["nx47dask"],
        "plan_sha256": manifest["plan_sha256"],
        "external": read_external(done.path),
    }


def _baseline_scores(setting: _Setting, baseline: Run) -> dict[str, Score]:
    """Return the scores of a baseline against the labels of the campaign; compute them if it does not have them."""
    labels = setting.campaign.labels
    if labels is None or baseline.scored_with(setting.labels):
        return baseline.scores
    setting.say(f"{baseline.path}: scored with {labels}")
    return score(baseline.path, labels, where=setting.where)["volumes"]


def _require_passed(summary: CampaignSummary, out: Path) -> None:
    """Refuse repeats that differ and runs that fail a gate, after all is written."""
    problems = []
    for name, measured in summary["runs"].items():
        differing = {volume for repeat in measured.get("repeats", ()) for volume in repeat}
        if differing:
            problems.append(f"run {name}: the masks of {', '.join(sorted(differing))} differ between repeats")
        problems += [
            f"run {name}: {gate['gate']} failed, the difference to {summary['baseline']} is {gate['difference']:+.6g}"
            for gate in measured.get("gates", ())
            if not gate["passed"]
        ]
    if problems:
        raise GateError(f"{out}: the campaign is complete, but not all passes:" + "".join(f"\n  {p}" for p in problems))
