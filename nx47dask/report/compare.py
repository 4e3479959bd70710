"""``compare.md``, ``compare.csv``, ``compare.json`` and ``compare.html``: a comparison for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nx47dask.errors import InputError
from nx47dask.report.compare_tables import SIDES, list_sections, title, verdict
from nx47dask.report.pages import Page, page_files, write_page

__all__ = ["FILES", "refuse_other_files", "write_comparison"]

STEM = "compare"
FILES = page_files(STEM)


def refuse_other_files(out: Path) -> None:
    """Refuse a folder that holds anything but a comparison, before any work is done.

    Raises
    ------
    InputError
        It does, or it is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; choose another folder")
    names = [path.name for path in out.iterdir()] if out.exists() else []
    others = sorted(name for name in names if name not in FILES and not name.startswith(".compare."))
    if others:
        raise InputError(f"--out {out}: holds something else ({', '.join(others[:5])}); choose another folder")


def write_comparison(comparison: Mapping[str, Any], out: Path) -> list[Path]:
    """Write a comparison four ways.

    Parameters
    ----------
    comparison : mapping
        What ``compare_runs`` returns, with ``gates``: a list of dicts, empty where nothing was gated.
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
    page = Page(title(comparison), verdict(comparison), list(list_sections(comparison)), comparison["notes"])
    rows = [_csv_row(name, volume) for name, volume in comparison["volumes"].items()]
    return write_page(STEM, page, rows, comparison, out)


def _csv_row(name: str, volume: Mapping[str, Any]) -> dict[str, Any]:
    worst = volume["worst_slices"][0] if volume["worst_slices"] else {"z": "", "dice": "", "differing_vox": ""}
    row: dict[str, Any] = {"volume": name, **volume["masks"]}
    row |= {f"worst_slice_{key}": cell for key, cell in worst.items()}
    row |= {f"betti_{n}_{side}": volume["betti"][side][n] for n in range(3) for side in SIDES}
    for kind in ("measures", "defects"):
        sides = volume.get(kind, {side: {} for side in SIDES})
        row |= {f"{name}_{side}": sides[side][name] for name in sides["baseline"] for side in SIDES}
    return row
