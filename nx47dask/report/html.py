"""``report.html``: what came out of a run, how it looks, what was done and with what."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from nx47dask.geometry import AXES, Box, parse_bbox
from nx47dask.io import write_text
from nx47dask.report.figures import Curve, mask_png, png_uri, scan_png, shrink_factor, svg_curve
from nx47dask.report.markup import Html, duration, joined, mebibytes, number, percent, plural, table, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from nx47dask.results import Run, RunVolume

__all__ = ["write_report"]

ILLUSTRATED = 12
"""Volumes with figures; the table has all."""
USUAL_DENSITY = (0.01, 0.30)
"""Shares of a scroll volume that its surfaces take; a mask outside them deserves a look."""
PICTURE_PX = 320
"""Longest side of a volume on the page."""
SMALLEST_PICTURE_PX = 96
TIMES = " \N{MULTIPLICATION SIGN} "


def write_report(run: Run, path: Path) -> None:
    """Write the report of a finished run: one HTML file that needs no network and no other file.

    Parameters
    ----------
    run : Run
        Its manifest, metrics and stores are read; of the stores three planes of at most 12 volumes, one at a time.
    path : Path
        Where the report goes. The same run folder gives the same bytes.

    Raises
    ------
    InputError
        A store, or a Zarr input, is not there any more.
    StorageError
        The report cannot be written.
    """
    shown = run.volumes[:ILLUSTRATED]
    slices = _slices_by_volume(run, shown)
    body = joined(
        [
            _header(run),
            _toggle(),
            "<main>",
            _volumes(run, shown),
            *(_volume(run[volume], f"volume-{n}", slices[volume]) for n, volume in enumerate(shown)),
            _processing(run),
            _provenance(run),
            "</main>",
        ]
    )
    write_text(path, _page(f"{run.path.resolve().name}: nx47dask report", body))


def _page(title: str, body: Html) -> str:
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _header(run: Run) -> Html:
    manifest = run.manifest
    ended = datetime.fromtimestamp(manifest["ended_s"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    about = f"Workflow {manifest['workflow']['name']}, nx47dask {manifest['nx47dask']}, ended {ended}."
    warnings = "".join(f"<li>{text(warning)}</li>" for warning in _warnings(run))
    return joined(
        [
            "<header>",
            f"<h1>{text(run.path.resolve().name)}</h1>",
            f'<p class="verdict">{text(_verdict(run))}</p>',
            f'<p class="soft">{text(about)}</p>',
            f'<ul class="warnings" aria-label="Warnings">{warnings}</ul>' if warnings else "",
            "</header>",
        ]
    )


def _verdict(run: Run) -> str:
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
    """What deserves a look before the masks are used."""
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
    yield from (f"Approximate: {note}." for note in run.manifest["approximations"])
    for volume, source in run.manifest["inputs"].items():
        if source["absent_chunks"]:
            yield (
                f"{volume}: {source['absent_chunks']:,} of {source['chunks']:,} chunk files of the input are absent "
                "and were read as empty; a masked scan has such, and so has an unfinished copy."
            )
    if constant:
        yield f"The scan is constant: {', '.join(constant)}."
    if empty:
        yield f"The mask is empty: {', '.join(empty)}."
    if unusual:
        yield f"Density outside the usual {100 * low:.0f} to {100 * high:.0f} %: {', '.join(unusual)}."
    projected, measured = _worker_memory(run)
    if measured > projected:
        yield f"A worker took {mebibytes(measured)} of memory, more than the {mebibytes(projected)} projected."


def _toggle() -> Html:
    return Html(
        '<div class="toggle"><label><input type="checkbox" id="show-mask" checked> '
        '<span class="key" aria-hidden="true"></span> mask over the scan</label></div>'
    )


def _volumes(run: Run, shown: Sequence[str]) -> Html:
    head = ("volume", "shape (Z, Y, X)", "density", "components", "largest", "tunnels", "cavities")
    scan_head = ("grey min", "max", "mean", "std")
    rows = [(_link(volume, shown), *_shape_cells(run, volume)) for volume in run.volumes]
    left = len(run.volumes) - len(shown)
    return joined(
        [
            "<h2>Volumes</h2>",
            table(
                "Masks and scans. Components are 26-connected; largest: its share of the mask. Components, tunnels and "
                "cavities are the Betti numbers 0, 1 and 2.",
                (*head, *scan_head),
                rows,
                "tt" + "n" * 9,
            ),
            f"<p>Figures of the first {plural(len(shown), 'volume')} follow; {plural(left, 'volume')} more "
            "are in the table only.</p>"
            if left
            else "",
        ]
    )


def _link(volume: str, shown: Sequence[str]) -> Html:
    return Html(f'<a href="#volume-{shown.index(volume)}">{text(volume)}</a>') if volume in shown else text(volume)


def _shape_cells(run: Run, volume: str) -> tuple[object, ...]:
    mask, scan = run.volume_metrics[volume]["mask"], run.volume_metrics[volume]["scan"]
    largest = mask["largest_components_vox"]
    return (
        TIMES.join(map(str, _box(run, volume).shape)),
        percent(mask["density"]),
        number(mask["components_26"]),
        percent(largest[0] / mask["voxels"]) if largest else "none",
        number(mask["betti"][1]),
        number(mask["betti"][2]),
        *(number(scan[key]) for key in ("minimum", "maximum", "mean", "std")),
    )


def _volume(volume: RunVolume, anchor: str, slices: list[dict[str, Any]]) -> Html:
    densities = [row["density"] for row in slices]
    dices = [row["dice_with_previous"] for row in slices]
    curves = (
        Curve("Density per slice", slices[0]["z"], densities, max(densities), percent=True),
        Curve("Dice with the slice before", slices[0]["z"], dices, 1.0),
    )
    return joined(
        [
            f'<section aria-labelledby="{anchor}">',
            f'<h2 id="{anchor}">Volume {text(volume.id)}</h2>',
            '<div class="planes">',
            *_planes(volume),
            "</div>",
            '<div class="curves">',
            *(
                f"<figure><figcaption><b>{curve.title}</b><br>{curve.summary()}</figcaption>{svg_curve(curve)}</figure>"
                for curve in curves
            ),
            "</div>",
            _steps(volume),
            "</section>",
        ]
    )


def _planes(volume: RunVolume) -> Iterator[Html]:
    """The middle planes across z, y and x, the mask over the scan."""
    box = _box(volume.run, volume.id)
    scan = volume.metrics["scan"]
    for axis, name in enumerate(AXES):
        middle = box.shape[axis] // 2
        mask = _plane(volume.mask, axis, middle) != 0
        rows, columns = (other for other in AXES if other != name)
        where = f"{name} = {box.start[axis] + middle}"
        factor = shrink_factor((mask.shape[0], mask.shape[1]))
        share = percent(float(np.count_nonzero(mask)) / mask.size)
        over = png_uri(mask_png(mask))
        scan_uri = png_uri(scan_png(_plane(volume.image, axis, middle), scan["minimum"], scan["maximum"]))
        size = _picture_size((mask.shape[0], mask.shape[1]), box.shape)
        pictures = (
            f'<img src="{scan_uri}" {size} alt="{_alt("Scan", volume, where)}">'
            f'<img src="{over}" {size} alt="{_alt("Mask", volume, where)}, on {share} of the plane">'
        )
        yield joined(
            [
                f"<figure><figcaption><b>{where}</b>, {rows} down, {columns} across"
                + (f", 1 pixel is {factor}{TIMES}{factor} voxels" if factor > 1 else "")
                + f"; mask on {share}</figcaption>",
                f'<div class="overlay">{pictures}</div></figure>',
            ]
        )


def _plane(array: Any, axis: int, index: int) -> NDArray[Any]:
    """One plane of a lazy array; only the chunks that it cuts are read."""
    where = (index if a == axis else slice(None) for a in range(3))
    plane = np.asarray(array[(..., *where)].compute(scheduler="synchronous"))
    return plane.reshape(plane.shape[-2:])  # a Zarr input may have axes of length 1 before Z


def _picture_size(plane: tuple[int, int], shape: tuple[int, int, int]) -> str:
    """Size on the page: one scale for the planes of a volume, unless a picture would be too small to see."""
    scale = max(PICTURE_PX / max(shape), SMALLEST_PICTURE_PX / max(plane))
    height, width = (max(1, round(side * scale)) for side in plane)
    return f'width="{width}" height="{height}"' + (' class="coarse"' if scale >= 1.5 else "")


def _alt(what: str, volume: RunVolume, where: str) -> str:
    return escape(f"{what} of volume {volume.id} in the plane {where}", quote=True)


def _steps(volume: RunVolume) -> Html:
    source = volume.run.manifest["inputs"][volume.id]
    changes = volume.metrics["steps"]
    in_workflow = [name for step in volume.run.manifest["workflow"]["postprocess"] for name in step]
    names = dict.fromkeys([*in_workflow, *changes])  # steps that changed nothing may not be recorded
    none = {"added_vox": 0, "removed_vox": 0}
    rows = [(name, *(number(changes.get(name, none)[key]) for key in none)) for name in names]
    about = "" if source["box"] == source["work"] else f", in the box with its context, {source['work']}"
    return table(
        f"Voxels of the mask that each step added and removed{about}", ("step", "added", "removed"), rows, "tnn"
    )


def _processing(run: Run) -> Html:
    workflow = {key: value for key, value in run.manifest["workflow"].items() if key != "name"}
    passes = "\n".join(run.manifest["passes"])
    projected, measured = _worker_memory(run)
    peak = f"{mebibytes(measured)} measured at its peak" if measured else "not measured, since nothing had to run"
    rows = [(name, *_stage_cells(stage)) for name, stage in run.manifest["stages"].items()]
    head = ("stage", "tasks", "resumed", "retried", "wall", "task time", "Mvox/s a worker", "peak memory")
    return joined(
        [
            f"<h2>Workflow {text(run.manifest['workflow']['name'])}</h2>",
            "<p>As resolved, with every parameter:</p>",
            f"<pre>{text(yaml.safe_dump(workflow, sort_keys=False, default_flow_style=None, width=110))}</pre>",
            "<p>As compiled into passes over the blocks:</p>",
            f"<pre>{text(passes)}</pre>",
            "<h2>Stages</h2>",
            f"<p>Memory of a worker: {mebibytes(projected)} projected, {peak}.</p>",
            table(
                "Over all volumes. Stages of different volumes overlap, so wall times do not add up; peak memory is "
                "that of a worker so far.",
                head,
                rows,
                "t" + "n" * 7,
            ),
        ]
    )


def _stage_cells(stage: dict[str, Any]) -> tuple[str, ...]:
    rate = stage["voxels"] / stage["task_s"] / 1e6 if stage["voxels"] and stage["task_s"] else None
    return (
        *(number(stage[key]) for key in ("tasks", "resumed", "retried")),
        duration(stage["wall_s"]),
        duration(stage["task_s"]),
        "" if rate is None else f"{rate:.1f}",
        mebibytes(stage["peak_rss_bytes"]) if stage["tasks"] else "",
    )


def _provenance(run: Run) -> Html:
    manifest = run.manifest
    versions = {**manifest["versions"], "platform": manifest["platform"]}
    arguments = " ".join(manifest["arguments"]) or "none"
    return joined(
        [
            "<h2>Inputs</h2>",
            table(
                "What was read. Boxes are half-open, in voxels. The fingerprint is a SHA-256 of names, sizes and times "
                "of the files (TIFF) or of the metadata (Zarr); the other hash is one of the voxels, block by block.",
                ("volume", "from", "box z, y, x", "blocks", "fingerprint", "hash of the voxels"),
                [(volume, *_input_cells(source)) for volume, source in manifest["inputs"].items()],
                "tptnhh",
            ),
            "<h2>Artefacts</h2>",
            table("SHA-256 of the files of this run", ("file", "SHA-256"), manifest["artefacts_sha256"].items(), "th"),
            "<h2>Versions</h2>",
            f"<p>Arguments of the process: <code>{text(arguments)}</code></p>",
            f'<p>Plan <span class="hash">{text(manifest["plan_sha256"])}</span></p>',
            table("Software", ("package", "version"), versions.items(), "tt"),
        ]
    )


def _input_cells(source: dict[str, Any]) -> tuple[object, ...]:
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


def _slices_by_volume(run: Run, volumes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in run.metrics:
        if row["volume"] in volumes:
            found[row["volume"]].append(row)
    return found


def _box(run: Run, volume: str) -> Box:
    source = run.manifest["inputs"][volume]
    z, y, x = source["shape"]
    return parse_bbox(source["box"], (z, y, x))


def _worker_memory(run: Run) -> tuple[int, int]:
    """Projected and measured peak memory of a worker in bytes."""
    measured = max(stage["peak_rss_bytes"] for stage in run.manifest["stages"].values())
    return run.manifest["memory"]["projected_worker_bytes"], measured
