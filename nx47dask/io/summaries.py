"""Small files of named arrays that tasks leave for merges: compressed, replaced as a whole."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from nx47dask.io.atomic import replace_file

__all__ = ["read_summary", "write_summary"]

_ZSTD = Zstd(level=1)


def write_summary(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays; a file of that name is replaced in one step."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    with replace_file(path, durable=False) as temporary:
        temporary.write_bytes(_ZSTD.encode(buffer.getbuffer()))


def read_summary(path: Path) -> dict[str, NDArray[Any]]:
    """Read what :func:`write_summary` wrote."""
    with np.load(io.BytesIO(_ZSTD.decode(path.read_bytes())), allow_pickle=False) as arrays:
        return dict(arrays)
