"""Write ``compare.md``, ``.csv``, ``.json`` and ``.html``: a comparison for people and programs."""

from __future__ import annotations

from pathlib import Path

from nx47dask.metrics.score import DEFECT_KINDS
from nx47dask.reports.compare_tables import list_sections, title, verdict
from nx47dask.reports.documents import GatedComparison, VolumeComparison
from nx47dask.reports.pages import Page, page_files, refuse_others, write_page
from nx47dask.runs.measures import SIDES

__all__ = ["FILES", "refuse_other_files", "write_comparison"]

STEM = "compare"
FILES = page_files(STEM)
COUNTS = ("components", "clean")
"""Measures of a volume that are counts."""


def refuse_other_files(out: Path) -> None:
    """Refuse a folder that holds anything but a comparison, before any work is done.

    Raises
    ------
    InputError
        It does, or it is a file.
    """
    refuse_others(STEM, out)


def write_comparison(comparison: GatedComparison, out: Path) -> list[Path]:
    """Write a comparison in four formats.

    Parameters
    ----------
    comparison : GatedComparison
        Result of :func:`nx47dask.compare`.
    out : Path
        Folder; the same comparison gives the same bytes.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        The folder holds something else.
    StorageError
        A file cannot be written.
    """
    refuse_other_files(out)
    passed = all(gate["passed"] for gate in comparison["gates"]) if comparison["gates"] else None
    page = Page(title(comparison), verdict(comparison), list(list_sections(comparison)), comparison["notes"], passed)
    rows = [_csv_row(name, volume) for name, volume in comparison["volumes"].items()]
    return write_page(STEM, page, rows, comparison, out)


def _csv_row(name: str, volume: VolumeComparison) -> dict[str, object]:
    row: dict[str, object] = {"volume": name, **volume["masks"]}
    worst = volume["worst_slices"][0] if volume["worst_slices"] else dict.fromkeys(("z", "dice", "differing_vox"), "")
    row |= {f"worst_slice_{key}": cell for key, cell in worst.items()}
    row |= {f"betti_{n}_{side}": volume["betti"][side][n] for n in range(3) for side in SIDES}
    measures, defects = volume["measures"], volume.get("defects")
    row |= {f"{name}_{side}": _cell(name, measures[side][name]) for name in measures["baseline"] for side in SIDES}
    if defects:
        row |= {f"{kind}_{side}": defects[side][kind] for kind in DEFECT_KINDS for side in SIDES}
    return row


def _cell(name: str, amount: float) -> float:
    return int(amount) if name in COUNTS else amount
