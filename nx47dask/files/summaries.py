"""Named arrays that tasks pass to merges: as small files, or as text inside a record."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from nx47dask.files.atomic import write_bytes

__all__ = ["pack_arrays", "read_summary", "unpack_arrays", "write_summary"]

_ZSTD = Zstd(level=1)


def write_summary(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays to a file; an existing file is replaced atomically."""
    write_bytes(path, _compress(arrays), durable=False)


def read_summary(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file of :func:`write_summary`."""
    return _decompress(path.read_bytes())


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Encode a few named arrays as text, for the record of a task."""
    return base64.b64encode(_compress(arrays)).decode("ascii")


def unpack_arrays(packed: str) -> dict[str, NDArray[Any]]:
    """Decode the text of :func:`pack_arrays`."""
    return _decompress(base64.b64decode(packed))


def _compress(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    compressed: bytes = _ZSTD.encode(buffer.getbuffer())
    return compressed


def _decompress(compressed: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(_ZSTD.decode(compressed)), allow_pickle=False) as arrays:
        return dict(arrays)
