"""Validation of the submission zip by the rules of the competition: every known trap is a finding.

The scorer unzips it, finds ``**/*.tif`` with ``glob`` (so folders are tolerated and hidden files are not seen), takes
the name up to its first ``.`` as the id, and reads the pages with Pillow. Validation unpacks nothing under its own
name: it copies one mask at a time into a nameless temporary file, up to the size that the volume's shape allows.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from nx47dask.errors import InputError
from nx47dask.files.atomic import storage_error
from nx47dask.files.paths import is_remote
from nx47dask.io.arrays import DECODE_ERRORS
from nx47dask.io.mask_check import Finding, check_mask, largest_mask_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nx47dask.io.volumes import Volume

__all__ = ["Finding", "validate_submission"]

_NAME = "submission.zip"
_OUTPUT_BYTES = 20 * 10**9
_ZIP_ERRORS = (zipfile.BadZipFile, struct.error, *DECODE_ERRORS)  # errors of zipfile for damaged bytes
_LOCAL_HEADER = b"PK\x03\x04"
_HEADER_BYTES = 30  # smallest header of a member, before its name
_COPY_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_ENCRYPTED = 0x1
_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz"}
_TIFF_SUFFIXES = (".tif", ".tiff")
_ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar", ".bz2", ".xz", ".zst")
_SYSTEM_NAMES = ("__macosx", "thumbs.db", "desktop.ini")


def validate_submission(zip_path: Path, images: Sequence[Volume]) -> list[Finding]:
    """Check a submission zip against the volumes whose masks it must hold.

    Memory is bounded by a page; temporary disk space, beside the zip or in the temporary folder, by a mask.

    Parameters
    ----------
    zip_path : Path
        The zip.
    images : sequence of Volume
        The volumes; only their ids and shapes are used.

    Returns
    -------
    list of Finding
        Findings of the zip and its members, then of each mask in the order of ``images``; empty if nothing is wrong.

    Raises
    ------
    InputError
        There is no zip file at the path, or it cannot be read.
    StorageError
        There is no space for the temporary copy of a mask.
    """
    if not zip_path.is_file():
        raise InputError(f"{zip_path}: no such file", hint="give the submission zip")
    findings = _check_file(zip_path)
    try:
        archive = zipfile.ZipFile(zip_path.open("rb") if is_remote(zip_path) else zip_path)
    except PermissionError as error:
        raise InputError(f"{zip_path}: cannot be read ({error.strerror})", hint="change its permissions") from error
    except _ZIP_ERRORS as error:
        return [*findings, _broken_zip(zip_path, error)]
    with archive:
        return findings + _check_archive(archive, zip_path, images)


def _check_file(zip_path: Path) -> list[Finding]:
    findings, warning = [], partial(Finding, "warning", member=zip_path.name)
    if zip_path.name != _NAME:
        findings.append(warning("wrong-name", message=f"Kaggle takes {_NAME} alone; rename it before you submit"))
    size = zip_path.stat().st_size
    if size > _OUTPUT_BYTES:
        text = f"it has {size:,} bytes; a Kaggle notebook keeps {_OUTPUT_BYTES:,} of output"
        findings.append(warning("zip-size", message=text))
    return findings


def _broken_zip(zip_path: Path, error: Exception) -> Finding:
    size = zip_path.stat().st_size
    with zip_path.open("rb") as file:
        begins_well = file.read(len(_LOCAL_HEADER)) == _LOCAL_HEADER
    if begins_well:
        text = f"the list of members at its end is missing or damaged ({error}); it has {size:,} bytes: copy it again"
        return Finding("error", "broken-zip", zip_path.name, text)
    return Finding("error", "not-a-zip", zip_path.name, f"its {size:,} bytes are no zip file; zip the masks")


def _check_archive(archive: zipfile.ZipFile, zip_path: Path, images: Sequence[Volume]) -> list[Finding]:
    members = archive.infolist()
    overlapping = _overlapping(members)
    ids = _ids_by_name(images)
    masks: dict[str, list[zipfile.ZipInfo]] = {image.id: [] for image in images}
    closed: set[str] = set()
    findings = _check_layout(members, zip_path.name)
    for info in members:
        refused, other = _refusal(info, overlapping), _no_mask(info)
        volume = None if info.is_dir() else _volume_of(info.filename, ids)
        if refused is not None:
            closed.add(info.filename)
            findings.append(refused)
        elif other is not None:
            findings.append(other)
        elif volume is None and not info.is_dir():
            findings.append(_extra(info.filename, images))
        if volume is not None and other is None:
            masks[volume].append(info)
    for image in images:
        findings += _check_volume(archive, masks[image.id], image, closed)
    return findings


def _check_volume(
    archive: zipfile.ZipFile, masks: list[zipfile.ZipInfo], image: Volume, closed: set[str]
) -> list[Finding]:
    """Check the mask of a volume, which must be in the zip exactly once."""
    if not masks:
        return [Finding("error", "missing-id", image.id, f"the zip has no mask of this volume; add {image.id}.tif")]
    if len(masks) > 1:
        names = ", ".join(info.filename for info in masks)
        text = f"{len(masks)} members are masks of this volume: {names}; keep one"
        return [Finding("error", "duplicate-id", image.id, text)]
    name = masks[0].filename
    return [] if name in closed else _check_mask_name(name, image.id) + _check_content(archive, masks[0], image)


def _check_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, image: Volume) -> list[Finding]:
    """Copy a mask, up to the size that its volume's shape allows, to a file in which Pillow can seek; check it."""
    error, name, most = partial(Finding, "error"), info.filename, largest_mask_bytes(image.shape)
    if info.file_size > most:
        text = f"it unpacks to {info.file_size:,} bytes, a mask of shape {image.shape} takes {most:,} at most; not read"
        return [error("too-large", name, text)]
    folder = Path(archive.filename).parent if archive.filename else Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=folder if os.access(folder, os.W_OK) else None) as copy:
        try:
            with archive.open(info) as source:
                shutil.copyfileobj(source, copy, _COPY_BYTES)  # zipfile gives no more than the size it declares
            copy.flush()
        except _ZIP_ERRORS as failure:
            if isinstance(failure, OSError) and failure.errno in _NO_ROOM:
                raise storage_error(folder, failure, needed_bytes=most) from failure
            return [error("damaged-member", name, f"it cannot be unpacked ({failure}); zip the mask again")]
        copy.seek(0)
        return check_mask(copy, name, image.shape)


