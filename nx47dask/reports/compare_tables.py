"""Make the sentences and tables of a comparison, for Markdown and HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nx47dask.metrics.score import DEFECT_KINDS
from nx47dask.metrics.terms import TERMS
from nx47dask.reports.charts import Curve, svg_curve
from nx47dask.reports.documents import GatedComparison, VolumeComparison
from nx47dask.reports.markup import Html, text
from nx47dask.reports.pages import Section, Table
from nx47dask.runs.differences import ManifestDifference
from nx47dask.runs.gates import GateRecord
from nx47dask.runs.measures import SIDES, TITLES
from nx47dask.words import PAIRED_HEAD, in_brackets, number, paired_cells, percent, plural, signed, value

__all__ = ["list_sections", "summary", "title", "verdict"]

ILLUSTRATED = 12
"""Largest number of volumes with a curve; the tables have all volumes."""
WORST_SLICES = 20
"""Number of rows of the table of slices."""
CAPTIONS = {"labels": "Labels that the runs were scored with when they were made"}
SHOWN = (*TERMS, "precision", "recall")
"""Measures that are shown of every volume, beside the score."""


def title(comparison: GatedComparison) -> str:
    """Return the title: the names of both runs."""
    return f"{comparison['candidate']['path']} against {comparison['baseline']['path']}"


def verdict(comparison: GatedComparison) -> str:
    """Return the outcome in a sentence or two: the gates, then the score or the agreement of the masks."""
    return " ".join([*_gate_verdict(comparison["gates"]), _score_verdict(comparison)])


def list_sections(comparison: GatedComparison) -> Iterator[Section]:
    """Return all sections below the verdict: gates, means, masks, scores, slices, differences of the manifests."""
    volumes = comparison["volumes"]
    if comparison["gates"]:
        yield Section("Gates", tables=[_gates(comparison["gates"])])
    yield Section("Means", tables=[_means(comparison)])
    yield Section("Masks by volume", tables=[_masks(volumes)])
    if "score" in comparison["paired"]:
        yield Section("Scores by volume", tables=[_scores(volumes)])
    yield _slices(volumes)
    yield _differences(comparison["differences"])
    yield Section("Runs", tables=[_runs(comparison)])


def summary(comparison: GatedComparison) -> list[str]:
    """Return the verdict and the means with their intervals as lines for a terminal."""
    means = _means(comparison)
    lines = [means.head[:5], *(row[:5] for row in means.rows)]
    columns = [f"{name:24}{a:>10}{b:>11}{difference:>12}   {spread}" for name, a, b, difference, spread in lines]
    return [title(comparison), verdict(comparison), *comparison["notes"], *(column.rstrip() for column in columns)]


def _gate_verdict(gates: Sequence[GateRecord]) -> Iterator[str]:
    failed = [gate["gate"] for gate in gates if not gate["passed"]]
    if failed:
        count = "the gate" if len(gates) == 1 else f"{len(failed)} of {len(gates)} gates"
        yield f"The candidate fails {count}: {', '.join(failed)}."
    elif gates:
        yield f"The candidate passes {'the gate' if len(gates) == 1 else f'all {len(gates)} gates'}."


def _score_verdict(comparison: GatedComparison) -> str:
    masks, count = comparison["masks"], len(comparison["volumes"])
    if masks["identical_volumes"] == count:
        return (
            f"The {plural(count, 'mask')} of the two runs are identical." if count > 1 else "The masks are identical."
        )
    if "score" not in comparison["paired"]:
        mean = f" on average over {count:,} volumes" if count > 1 else ""
        return f"The masks agree to a Dice of {masks['dice']:.4f}{mean}."
    baseline, candidate = (comparison["means"][side]["score"] for side in SIDES)
    paired = comparison["paired"]["score"]
    gain = signed("score", paired["mean"])
    return f"Score {baseline:.4f} to {candidate:.4f}: {gain}{in_brackets('score', paired)}."


def _gates(gates: Sequence[GateRecord]) -> Table:
    rows = [
        (
            gate["gate"],
            "passed" if gate["passed"] else "failed",
            value(gate["name"], gate["baseline"]),
            value(gate["name"], gate["candidate"]),
            signed(gate["name"], gate["difference"]),
        )
        for gate in gates
    ]
    caption = "Limits on the difference candidate - baseline of a mean"
    return Table(caption, ("gate", "verdict", "baseline", "candidate", "difference"), rows, "ttnnn")


def _means(comparison: GatedComparison) -> Table:
    count, means, paired = len(comparison["volumes"]), comparison["means"], comparison["paired"]
    rows = []
    for name in (name for name in TITLES if name in means["baseline"]):
        a, b = (means[side][name] for side in SIDES)
        cells = (value(name, a), value(name, b), signed(name, b - a))
        rows.append((TITLES[name], *cells, *paired_cells(name, paired.get(name))))
    head = ("mean", "baseline", "candidate", "difference", *PAIRED_HEAD)
    caption = (
        f"Over {plural(count, 'volume')}. The interval is a bootstrap of the volumes; higher, lower and equal count "
        "the volumes by the candidate's value; p is that of the sign test."
    )
    return Table(caption, head, rows, "t" + "n" * 8)


def _masks(volumes: Mapping[str, VolumeComparison]) -> Table:
    rows = []
    for name, volume in volumes.items():
        masks = volume["masks"]
        betti = [(volume["betti"]["baseline"][n], volume["betti"]["candidate"][n]) for n in range(3)]
        rows.append(
            (
                name,
                f"{masks['dice']:.4f}",
                f"{masks['iou']:.4f}",
                number(masks["added_vox"]),
                number(masks["removed_vox"]),
                change(*(percent(volume["measures"][side]["density"]) for side in SIDES)),
                *(change(number(a), number(b)) for a, b in betti),
            )
        )
    head = ("volume", "Dice", "IoU", "added", "removed", "density", "components", "tunnels", "cavities")
    caption = (
        "Masks of the two runs against each other. Added: voxels of the candidate only; removed: of the baseline only. "
        "Components, tunnels and cavities are the Betti numbers 0, 1 and 2. One value where both runs have the same."
    )
    return Table(caption, head, rows, "t" + "n" * 8)


def _scores(volumes: Mapping[str, VolumeComparison]) -> Table:
    rows = []
    for name, volume in volumes.items():
        a, b = (volume["measures"][side] for side in SIDES)
        a_defects, b_defects = (volume["defects"][side] for side in SIDES)
        rows.append(
            (
                name,
                f"{a['score']:.4f}",
                f"{b['score']:.4f}",
                signed("score", b["score"] - a["score"]),
                *(signed(term, b[term] - a[term]) for term in SHOWN),
                *(change(number(a_defects[kind]), number(b_defects[kind])) for kind in DEFECT_KINDS),
            )
        )
    head = ("volume", "baseline", "candidate", "difference", *(TITLES[term] for term in SHOWN), "holes", "bridges")
    caption = (
        "The score of both runs, then differences candidate - baseline; holes and bridges are the spurious ones, and "
        "their counts are given."
    )
    return Table(caption, head, rows, "t" + "n" * 10)


def _slices(volumes: Mapping[str, VolumeComparison]) -> Section:
    heading = "Slices that differ most"
    slices = [(name, worst) for name, volume in volumes.items() for worst in volume["worst_slices"]]
    slices.sort(key=lambda pair: -pair[1]["differing_vox"])
    if not slices:
        return Section(heading, ["No slice differs."])
    rows = [
        (name, number(worst["z"]), f"{worst['dice']:.4f}", number(worst["differing_vox"]))
        for name, worst in slices[:WORST_SLICES]
    ]
    caption = "At most five places of a volume, of neighbouring slices the worst; z in voxels of the scan"
    tables = [Table(caption, ("volume", "z", "Dice", "voxels that differ"), rows, "tnnn")]
    return Section(heading, tables=tables, figures=list(_curves(volumes)))


def _curves(volumes: Mapping[str, VolumeComparison]) -> Iterator[Html]:
    """Draw the difference of the masks along z for the volumes that differ most, all on one scale."""
    shares = {
        name: [voxels / math.prod(volume["shape"][1:]) for voxels in volume["slices"]["differing_vox"]]
        for name, volume in volumes.items()
    }
    names = sorted((name for name in shares if any(shares[name])), key=lambda name: -sum(shares[name]))[:ILLUSTRATED]
    top = max(max(shares[name]) for name in names)
    for name in names:
        about = f"Share of each slice that differs, volume {name}"
        curve = Curve(about, volumes[name]["first_z"], shares[name], top, percent=True)
        yield Html(
            f"<figure><figcaption><b>{text(name)}</b>, share of each slice that differs: {text(curve.summary())}"
            f"</figcaption>{svg_curve(curve)}</figure>"
        )


def _differences(sections: Mapping[str, Sequence[ManifestDifference]]) -> Section:
    same = [name for name, differences in sections.items() if not differences]
    tables = [
        Table(
            CAPTIONS.get(name, name.capitalize()),
            ("what", "baseline", "candidate"),
            [
                (leaf["path"].split(".", 1)[-1], *(shown(leaf[side]) for side in SIDES))
                for difference in differences
                for leaf in leaves(difference)
            ],
            "thh" if name in ("inputs", "labels", "artefacts") else "tpp",
        )
        for name, differences in sections.items()
        if differences
    ]
    return Section("What the runs were made with", [f"The same in both: {', '.join(same)}."] if same else (), tables)


def _runs(comparison: GatedComparison) -> Table:
    sides = [comparison[side] for side in SIDES]
    rows: list[tuple[str, ...]] = [
        ("path", *(shown(side["path"]) for side in sides)),
        ("workflow", *(shown(side["workflow"]) for side in sides)),
        ("nx47dask", *(shown(side["nx47dask"]) for side in sides)),
    ]
    external = dict.fromkeys(key for side in sides for key in side["external"])
    rows += [(f"{key}, recorded", *(shown(side["external"].get(key)) for side in sides)) for key in external]
    return Table("The two runs", ("", "baseline", "candidate"), rows, "tpp")


def leaves(difference: ManifestDifference) -> Iterator[ManifestDifference]:
    """Split a difference between a JSON object and a missing value into a difference for each value in the object."""
    sides = [difference[side] for side in SIDES]
    (*inner,) = (side for side in sides if isinstance(side, dict) and side)
    if len(inner) != 1 or None not in sides:
        yield difference
        return
    for name in inner[0]:
        before, now = (difference[side] and difference[side][name] for side in SIDES)
        yield from leaves({"path": f"{difference['path']}.{name}", "baseline": before, "candidate": now})


def change(baseline: str, candidate: str) -> str:
    """Return both values as text, or a single one if they are equal."""
    return baseline if baseline == candidate else f"{baseline} \N{RIGHTWARDS ARROW} {candidate}"


def shown(amount: Any) -> str:
    """Return a JSON value as text; ``none`` for None."""
    if amount is None:
        return "none"
    return amount if isinstance(amount, str) else json.dumps(amount)
