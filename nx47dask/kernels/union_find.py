"""Union-find over numbered nodes, for compiled loops: a node points to its parent, a root to itself.

A parent never has a higher number than its node, so a single sweep in order numbers all components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled

__all__ = ["find_root", "join", "join_all", "number_components"]

Parents = NDArray[np.signedinteger[Any]]


@compiled
def find_root(parents: Parents, node: int) -> int:
    """Find the root of a node; the path to it is halved."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@compiled
def join(parents: Parents, first: int, second: int) -> bool:
    """Unite the components of two nodes; return True if they were separate."""
    low, high = find_root(parents, first), find_root(parents, second)
    parents[max(low, high)] = min(low, high)
    return low != high


@compiled
def join_all(parents: Parents, pairs: NDArray[np.int64]) -> None:
    """Unite the components of pairs of nodes, shape (pairs, 2)."""
    for row in range(len(pairs)):
        join(parents, pairs[row, 0], pairs[row, 1])


@compiled
def number_components(parents: Parents) -> int:
    """Replace parents by component numbers, in the order of first nodes; return the number of components."""
    number = 0
    for node in range(len(parents)):
        parent = parents[node]
        if parent == node:
            parents[node] = number
            number += 1
        else:
            parents[node] = parents[parent]
    return number
