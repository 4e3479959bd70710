"""Write ``campaign.md``, ``.csv``, ``.json`` and ``.html``: all runs of a campaign in one table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

from nx47dask.errors import InputError
from nx47dask.metrics.terms import SCORES
from nx47dask.reports.documents import CampaignRunSummary, CampaignSummary
from nx47dask.reports.pages import Page, Section, Table, page_files, refuse_others, write_page
from nx47dask.runs.measures import TITLES
from nx47dask.words import (
    PAIRED_HEAD,
    few_volumes,
    in_brackets,
    interval,
    paired_cells,
    plural,
    signed,
    value,
)

__all__ = ["FILES", "refuse_other_files", "verdict", "write_campaign"]

STEM = "campaign"
FILES = page_files(STEM)
SHOWN = (*SCORES, "precision", "recall", "clean_volumes", "density", "components")
"""Measures of the tables; the CSV and JSON files have all measures."""
SPREAD = ("score", "density", "components")
EXTERNAL: tuple[Literal["public", "private"], ...] = ("public", "private")
PAIRED: tuple[Literal["mean", "low", "high", "wins", "losses", "ties", "p"], ...] = (
    "mean",
    "low",
    "high",
    "wins",
    "losses",
    "ties",
    "p",
)
RUN = "run"


def refuse_other_files(out: Path, runs: Collection[str]) -> None:
    """Refuse a folder that holds anything but this campaign and run folders, before any work is done.

    Parameters
    ----------
    out : Path
    runs : collection of str
        Names of the folders of the runs.

    Raises
    ------
    InputError
        It does, or it is a file or itself a run folder.
    """
    if any((out / name).exists() for name in ("ledger", "manifest.json")):
        raise InputError(
            f"{out}: is itself a run folder, a campaign makes one for each run", hint="choose another --out"
        )
    refuse_others(STEM, out, {*runs, *(path.parent.name for path in out.glob("*/ledger"))})


def write_campaign(name: str, summary: CampaignSummary, out: Path) -> list[Path]:
    """Write the summary of a campaign in four formats; the same summary gives the same bytes.

    Parameters
    ----------
    name : str
        Name of the campaign, for the title.
    summary : CampaignSummary
    out : Path

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    StorageError
        A file cannot be written.
    """
    runs = summary["runs"]
    notes = few_volumes(len(runs[summary["baseline"]]["volumes"])) if len(runs) > 1 else []
    gates = [gate["passed"] for measured in runs.values() for gate in measured.get("gates", ())]
    passed = all(gates) if gates else None
    page = Page(f"Campaign {name}", verdict(summary), list(_sections(summary)), notes, passed)
    rows = [_csv_row(run, measured) for run, measured in runs.items()]
    return write_page(STEM, page, rows, summary, out)


def verdict(summary: CampaignSummary) -> str:
    """Name the best run with its lead, and the runs that fail a gate."""
    runs = summary["runs"]
    failed = {
        name: [gate["gate"] for gate in measured.get("gates", ()) if not gate["passed"]]
        for name, measured in runs.items()
    }
    fails = [f" {name} fails {', '.join(gates)}." for name, gates in failed.items() if gates]
    return f"{_best(summary)}{''.join(fails)}"


def _best(summary: CampaignSummary) -> str:
    baseline, runs = summary["baseline"], summary["runs"]
    count = len(runs[baseline]["volumes"])
    over = f"{plural(len(runs), 'run')} over {plural(count, 'volume')}"
    if "score" not in runs[baseline]["mean"]:
        return f"{over}, compared with {baseline}; no labels, so no scores."
    best = max(runs, key=lambda name: (runs[name]["mean"]["score"], name == baseline))
    highest = f"{runs[best]['mean']['score']:.4f}"
    if best == baseline:
        return f"{over}: no run has a higher score than the baseline {baseline}, {highest}."
    difference = runs[best]["difference"]["score"]
    gain = signed("score", difference["mean"])
    against = f"that is {gain} against {baseline}{in_brackets('score', difference)}"
    return f"{over}: {best} has the highest score, {highest}; {against}."


def _sections(summary: CampaignSummary) -> Iterator[Section]:
    """Return all tables of a campaign."""
    runs = summary["runs"]
    yield Section("Runs", tables=[_runs(summary)])
    if any("difference" in measured for measured in runs.values()):
        yield Section(f"Differences to {summary['baseline']}", tables=[_differences(summary)])
    if any(measured.get("gates") for measured in runs.values()):
        yield Section("Gates", tables=[_gates(summary)])
    if summary["spread"]:
        yield Section("Spread between runs", tables=[*_spreads(summary)])
    if any(measured.get("repeats") for measured in runs.values()):
        yield Section("Repeats", tables=[_repeats(runs)])
    yield Section("What was run", tables=[_workflows(runs)])


def _runs(summary: CampaignSummary) -> Table:
    """Return a row per run: the first measure with its difference to the baseline, then the other means."""
    runs, baseline = summary["runs"], summary["baseline"]
    lead, *others = (name for name in SHOWN if name in runs[baseline]["mean"])
    external = [key for key in EXTERNAL if any(key in measured["external"] for measured in runs.values())]
    rows = []
    for name, measured in runs.items():
        cells = [f"{name} (baseline)" if name == baseline else name, value(lead, measured["mean"][lead])]
        if difference := measured.get("difference", {}).get(lead):
            cells += [signed(lead, difference["mean"]), interval(lead, difference), f"{difference['p']:.3g}"]
        else:
            cells += ["", "", ""]
        cells += [f"{measured['external'][key]:g}" if key in measured["external"] else "" for key in external]
        rows.append(cells + [value(measure, measured["mean"][measure]) for measure in others])
    head = [RUN, TITLES[lead], f"against {baseline}", "95 % interval", "p", *external]
    head += [TITLES[measure] for measure in others]
    caption = (
        f"Means over {plural(len(runs[baseline]['volumes']), 'volume')}. The interval is a bootstrap of the volumes, p "
        "that of the sign test."
        + (f" {' and '.join(external).capitalize()} scores were recorded from elsewhere." if external else "")
    )
    return Table(caption, head, rows, "t" + "n" * (len(head) - 1))


def _differences(summary: CampaignSummary) -> Table:
    rows = [
        (name, TITLES[measure], signed(measure, difference["mean"]), *paired_cells(measure, difference))
        for name, measured in summary["runs"].items()
        for measure, difference in measured.get("difference", {}).items()
        if measure in SHOWN
    ]
    caption = "Paired over the volumes. Higher, lower and equal count the volumes by the value of the run."
    head = (RUN, "measure", "mean difference", *PAIRED_HEAD)
    return Table(caption, head, rows, "ttnnnnnn")


def _gates(summary: CampaignSummary) -> Table:
    rows = [
        (name, gate["gate"], "passed" if gate["passed"] else "failed", signed(gate["name"], gate["difference"]))
        for name, measured in summary["runs"].items()
        for gate in measured.get("gates", ())
    ]
    caption = f"Limits on the difference of a mean to {summary['baseline']}."
    return Table(caption, (RUN, "gate", "verdict", "difference"), rows, "tttn")


def _spreads(summary: CampaignSummary) -> Iterator[Table]:
    """Return a table per measure; the volumes on which the runs differ most come first."""
    spread = summary["spread"]
    measures = next(iter(spread.values()))
    for measure in (measure for measure in SPREAD if measure in measures):
        volumes = sorted(spread, key=lambda volume: -spread[volume][measure]["range"])
        rows = [
            (
                volume,
                f"{value(measure, extent['min'])} ({extent['min_run']})",
                f"{value(measure, extent['max'])} ({extent['max_run']})",
                value(measure, extent["range"]),
                value(measure, extent["std"]),
            )
            for volume in volumes
            for extent in [spread[volume][measure]]
        ]
        caption = (
            f"{TITLES[measure].capitalize()} of each volume in {plural(len(summary['runs']), 'run')}, widest range "
            "first; std is the population standard deviation."
        )
        yield Table(caption, ("volume", "lowest", "highest", "range", "std"), rows, "tnnnn")


def _repeats(runs: Mapping[str, CampaignRunSummary]) -> Table:
    rows = []
    for name, measured in runs.items():
        if repeats := measured.get("repeats"):
            differing = sorted({volume for repeat in repeats for volume in repeat})
            masks = f"differ in {', '.join(differing)}" if differing else "the same bytes every time"
            rows.append((name, f"{len(repeats) + 1}", masks))
    return Table(
        "Nothing in a run is random, so repeats must give the same masks.", (RUN, "times", "masks"), rows, "tnp"
    )


def _workflows(runs: Mapping[str, CampaignRunSummary]) -> Table:
    rows = [
        (
            name,
            measured["workflow"],
            " ".join(measured.get("set", ())),
            measured["nx47dask"],
            measured["external"].get("note", ""),
        )
        for name, measured in runs.items()
    ]
    head = (RUN, "workflow", "overrides", "nx47dask", "note on external scores")
    return Table("The JSON has the SHA-256 of every plan.", head, rows, "ttptp")


def _csv_row(name: str, run: CampaignRunSummary) -> dict[str, object]:
    """Return the means, external scores and paired differences of a run."""
    row: dict[str, object] = {RUN: name, "workflow": run["workflow"], "set": " ".join(run.get("set", ()))}
    row |= run["mean"] | {key: run["external"].get(key, "") for key in EXTERNAL}
    for measure in run["mean"]:
        difference = run.get("difference", {}).get(measure)
        row |= {f"{measure}_difference_{key}": difference[key] if difference else "" for key in PAIRED}
    return row | {"gates_failed": sum(not gate["passed"] for gate in run.get("gates", ()))}
