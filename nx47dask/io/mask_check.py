"""Check of a mask file as the competition's scorer reads it: with Pillow, page by page."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL
import tifffile
from PIL import Image, ImageSequence, UnidentifiedImageError

from nx47dask.io.arrays import DECODE_ERRORS

if TYPE_CHECKING:
    from typing import BinaryIO

    from nx47dask.geometry import Index

__all__ = ["Finding", "check_mask", "largest_mask_bytes"]

# Errors of Pillow for bytes that contradict their tags.
_PILLOW_ERRORS = (
    *DECODE_ERRORS, SyntaxError, AttributeError, AssertionError, ArithmeticError, MemoryError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
_BYTES_PER_VOXEL = 8  # as int64, so that the finding names this trap and not the size
_BYTES_PER_PAGE = 4096
_BYTES_PER_FILE = 1 << 20  # an OME-XML or ImageJ description
_TILE_VOXELS = 1 << 22

_PHOTOMETRIC, _ORIENTATION, _TILE_WIDTH, _TILE_LENGTH, _IMAGE_DEPTH = 262, 274, 322, 323, 32997
_COMMON_COMPRESSIONS = {"raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"}  # as Pillow names them
_DTYPES = {"1": "1 bit deep", "I;16": "uint16", "I;16B": "uint16", "I": "32-bit integers", "F": "float32"}


@dataclass(frozen=True)
class Finding:
    """Error or warning of a validation.

    Attributes
    ----------
    level : {"error", "warning"}
        An error costs the score of a mask or of the submission; a warning may cost it.
    code : str
        Kind of the finding; ``docs/submission.md`` lists all kinds.
    member : str
        Member of the zip, id of a volume, or name of the zip.
    message : str
        The value found, the value expected, and what to do.
    """

    level: Literal["error", "warning"]
    code: str
    member: str
    message: str

    def __str__(self) -> str:
        return f"{self.member}: {self.message}"


def largest_mask_bytes(shape: Index) -> int:
    """Return the largest size in bytes of a mask file of a shape (Z, Y, X), in any dtype and uncompressed."""
    z, y, x = shape
    return z * (y * x * _BYTES_PER_VOXEL + _BYTES_PER_PAGE) + _BYTES_PER_FILE


def check_mask(file: BinaryIO, member: str, shape: Index) -> list[Finding]:
    """Check a mask by reading it as the scorer does: ``np.stack`` of the pages that Pillow gives.

    Only one page is in memory at a time. Nothing larger than a page of the volume is decoded.

    Parameters
    ----------
    file : binary file
        The mask, as a real file; Pillow would read any other stream completely for every page.
    member : str
        Name of the mask, for the findings.
    shape : tuple of int
        Shape of the volume in voxels (Z, Y, X).

    Returns
    -------
    list of Finding
        Findings of its form, or, if the form is right, of its values.
    """
    error = partial(Finding, "error")
    pages, voxels = shape[0], shape[1] * shape[2]
    limit = 2 * (Image.MAX_IMAGE_PIXELS or voxels)
    if voxels > limit:
        text = f"slices of {voxels:,} pixels; Pillow, and so the scorer, refuses more than {limit:,}; not read"
        return [Finding("warning", "page-limit", member, text)]
    # Pillow warns of odd tags and large pages; the checks below find those that matter.
    with warnings.catch_warnings(action="ignore"):
        try:
            image = Image.open(file)
        except _PILLOW_ERRORS as failure:
            why = _seen_otherwise(file, member) if isinstance(failure, UnidentifiedImageError) else str(failure)
            return [error("unreadable", member, f"Pillow cannot open it: {why}; write uint8 with LZW")]
        with image:
            try:
                return _check_form(image, member, shape) or _check_values(image, member, shape)
            except _PILLOW_ERRORS as failure:
                text = f"Pillow stops at page {image.tell()} of {pages} ({type(failure).__name__}: {failure})"
                return [error("unreadable", member, f"{text}; the file is damaged: write it again")]


def _check_form(image: Image.Image, member: str, shape: Index) -> list[Finding]:
    """Check the first page's tags and the number of pages; after an error, the values are not read."""
    error = partial(Finding, "error")
    if image.format != "TIFF":
        return [error("not-tiff", member, f"it is {image.format} under the name of a TIFF; write a multipage TIFF")]
    finding = _check_page(image, member)
    if finding is not None:
        return [finding]
    pages: int = getattr(image, "n_frames", 1)
    if (image.height, image.width) != shape[1:]:
        seen = (pages, image.height, image.width)
        return [error("shape", member, f"its shape is {seen}, the volume's is {shape} (Z, Y, X)")]
    if pages != shape[0]:
        hint = "; a stack in one page (ImageJ's form) is one page to Pillow" if pages == 1 else ""
        text = f"Pillow reads {pages} pages, the volume has {shape[0]} slices{hint}: write one page per slice"
        return [error("page-count", member, text)]
    return []


