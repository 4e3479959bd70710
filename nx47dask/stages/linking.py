"""Components across blocks: save what a block shows its neighbours, link groups of blocks, gather the whole.

The stage between a scan of blocks and the verdict on its components; :mod:`nx47dask.merge.components` has the
algorithm. All data goes through summary files, so neither client nor scheduler ever holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Task
from nx47dask.geometry import BlockGrid
from nx47dask.io import read_summary, write_summary
from nx47dask.kernels.components import BlockComponents, Face, Labelling
from nx47dask.merge.components import forward_offsets, link_blocks, reduce_attributes, unite
from nx47dask.stages.job import VolumeJob

__all__ = ["Gathered", "gather", "link_batch", "save_components"]

BLOCKS_PER_LINK_TASK = 32


@dataclass(frozen=True)
class Gathered:
    """The components of a whole volume that cross block faces.

    Attributes
    ----------
    offsets : ndarray of int64, shape (blocks + 1,)
        Nodes of block b are ``offsets[b]`` to ``offsets[b + 1]``: its shared components in order.
    component : ndarray of int64, shape (nodes,)
        Component of every node.
    number : int
        Number of components.
    attributes : dict of str to ndarray, shape (components,)
        Attributes of the whole components.
    """

    offsets: NDArray[np.int64]
    component: NDArray[np.int64]
    number: int
    attributes: dict[str, NDArray[np.generic]]


def save_components(found: BlockComponents, path: Path, **more: NDArray[np.generic]) -> None:
    """Write the shared components of a block, their faces and attributes, and more that only the block itself needs."""
    faces = {f"face.{axis}.{side}": plane for (axis, side), plane in found.faces.items()}
    attributes = {f"attribute.{name}": values for name, values in found.shared_attributes().items()}
    write_summary(path, {**faces, **attributes, **more, "count": np.array(len(found.shared))})


def link_batch(job: VolumeJob, grid: BlockGrid, stage: str, labelling: Labelling) -> Batch:
    """Tasks that link the blocks of a scan, a group of neighbouring blocks each."""
    numbers = [block.number for block in grid]
    groups = [
        tuple(numbers[start : start + BLOCKS_PER_LINK_TASK]) for start in range(0, len(numbers), BLOCKS_PER_LINK_TASK)
    ]
    tasks = (
        Task(index, f"blocks {group[0]} to {group[-1]}", link_group, (job, grid, stage, labelling, index, group))
        for index, group in enumerate(groups)
    )
    return Batch(f"{stage}.link", tasks, len(groups), 0)


def link_group(
    job: VolumeJob, grid: BlockGrid, stage: str, labelling: Labelling, index: int, numbers: tuple[int, ...]
) -> dict[str, Any]:
    """Link a group of blocks with their forward neighbours, inside the group and outside."""
    members = {number: read_summary(job.summary(stage, number)) for number in numbers}
    pairs = list(_group_pairs(job, grid, stage, labelling, members))
    names = [key for key in members[numbers[0]] if key.startswith("attribute.")]
    path = job.summary(f"{stage}.link", index)
    write_summary(
        path,
        {
            "pairs": np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64),
            "numbers": np.array(numbers, dtype=np.int64),
            "counts": np.array([members[number]["count"] for number in numbers], dtype=np.int64),
            **{name: np.concatenate([members[number][name] for number in numbers]) for name in names},
        },
    )
    return {"pairs": sum(map(len, pairs)), "files": job.files(path)}


def gather(job: VolumeJob, grid: BlockGrid, stage: str, groups: int) -> Gathered:
    """Unite the linked components of all groups and combine their attributes."""
    parts = [read_summary(job.summary(f"{stage}.link", index)) for index in range(groups)]
    counts = np.zeros(len(grid) + 1, dtype=np.int64)
    for part in parts:
        counts[part["numbers"] + 1] = part["counts"]
    offsets = np.cumsum(counts)
    nodes = int(offsets[-1])
    packed = np.concatenate([part["pairs"] for part in parts])
    component, number = unite(nodes, offsets[packed >> 32] + (packed & 0xFFFFFFFF) - 1)
    attributes = {}
    for key in (key for key in parts[0] if key.startswith("attribute.")):
        values = np.zeros(nodes, dtype=parts[0][key].dtype)
        for part in parts:
            values[_nodes_of(part, offsets)] = part[key]
        attributes[key.removeprefix("attribute.")] = values
    return Gathered(offsets, component, number, reduce_attributes(component, number, attributes))


def _group_pairs(
    job: VolumeJob, grid: BlockGrid, stage: str, labelling: Labelling, members: dict[int, dict[str, Any]]
) -> Iterator[NDArray[np.int64]]:
    """Pairs of nodes, each packed as block number and label."""
    offsets = forward_offsets(labelling)
    outside: dict[int, dict[str, Any]] = {}
    for number, summary in members.items():
        block = grid.numbered(number)
        for offset in offsets:
            other = grid.neighbour(block, offset)
            if other is None or summary["count"] == 0:
                continue
            if other.number not in members and other.number not in outside:
                outside[other.number] = read_summary(job.summary(stage, other.number))
            neighbour = members.get(other.number) or outside[other.number]
            if neighbour["count"]:
                pairs = link_blocks(_faces(summary), _faces(neighbour), offset, labelling)
                yield pairs + np.array([number << 32, other.number << 32])


def _faces(summary: dict[str, Any]) -> dict[Face, NDArray[np.unsignedinteger]]:
    keys = (key.split(".") for key in summary if key.startswith("face."))
    return {(int(axis), int(side)): summary[f"face.{axis}.{side}"] for _, axis, side in keys}


def _nodes_of(part: dict[str, Any], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Nodes of a group's shared components, in the group's order."""
    starts = offsets[part["numbers"]]
    before = np.cumsum(part["counts"]) - part["counts"]
    nodes: NDArray[np.int64] = np.arange(int(part["counts"].sum())) + np.repeat(starts - before, part["counts"])
    return nodes