def _check_layout(members: Sequence[zipfile.ZipInfo], zip_name: str) -> list[Finding]:
    """Check for folders and compression, which the scorer tolerates; each gives one finding for the whole zip."""
    findings = []
    plain = [info.filename for info in members if _is_safe(info) and _is_plain(info)]
    folders = sorted({name.rpartition("/")[0] for name in plain if "/" in name})
    if folders:
        shown = ", ".join(f"{folder}/" for folder in folders[:3]) + (", ..." if len(folders) > 3 else "")
        text = f"it has folders ({shown}); the scorer looks into them, the rules want the masks at the root"
        findings.append(Finding("warning", "nested-folder", zip_name, text))
    deflated = sum(info.compress_type == zipfile.ZIP_DEFLATED for info in members)
    if deflated:
        text = f"{deflated} of {len(members)} members are deflated; LZW masks hardly shrink again: store them"
        findings.append(Finding("warning", "compressed", zip_name, text))
    return findings


def _refusal(info: zipfile.ZipInfo, overlapping: set[int]) -> Finding | None:
    """Return a finding if a member must not be opened."""
    refused = partial(Finding, "error", member=info.filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if not _is_safe(info):
        return refused("unsafe-path", message="the path leads out of the folder it is unpacked to; zip plain names")
    if info.flag_bits & _ENCRYPTED:
        return refused("encrypted", message="it is encrypted, and the scorer has no password; zip it without one")
    if kind == stat.S_IFLNK:
        return refused("symlink", message="it is a symbolic link, not a file; zip the mask that it leads to")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return refused("special-file", message=f"it is a device, pipe or socket (mode {kind:o}), no file; leave it out")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        return refused("zip-method", message=f"compressed with {method}, which not every unzip knows; store it")
    if info.header_offset in overlapping:
        return refused("overlap", message="its bytes are those of another member too, as in a zip bomb; zip again")
    return None


def _no_mask(info: zipfile.ZipInfo) -> Finding | None:
    """Return a finding if a member is not a mask that the scorer reads."""
    path = PurePosixPath(info.filename)
    warning = partial(Finding, "warning", member=info.filename)
    if not _is_plain(info):
        return warning(
            "system-file", message="hidden, or a system's own file; the scorer does not see it: leave it out"
        )
    if info.is_dir() and path.suffix == ".tif":
        text = "a folder; the scorer takes it for a mask: leave it out"
        return Finding("error", "folder-as-mask", info.filename, text)
    if info.is_dir() or path.suffix.lower() in _TIFF_SUFFIXES:
        return None
    if path.suffix.lower() in _ARCHIVES:
        return warning("nested-archive", message="an archive in the zip; the scorer does not open it: leave it out")
    return warning("unexpected-file", message="not a .tif; the scorer does not look at it: leave it out")


def _overlapping(members: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Return the header offsets of members that share bytes with another member."""
    shared: set[int] = set()
    for before, after in pairwise(sorted(members, key=lambda info: info.header_offset)):
        if before.header_offset + _HEADER_BYTES + before.compress_size > after.header_offset:
            shared |= {before.header_offset, after.header_offset}
    return shared


def _is_safe(info: zipfile.ZipInfo) -> bool:
    name = info.orig_filename
    drive = re.match(r"[A-Za-z]:", name)
    return not (name.startswith("/") or drive or "\\" in name or "\0" in name or ".." in name.split("/"))


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Return True if no part of the path is hidden or belongs to an operating system."""
    parts = info.filename.rstrip("/").split("/")
    hidden = [part for part in parts if part.startswith(".") and part not in (".", "..")]
    return not hidden and not any(part.lower() in _SYSTEM_NAMES for part in parts)


def _scorer_id(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _ids_by_name(images: Sequence[Volume]) -> dict[str, str]:
    """Map every name that a member can have to a volume id; more exact names have priority."""
    cut = {_scorer_id(image.id): image.id for image in images}
    return {name.casefold(): volume for name, volume in cut.items()} | cut | {image.id: image.id for image in images}


def _volume_of(name: str, ids: dict[str, str]) -> str | None:
    scorer_id = _scorer_id(name)
    candidates = (PurePosixPath(name).stem, scorer_id, scorer_id.casefold())
    return next((ids[candidate] for candidate in candidates if candidate in ids), None)


def _extra(name: str, images: Sequence[Volume]) -> Finding:
    known = ", ".join(image.id for image in images[:3]) + (", ..." if len(images) > 3 else "")
    text = f"no image has the id {_scorer_id(name)!r} (they have {known}); leave it out, or check the images given"
    return Finding("error", "extra-id", name, text)


def _check_mask_name(name: str, volume: str) -> list[Finding]:
    """Check the name of a volume's only mask as the scorer sees it."""
    path, seen = PurePosixPath(name), _scorer_id(name)
    if path.suffix != ".tif":
        text = f"the scorer looks for *.tif alone and does not find {path.name}; rename it to {volume}.tif"
        return [Finding("error", "suffix", name, text)]
    if seen != _scorer_id(volume):
        text = f"upper and lower case count: the scorer sees the id {seen}, the volume's is {volume}; rename it"
        return [Finding("error", "wrong-case", name, text)]
    if path.name != f"{seen}.tif":
        text = f"the scorer cuts the id at the first dot and sees {seen}; use names without other dots"
        return [Finding("warning", "dotted-name", name, text)]
    return []