def _check_page(page: Image.Image, member: str) -> Finding | None:
    """Return the first trap in the tags of a page, None if there is none."""
    error = partial(Finding, "error")
    tags = page.tag_v2  # type: ignore[attr-defined]  # of TIFF images
    if tags.get(_IMAGE_DEPTH, 1) != 1:
        text = f"one page holds {tags[_IMAGE_DEPTH]} slices (a volumetric TIFF) and Pillow reads only the first"
        return error("volumetric", member, f"{text}: write one page per slice, without volumetric=True")
    # A page without the tag is min-is-white to Pillow.
    if tags.get(_PHOTOMETRIC, 0) == 0 and page.mode in ("1", "L"):
        kind = "bool (1-bit) pages" if page.mode == "1" else "pages"
        text = f"{kind} with photometric min-is-white: the scorer reads the mask inverted"
        return error("inverted", member, f"{text}; write (mask * 255).astype('uint8') as min-is-black")
    if page.mode != "L":
        dtype = _DTYPES.get(page.mode, page.mode)
        return error("dtype", member, f"the pages are {dtype}; a mask is uint8, one sample per voxel: convert it")
    if tags.get(_ORIENTATION, 1) != 1:
        text = f"the orientation tag is {tags[_ORIENTATION]}: Pillow turns or mirrors the pages; write it without one"
        return error("orientation", member, text)
    tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
    if tile > max(_TILE_VOXELS, 4 * page.width * page.height):
        text = f"tiles of {tile:,} voxels for pages of {page.width * page.height:,}; write smaller ones"
        return error("too-large", member, text)
    return None


def _check_values(image: Image.Image, member: str, shape: Index) -> list[Finding]:
    """Decode page after page, and check the values of all pages together."""
    error, warning = partial(Finding, "error"), partial(Finding, "warning")
    counts = np.zeros(256, np.int64)
    compressions = set()
    for z, page in enumerate(ImageSequence.Iterator(image)):
        if (page.height, page.width) != shape[1:]:
            text = f"page {z} is {(page.height, page.width)}, page 0 is {shape[1:]}: the scorer cannot stack them"
            return [error("page-size", member, text)]
        finding = _check_page(page, member)
        if finding is not None:
            return [replace(finding, message=f"page {z}: {finding.message}")]
        compressions.add(page.info["compression"])
        counts += page.histogram()
    findings = _judge_values(counts, member)
    uncommon = sorted(compressions - _COMMON_COMPRESSIONS)
    if uncommon:
        names = ", ".join(uncommon)
        text = f"compression {names}: Pillow {PIL.__version__} reads it, the scorer's may not; write it with LZW"
        findings.append(warning("compression", member, text))
    return findings


def _judge_values(counts: np.ndarray[tuple[int], np.dtype[np.int64]], member: str) -> list[Finding]:
    error, warning = partial(Finding, "error"), partial(Finding, "warning")
    values = [int(value) for value in np.flatnonzero(counts) if value != 0]
    if values in ([1, 2], [2]):
        text = f"{counts[2]:,} voxels hold 2, the label to ignore: the scorer takes them for surface; set them to 0"
        return [error("class-2", member, text)]
    if len(values) > 1:
        shown = ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
        text = f"{len(values)} values besides 0 ({shown}): every one of them counts as surface; threshold it to 0, 255"
        return [error("values", member, text)]
    if not values:
        return [warning("empty", member, f"all {counts.sum():,} voxels are 0: no surface at all")]
    share = 1 - counts[0] / counts.sum()
    if 0.5 < share < 1:
        text = f"{100 * share:.0f} % of the voxels are surface; is it inverted? Papyrus sheets are 5 to 20 %"
        return [warning("density", member, text)]
    if counts[0] == 0:
        return [warning("full", member, f"all {counts.sum():,} voxels are {values[0]}: everything is surface")]
    return []


def _seen_otherwise(file: BinaryIO, name: str) -> str:
    """Describe a file by tifffile, which reads more kinds than Pillow."""
    try:
        file.seek(0)
        with tifffile.TiffFile(file, name=name) as tif:
            page = tif.pages.first
            return f"its pages are {page.dtype}, compression {getattr(page.compression, 'name', page.compression)}"
    except (tifffile.TiffFileError, *_PILLOW_ERRORS):
        return "it is not a TIFF file, or a damaged one"
