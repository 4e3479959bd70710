"""Union-find over numbered nodes, for compiled loops: a node points at its parent, a root at itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled

__all__ = ["find_root"]


@compiled
def find_root(parents: NDArray[np.int32], node: int) -> int:
    """Root of a node; the way to it is halved."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
