"""Draw ``report.html``: the results of a run, its pictures, its stages and its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import yaml

from nx47dask.reports.charts import whisker
from nx47dask.reports.failures import failures_html
from nx47dask.reports.markup import Html, bar, document, header, joined, listing, table, text
from nx47dask.reports.pictures import Allowance
from nx47dask.reports.projections import projections_table
from nx47dask.reports.volumes import (
    FEW,
    LISTED,
    TIMES,
    illustrated,
    volume_curves,
    volume_pictures,
    volume_table,
    volume_title,
)
from nx47dask.words import PAIRED_HEAD, duration, mebibytes, number, paired_cells, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nx47dask.engine.events import StageRecord
    from nx47dask.reports.content import Facts, VolumeFacts
    from nx47dask.runs.manifest import InputRecord
    from nx47dask.runs.run import Run

__all__ = ["html_report"]

PAGE_BYTES = 5_700_000
"""Size up to which pictures may fill the page, in bytes."""
COUNTS: tuple[Literal["tasks", "resumed", "skipped", "retried", "quarantined"], ...] = (
    "tasks",
    "resumed",
    "skipped",
    "retried",
    "quarantined",
)
"""Counts of the tasks of a stage in the manifest."""
ORANGE, BLUE, GREEN, GREY = (1.0, 0.55, 0.0), (0.2, 0.68, 1.0), (0.1, 0.8, 0.55), (0.75, 0.75, 0.75)
"""Colours for predicted, labelled, both, ignored: distinct for every kind of colour vision, and on grey."""


def html_report(facts: Facts) -> str:
    """Draw the page; pictures come last, into the space that the rest leaves of 5.7 MB."""
    shown = illustrated(facts)
    curves = [volume_curves(facts, volume) for volume in shown]
    volumes = ("<h2>Volumes</h2>", volume_table(facts, shown), _filters(), _tools(facts, shown)) if shown else ()
    before = joined([_header(facts), "<main>", failures_html(facts.run), _measures(facts), *volumes])
    after = joined([_processing(facts.run), _provenance(facts.run), "</main>"])
    rest = sum(len(part.encode()) for part in (before, *curves, after)) + len(document("", "", script=True))
    sections = [
        joined(
            [
                f'<section class="volume" aria-labelledby="volume-{n}">',
                volume_title(volume, n),
                volume_pictures(facts.run, volume, Allowance((PAGE_BYTES - rest) // len(shown)), len(shown) <= FEW),
                curves[n],
                "</section>",
            ]
        )
        for n, volume in enumerate(shown)
    ]
    body = joined([before, *sections, after])
    return document(f"{facts.run.name}: nx47dask report", body, script=True)


def _header(facts: Facts) -> Html:
    gates = (f'<li class="{"passed" if gate.passed else "failed"}">{text(gate)}</li>' for gate in facts.gates)
    return header(
        facts.run.name,
        facts.verdict,
        facts.passed,
        *(Html(f'<p class="soft">{text(sentence)}</p>') for sentence in facts.about),
        listing("gates", "Gates", gates),
        listing("warnings", "Warnings", [f"<li>{text(warning)}</li>" for warning in facts.warnings]),
    )


def _measures(facts: Facts) -> Html:
    """Draw the means in a row, or with a baseline in a column, each beside that of the baseline."""
    if not facts.measures:
        return Html("")
    if not facts.baseline:
        titles, values = zip(*((mean.title, mean.cells[0]) for mean in facts.measures), strict=True)
        return table(facts.caption, ("mean", *titles), [("this run", *values)], "t" + "n" * len(titles))
    head = ("mean", "this run", "baseline", "difference", "", *PAIRED_HEAD)
    rows = [
        (mean.title, *mean.cells, whisker(mean.paired) if mean.paired else "", *paired_cells(mean.name, mean.paired))
        for mean in facts.measures
    ]
    return table(facts.caption, head, rows, "tnnntnnnnn")


def _tools(facts: Facts, shown: Sequence[VolumeFacts]) -> Html:
    """Draw the choice of the overlay and of the volume; the second works only with the script of the page."""
    scored = any(volume.score for volume in shown)
    names = ("disagreement", "prediction", "label", "nothing") if scored else ("prediction", "nothing")
    radios = "".join(
        f'<label><input type="radio" name="overlay" id="show-{name}"{" checked" * (name == names[0])}> {name}</label>'
        for name in names
    )
    options = "".join(f'<option value="volume-{n}">{text(volume.id)}</option>' for n, volume in enumerate(shown))
    left = len(facts.volumes) - len(shown)
    which = "with the lowest scores" if scored else "first"
    return joined(
        [
            '<div class="tools">',
            f'<label class="pick">Volume <select id="pick">{options}</select></label>',
            f"<fieldset><legend>Over the scan</legend>{radios}</fieldset>",
            _legend(scored),
            "</div>",
            f'<p class="soft">Pictures of the {plural(len(shown), "volume")} {which}; {plural(left, "volume")} more in '
            "the table.</p>"
            if left
            else "",
        ]
    )


def _legend(scored: bool) -> Html:
    def key(name: str, colour: tuple[float, float, float], modes: str) -> str:
        rgb = " ".join(str(round(255 * c)) for c in colour)
        return f'<span class="key {modes}"><i style="background:rgb({rgb})"></i>{name}</span>'

    if not scored:
        return Html(f'<p class="legend">{key("mask", ORANGE, "prediction")}</p>')
    keys = (
        key("predicted", ORANGE, "prediction"),
        key("labelled", BLUE, "label"),
        key("only predicted (false positive)", ORANGE, "disagreement"),
        key("only labelled (false negative)", BLUE, "disagreement"),
        key("both", GREEN, "disagreement"),
        key("ignored", GREY, "label disagreement"),
    )
    return Html(f'<p class="legend">{"".join(keys)}</p>')


def _filters() -> Html:
    """Define the colour filters that turn the classes of an overlay (see ``classes_png``) into colours.

    Each is linear in the shares of mask, label and ignored (red, green, blue) and the greatest of them (alpha).
    """
    pale = [orange + blue - both for orange, blue, both in zip(ORANGE, BLUE, GREEN, strict=True)]
    disagreement = [
        *(
            (both - blue, both - orange, grey - constant, 0, constant)
            for orange, blue, both, grey, constant in zip(ORANGE, BLUE, GREEN, GREY, pale, strict=True)
        ),
        (-0.45, -0.45, -0.8, 1.3, 0),
    ]  # opacity: 0.85 in one only, 0.4 in both, 0.5 ignored
    prediction = [*((0, 0, 0, 0, c) for c in ORANGE), (0.5, 0, 0, 0, 0)]
    label = [*((0, blue - grey, 0, 0, grey) for blue, grey in zip(BLUE, GREY, strict=True)), (0, 0.5, 0.5, 0, 0)]
    filters = (("disagreement", disagreement), ("prediction", prediction), ("label", label))
    return joined(
        [
            '<svg class="filters" width="0" height="0" aria-hidden="true">',
            *(
                f'<filter id="over-{name}" color-interpolation-filters="sRGB" x="0" y="0" width="1" height="1">'
                f'<feColorMatrix values="{"  ".join(" ".join(f"{v:.4g}" for v in row) for row in matrix)}"/></filter>'
                for name, matrix in filters
            ),
            "</svg>",
        ]
    )


def _processing(run: Run) -> Html:
    workflow = {key: value for key, value in run.manifest["workflow"].items() if key != "name"}
    passes = "\n".join(run.manifest["passes"])
    return joined(
        [
            "<h2>Time, memory and disk</h2>",
            projections_table(run),
            _stages(run),
            f"<h2>Workflow {text(run.manifest['workflow']['name'])}</h2>",
            "<p>As resolved, with every parameter:</p>",
            f"<pre>{text(yaml.safe_dump(workflow, sort_keys=False, default_flow_style=None, width=110))}</pre>",
            "<p>As compiled into passes over the blocks:</p>",
            f"<pre>{text(passes)}</pre>",
        ]
    )


def _stages(run: Run) -> Html:
    stages = run.manifest["stages"]
    longest = max([*(stage["task_s"] for stage in stages.values()), 1e-9])
    most = max([*(stage["peak_rss_bytes"] for stage in stages.values()), 1e-9])
    rows = [(name, *_stage_cells(stage, longest, most)) for name, stage in stages.items()]
    return table(
        "Over all volumes. Stages of different volumes overlap, so wall times do not add up; peak memory is that of a "
        "worker so far.",
        ("stage", "task time", "", "wall", "peak memory", "", "Mvox/s a worker", *COUNTS),
        rows,
        "tntnntn" + "n" * len(COUNTS),
    )


def _stage_cells(stage: StageRecord, longest_s: float, most_bytes: float) -> tuple[object, ...]:
    rate = stage["voxels"] / stage["task_s"] / 1e6 if stage["voxels"] and stage["task_s"] else None
    return (
        duration(stage["task_s"]),
        bar(stage["task_s"] / longest_s),
        duration(stage["wall_s"]),
        mebibytes(stage["peak_rss_bytes"]) if stage["tasks"] else "",
        bar(stage["peak_rss_bytes"] / most_bytes) if stage["tasks"] else "",
        "" if rate is None else f"{rate:.1f}",
        *(number(stage[key]) for key in COUNTS),
    )


def _provenance(run: Run) -> Html:
    manifest = run.manifest
    versions = {**manifest["versions"], "platform": manifest["platform"]}
    arguments = " ".join(manifest["arguments"]) or "none"
    labels = manifest.get("labels", {})
    return joined(
        [
            "<h2>Inputs</h2>",
            table(
                "What was read. Boxes are half-open, in voxels. The fingerprint is a SHA-256 of names, sizes and times "
                "of the files (TIFF) or of the metadata (Zarr); the other hash is one of the voxels, block by block."
                + _more(manifest["inputs"]),
                ("volume", "from", "box z, y, x", "blocks", "fingerprint", "hash of the voxels"),
                [(volume, *_input_cells(source)) for volume, source in list(manifest["inputs"].items())[:LISTED]],
                "tptnhh",
            ),
            table(
                "Labels that the scores are of." + _more(labels),
                ("volume", "from", "fingerprint"),
                [
                    (volume, f"{used['path']}: {used['kind']}", used["fingerprint"])
                    for volume, used in list(labels.items())[:LISTED]
                ],
                "tph",
            )
            if labels
            else "",
            "<h2>Artefacts</h2>",
            table(
                "SHA-256 of the files of this run." + _more(manifest["artefacts_sha256"]),
                ("file", "SHA-256"),
                list(manifest["artefacts_sha256"].items())[-LISTED:],
                "th",
            ),
            "<h2>Versions</h2>",
            f"<p>Arguments of the process: <code>{text(arguments)}</code></p>",
            f'<p>Plan <span class="hash">{text(manifest["plan_sha256"])}</span></p>',
            table("Software", ("package", "version"), versions.items(), "tt"),
        ]
    )


def _more(rows: Mapping[str, object]) -> str:
    return f" {len(rows) - LISTED:,} more are in manifest.json." if len(rows) > LISTED else ""


def _input_cells(source: InputRecord) -> tuple[object, ...]:
    shape = TIMES.join(map(str, source["shape"]))
    voxel = f", voxels of {TIMES.join(f'{edge:g}' for edge in source['voxel_um'])} µm" if source["voxel_um"] else ""
    component = f" ({source['component']})" if source["component"] else ""
    return (
        f"{source['path']}{component}: {source['kind']}, {shape} {source['dtype']}{voxel}",
        source["box"],
        f"{number(source['blocks'])} of {source['block_vox']}³",
        source["fingerprint"],
        source.get("voxels_sha256_by_block", ""),
    )
