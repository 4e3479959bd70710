"""The submission zip: all masks stored at its root, with the same bytes for the same masks."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

from nx47dask.errors import InputError
from nx47dask.files.atomic import replace_file, sha256_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["copy_submission", "write_submission"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date a zip can hold
_ZIP64_FROM_BYTES = 1 << 31
_OVERHEAD_BYTES = 512  # of a member: headers and its name, twice


def write_submission(zip_path: Path, masks: Sequence[Path]) -> str:
    """Zip masks without compression, sorted by name, at the zip's root and with a fixed date.

    Parameters
    ----------
    zip_path : Path
        Path of the zip; it appears there only when complete.
    masks : sequence of Path
        The mask files, ``<id>.tif`` each.

    Returns
    -------
    str
        SHA-256 of the zip in hexadecimal.

    Raises
    ------
    InputError
        A mask is missing, or two masks have the same name.
    StorageError
        The zip cannot be written.
    """
    members = _members(masks)
    needed = sum(path.stat().st_size + _OVERHEAD_BYTES for path in members.values())
    with replace_file(zip_path, needed_bytes=needed) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, path in members.items():
                _add(archive, name, path)
        return sha256_file(temporary)


def copy_submission(zip_path: Path, target: Path) -> None:
    """Copy the zip to the path where a competition expects it; the copy appears there only when complete.

    Raises
    ------
    StorageError
        The copy cannot be written.
    """
    needed = zip_path.stat().st_size
    with (
        replace_file(target, needed_bytes=needed) as temporary,
        zip_path.open("rb") as source,
        temporary.open("wb") as copy,
    ):
        shutil.copyfileobj(source, copy, 1 << 20)


def _members(masks: Sequence[Path]) -> dict[str, Path]:
    members: dict[str, Path] = {}
    for path in sorted(masks, key=lambda mask: mask.name):
        if not path.is_file():
            raise InputError(f"{path}: no such mask, so it cannot go into the submission", hint="run its volume first")
        if path.name in members:
            raise InputError(
                f"two masks are named {path.name}: {members[path.name]} and {path}; a zip holds one of each"
            )
        members[path.name] = path
    return members


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.create_system = 3  # Unix on every machine, so that the bytes do not depend on it
    info.external_attr = 0o644 << 16
    large = path.stat().st_size >= _ZIP64_FROM_BYTES
    with path.open("rb") as source, archive.open(info, "w", force_zip64=large) as target:
        shutil.copyfileobj(source, target, 1 << 20)
