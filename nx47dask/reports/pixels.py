"""Encode pictures of planes as WebP and PNG."""

from __future__ import annotations

import base64
import io
import itertools
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["classes_png", "data_uri", "fitted", "grey_webp"]

WEBP_QUALITY, WEBP_METHOD = 60, 2
LEVELS = 5
"""Number of steps of coverage in a shrunk overlay."""


def fitted(shape: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Return the shape of the picture of a plane with at most ``pixels`` on its longest side; it is never enlarged."""
    scale = min(1.0, pixels / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def grey_webp(plane: NDArray[np.unsignedinteger], window: tuple[float, float], size: tuple[int, int]) -> bytes:
    """Encode a plane of the scan in grey.

    Parameters
    ----------
    plane : ndarray of uint8 or uint16, shape (rows, columns)
    window : tuple of float
        Grey values drawn black and white; in between the scale is linear.
    size : tuple of int
        Rows and columns of the picture; pixels are means of the area they cover.

    Returns
    -------
    bytes
        Lossy WebP.
    """
    low, high = window
    grey = (_shrunk(plane, size) - low) / max(high - low, 1)
    image = Image.fromarray(np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8))
    return _encoded(image, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)


def classes_png(mask: NDArray[np.bool_], label: NDArray[np.uint8] | None, size: tuple[int, int]) -> bytes:
    """Encode mask and labels of a plane in a small picture that the colour filters of the page turn into overlays.

    Parameters
    ----------
    mask : ndarray of bool, shape (rows, columns)
    label : ndarray of uint8 or None
        0 background, 1 surface, 2 ignored.
    size : tuple of int
        Rows and columns of the picture.

    Returns
    -------
    bytes
        Palette PNG: red is the share of a pixel in the mask, green in the labelled surface, blue in what is ignored,
        alpha the greatest of them. In a shrunk plane shares are rounded up, so thin sheets fade but do not vanish.
    """
    channels = [mask] if label is None else [mask, label == 1, label == 2]
    while len(channels) > 1 and not channels[-1].any():
        channels.pop()
    levels = 1 if size == mask.shape else LEVELS
    index = np.zeros(size, dtype=np.uint8)
    for channel in channels:
        index = index * np.uint8(levels + 1) + np.ceil(levels * _shrunk(channel, size) - 1e-4).astype(np.uint8)
    steps = [round(255 * step / levels) for step in range(levels + 1)]
    shares = [*itertools.product(steps, repeat=len(channels))]
    image = Image.fromarray(index, mode="P")
    image.putpalette([value for share in shares for value in (*share, 0, 0)[:3]])
    return _encoded(image, "PNG", compress_type=zlib.Z_RLE, transparency=bytes(map(max, shares)))


def data_uri(kind: str, data: bytes) -> str:
    """Return a picture (``webp``, ``png``) as the address of an image."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


def _shrunk(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Average a plane over the area of each pixel of a smaller picture."""
    values = plane.astype(np.float32)
    if size == plane.shape:
        return values
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BOX))


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
