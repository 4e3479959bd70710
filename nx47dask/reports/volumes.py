"""Draw the volumes in the report: the table of all, and the pictures, curves and bars of each."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from nx47dask.errors import BlockError, InputError
from nx47dask.geometry import AXES
from nx47dask.metrics.score import DEFECT_KINDS
from nx47dask.metrics.terms import TERMS
from nx47dask.reports.charts import Curve, sparkline, svg_curve
from nx47dask.reports.markup import Cell, Html, bar, joined, table, text
from nx47dask.reports.pictures import Allowance, draw_defects, draw_jumps, draw_slices, open_voxels
from nx47dask.words import number, percent, plural, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nx47dask.metrics.score import DefectKind, Defects
    from nx47dask.reports.content import Column, Facts, VolumeFacts
    from nx47dask.reports.pictures import Picture, Place, Voxels
    from nx47dask.runs.run import Run

__all__ = ["LISTED", "illustrated", "volume_curves", "volume_pictures", "volume_table", "volume_title"]

LISTED = 1000
"""Largest number of volumes in the tables."""
ILLUSTRATED = 12
"""Largest number of volumes with pictures."""
PICTURE_PX = 376
"""Longest side of a volume on the page, in pixels."""
SMALLEST_PICTURE_PX = 96
ROW_PX = 336
"""Width of the pictures of a place, side by side, in pixels."""
LARGE_PIXELS, SMALL_PIXELS = 384, 256
"""Longest side of a picture for few and for many illustrated volumes."""
FEW = 3
SCORE_COLUMNS = (*TERMS, "precision", "recall")
SCORE_HEAD = (*(term.name for term in TERMS.values()), "precision", "recall", "holes", "bridges")
CURVES: tuple[tuple[Column, str, float | None, bool], ...] = (
    ("density", "Density", None, True),
    ("dice_with_previous", "Continuity (Dice with the slice before)", 1.0, False),
    ("components_8", "Components in the slice", None, False),
)
"""Columns of ``slices.csv`` along z: title, top of the axis, in percent."""
TIMES = " \N{MULTIPLICATION SIGN} "


def illustrated(facts: Facts) -> list[VolumeFacts]:
    """Choose the volumes with pictures: all of a few; of many, those with the lowest scores, or else the first."""
    ranked = sorted(facts.volumes, key=lambda volume: volume.values.get("score", math.inf))[:ILLUSTRATED]
    return [volume for volume in facts.volumes if volume in ranked]


def volume_table(facts: Facts, shown: Sequence[VolumeFacts]) -> Html:
    """Make the sortable table with a row per volume."""
    listed = facts.volumes[:LISTED]
    scored = any(volume.score for volume in listed)
    compared = any("score" in volume.baseline_values for volume in listed)
    top = max((max(volume.column("density"), default=0) for volume in listed), default=0)
    head = ["volume"]
    if scored:
        head += ["score", *(["against baseline"] if compared else []), *SCORE_HEAD]
    head += ["density", "along z", "components", "largest", "tunnels", "cavities", "shape (Z, Y, X)"]
    head += ["grey min", "max", "mean", "std"]
    numbers = {volume.id: n for n, volume in enumerate(shown)}
    rows = [
        (
            _link(volume, numbers),
            *(_score_cells(volume, compared) if scored else ()),
            *_mask_cells(volume, top),
        )
        for volume in listed
    ]
    columns = "".join("t" if title in ("volume", "along z", "shape (Z, Y, X)") else "n" for title in head)
    left = len(facts.volumes) - len(listed)
    return joined(
        [
            table(_table_caption(scored), head, rows, columns, sortable=True),
            f"<p>{plural(left, 'volume')} more in metrics/volumes.json.</p>" if left else "",
        ]
    )


def volume_title(volume: VolumeFacts, number_: int) -> Html:
    """Make the heading of the section of a volume."""
    words = [TIMES.join(map(str, volume.box.shape)), f"density {percent(volume.mask['density'])}"]
    if volume.score:
        words.insert(0, f"score {volume.score['score']:.4f}")
    if "score" in volume.baseline_values:
        difference = volume.values["score"] - volume.baseline_values["score"]
        words[0] += f" ({signed('score', difference)} against the baseline)"
    return Html(
        f'<h2 id="volume-{number_}" tabindex="-1">Volume {text(volume.id)}</h2>\n'
        f'<p class="soft">{text(", ".join(words))}</p>'
    )


def volume_pictures(run: Run, volume: VolumeFacts, allowance: Allowance, few: bool) -> Html:
    """Draw slices in three planes and the worst places, or give the reason why there are none.

    Parameters
    ----------
    run : Run
    volume : VolumeFacts
    allowance : Allowance
        Bytes that the pictures of this volume may take.
    few : bool
        True if so few volumes have pictures that the pictures can be large.
    """
    try:
        return _pictures(run, volume, allowance, few)
    except (InputError, BlockError) as error:
        return Html(f'<p class="lack">No pictures: {text(error)}.</p>')


def volume_curves(facts: Facts, volume: VolumeFacts) -> Html:
    """Draw measures along z, sizes of components and the effect of each step."""
    behind = f"; grey: {text(facts.baseline.name)}" if facts.baseline and volume.baseline_slices else ""
    figures = (
        f"<figure><figcaption><b>{curve.title}</b>{behind}<br>{curve.summary()}</figcaption>{svg_curve(curve)}</figure>"
        for curve in _curves(volume)
    )
    return joined(
        [
            "<h3>Along z</h3>",
            '<div class="curves">',
            *figures,
            "</div>",
            '<div class="pair">',
            _components(volume),
            _steps(facts.run, volume),
            "</div>",
        ]
    )


def _table_caption(scored: bool) -> str:
    return (
        "Components are 26-connected; largest: its share of the mask. Components, tunnels and cavities are the Betti "
        "numbers 0, 1 and 2. All lines along z have one scale, from 0."
        + (" Holes and bridges are the spurious ones; precision and recall have no tolerance." if scored else "")
    )


def _link(volume: VolumeFacts, numbers: Mapping[str, int]) -> Html:
    if volume.id not in numbers:
        return text(volume.id)
    return Html(f'<a href="#volume-{numbers[volume.id]}">{text(volume.id)}</a>')


def _score_cells(volume: VolumeFacts, compared: bool) -> Iterator[object]:
    score, values, before = volume.score, volume.values, volume.baseline_values
    if score is None:
        yield from [""] * (8 + compared)
        return
    yield f"{score['score']:.4f}"
    if compared:
        difference = values["score"] - before["score"] if "score" in before else None
        yield "" if difference is None else Cell(signed("score", difference), difference)
    yield from (f"{values[name]:.4f}" if name in values else "" for name in SCORE_COLUMNS)
    counts = [score["defects"][kind]["count"] for kind in DEFECT_KINDS]
    yield from (Cell(number(count), count) for count in counts)


def _mask_cells(volume: VolumeFacts, top: float) -> tuple[object, ...]:
    mask, scan, densities = volume.mask, volume.metrics["scan"], volume.column("density")
    largest = mask["largest_components_vox"]
    share = largest[0] / mask["voxels"] if largest else 0
    spread = max(densities, default=0) - min(densities, default=0)
    return (
        Cell(percent(mask["density"]), mask["density"]),
        Cell(sparkline(densities, top), spread),
        *(Cell(number(count), count) for count in mask["betti"][:1]),
        Cell(percent(share) if largest else "none", share),
        *(Cell(number(count), count) for count in mask["betti"][1:]),
        Cell(TIMES.join(map(str, volume.box.shape)), volume.box.size),
        *(Cell(number(scan[key]), scan[key]) for key in ("minimum", "maximum", "mean", "std")),
    )


def _pictures(run: Run, volume: VolumeFacts, allowance: Allowance, few: bool) -> Html:
    voxels, lack = open_voxels(run, volume)
    defects = volume.score["defects"] if volume.score else None
    places = (
        draw_defects(voxels, defects, allowance) if defects else draw_jumps(voxels, volume.column("density"), allowance)
    )
    planes = draw_slices(voxels, allowance, LARGE_PIXELS if few else SMALL_PIXELS)
    if not all(planes):
        return Html('<p class="lack">No pictures: there is no room for them on this page.</p>')
    drawn = (_plane(volume, axis, pictures) for axis, pictures in enumerate(planes))
    return joined(
        [
            f'<p class="lack">{text(lack)}</p>' if lack else "",
            '<div class="planes">',
            *drawn,
            "</div>",
            _places(volume, voxels, places, defects),
        ]
    )


def _plane(volume: VolumeFacts, axis: int, pictures: Sequence[Picture]) -> Html:
    name = AXES[axis]
    rows, columns = (other for other in AXES if other != name)
    label = escape(f"Slices of volume {volume.id} across {name}", quote=True)
    frames = (_frame(volume, picture, _scale(picture, volume.box.shape)) for picture in pictures)
    return joined(
        [
            f'<div class="plane" role="group" aria-label="{label}" data-axis="{name}">',
            f"<h3>Across {name} <small>{rows} down, {columns} right</small></h3>",
            '<div class="frames">',
            *frames,
            "</div></div>",
        ]
    )


def _scale(picture: Picture, shape: tuple[int, int, int]) -> float:
    """Return the pixels per voxel: one scale for all planes of a volume, unless a plane would be too small to see."""
    return max(PICTURE_PX / max(shape), min(SMALLEST_PICTURE_PX, PICTURE_PX) / max(picture.shape))


def _frame(volume: VolumeFacts, picture: Picture, scale: float) -> str:
    where = f"{AXES[picture.axis]} = {picture.at}"
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    size = f'width="{width}" height="{height}"' + (' class="coarse"' if scale >= 1.5 else "")
    about = escape(f"of volume {volume.id}, {where}", quote=True)
    share = percent(picture.share)
    point = ""
    if picture.frame:
        sides = zip(("left", "top", "width", "height"), picture.frame, strict=True)
        point = f'<i style="{";".join(f"{side}:{100 * part:.1f}%" for side, part in sides)}"></i>'
    return (
        f'<figure data-at="{picture.at}"><div class="overlay">'
        f'<img src="{picture.scan}" {size} decoding="sync" alt="Scan {about}">'
        f'<img src="{picture.overlay}" {size} decoding="sync" alt="Overlay {about}; mask on {share}">{point}</div>'
        f"<figcaption><b>{where}</b>{'' if point else f' <span>mask on {share}</span>'}</figcaption></figure>"
    )


def _places(
    volume: VolumeFacts, voxels: Voxels, places: Sequence[Place], defects: Mapping[DefectKind, Defects] | None
) -> Html:
    if defects is None:
        title, about = "Where the density changes most", "Each slice beside the one before it."
    else:
        title = "Worst places"
        counts = " and ".join(plural(defects[kind]["count"], f"spurious {kind[:-1]}") for kind in DEFECT_KINDS)
        about = f"{counts[0].upper()}{counts[1:]}; the largest of each, cut across z, y and x."
    if not places:
        return Html(f"<h3>{title}</h3>\n<p>{about if defects else 'The density is the same in all slices.'}</p>")
    drawn = (_place(volume, place) for place in places)
    return joined([f"<h3>{title}</h3>", f"<p>{about}</p>", '<div class="places">', *drawn, "</div>"])


def _place(volume: VolumeFacts, place: Place) -> str:
    edge = ROW_PX / len(place.pictures)
    frames = "".join(_frame(volume, picture, edge / max(picture.shape)) for picture in place.pictures)
    return (
        f'<div class="place"><p><b>{text(place.title)}</b><br>--bbox <code class="copy">{place.box}</code></p>'
        f'<div class="crops">{frames}</div></div>'
    )


def _curves(volume: VolumeFacts) -> Iterator[Curve]:
    if not volume.slices:
        return
    first = volume.slices[0]["z"]
    for key, title, top, in_percent in CURVES:
        values, behind = volume.column(key), volume.baseline_column(key)
        reach = top or max((value for value in (*values, *behind) if value is not None), default=0)
        yield Curve(title, first, values, reach, in_percent, behind)


def _components(volume: VolumeFacts) -> Html:
    mask = volume.mask
    sizes = mask["largest_components_vox"]
    if not sizes:
        return Html('<div><p class="soft">The mask has no component.</p></div>')
    before = volume.baseline["mask"]["largest_components_vox"] if volume.baseline else []
    top = math.log(max(*sizes, *before, 2))
    rows = []
    for n, size in enumerate(sizes):
        cells: list[object] = [n + 1, number(size), percent(size / mask["voxels"]), bar(math.log(size) / top)]
        if volume.baseline:
            cells.append(number(before[n]) if n < len(before) else "")
        rows.append(cells)
    head = ["", "voxels", "of the mask", "log scale", *(["baseline"] if volume.baseline else [])]
    which = "the largest of " if mask["components_26"] > len(sizes) else ""
    caption = f"Sizes of {which}{plural(mask['components_26'], 'component')}, 26-connected"
    return Html(f"<div>{table(caption, head, rows, 'nnnt' + 'n' * bool(volume.baseline))}</div>")


def _steps(run: Run, volume: VolumeFacts) -> Html:
    source = run.manifest["inputs"][volume.id]
    changes = volume.metrics["steps"]
    in_workflow = [name for step in run.manifest["workflow"]["postprocess"] for name in step]
    names = dict.fromkeys([*in_workflow, *changes])  # steps that changed nothing may not be recorded
    counts = {name: (changes[name]["added_vox"], changes[name]["removed_vox"]) for name in changes}
    top = max([1, *(count for of_step in counts.values() for count in of_step)])
    rows = [
        (name, *(cell for count in counts.get(name, (0, 0)) for cell in (number(count), bar(count / top))))
        for name in names
    ]
    about = "" if source["box"] == source["work"] else f", in the box with its context, {source['work']}"
    return Html(
        "<div>"
        + table(f"Voxels that each step added and removed{about}", ("step", "added", "", "removed", ""), rows, "tntnt")
        + "</div>"
    )
