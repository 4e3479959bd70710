"""Link components across blocks: save the faces of each block, link groups of blocks, unite all.

This stage lies between a scan of blocks and the verdict on its components; :mod:`nx47dask.merge.components` has the
algorithm. All data goes through summary files, so that neither client nor scheduler holds it: a link task reads the
summaries of its group of blocks and of their neighbours, and the task that unites a graph reads one group at a time.
An empty block leaves no summary, since its components are known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from nx47dask.engine import Batch, Pipeline, Result, Task
from nx47dask.files.summaries import read_summary, write_summary
from nx47dask.geometry import Block, BlockGrid
from nx47dask.kernels.components import AttributeName, BlockComponents, Face, Labelling, empty_components
from nx47dask.merge.components import Components, Part, forward_offsets, link_blocks, unite
from nx47dask.stages.load import TASK_FILE_BYTES
from nx47dask.stages.volume_job import VolumeJob

__all__ = [
    "BlockScan",
    "Graph",
    "Group",
    "count_links",
    "face_bytes",
    "link",
    "resolve_batch",
    "save_components",
    "union_bytes",
    "unite_graph",
]

BLOCKS_PER_GROUP = 32
"""Blocks that a task links."""
FACE_BYTES_PER_VOXEL = 4
"""Memory of labels, per voxel of the faces of blocks."""
SHARED_PER_FACE_VOXEL = 0.0015
"""Shared components per voxel of the faces: 24 million in 10,240 blocks of 512 voxels a side."""
UNITE_BYTES_PER_SHARED = 250
"""Memory of a union, per shared component with its links and attributes."""


@dataclass(frozen=True)
class BlockScan:
    """Labelling of every block by a stage.

    Attributes
    ----------
    job : VolumeJob
    grid : BlockGrid
        The blocks.
    stage : str
        Name of the summaries.
    labelling : Labelling
    attributes : tuple of str
        Names of the attributes of each component.
    """

    job: VolumeJob
    grid: BlockGrid
    stage: str
    labelling: Labelling
    attributes: tuple[AttributeName, ...]

    def path(self, number: int) -> Path:
        """Return the file with the summary of a block."""
        return self.job.summary(self.stage, number)

    def link_path(self, group: int) -> Path:
        """Return the file with the links of a group of blocks and the attributes of its shared components."""
        return self.job.summary(f"{self.stage}.link", group)

    def resolve_path(self, group: int) -> Path:
        """Return the file with the verdicts on the shared components of a group's blocks, by number of the block."""
        return self.job.summary(f"{self.stage}.resolve", group)

    def of_empty(self, number: int) -> BlockComponents:
        """Return the components of a block without foreground."""
        block = self.grid.numbered(number)
        inner = self.grid.inner_faces(block)
        return empty_components(block.box.shape, self.labelling, self.attributes, inner, block.box.start[0])


@dataclass(frozen=True)
class Group:
    """Blocks that a task links; their shared components are consecutive nodes of a graph.

    Attributes
    ----------
    index : int
    shared : dict of int to int
        Number of shared components, at least one, by number of the block, in the order of the nodes.
    """

    index: int
    shared: Mapping[int, int]


@dataclass(frozen=True)
class Graph:
    """Shared components that may be linked to one another: those of all blocks, or of a layer of blocks."""

    groups: tuple[Group, ...]

    @property
    def nodes(self) -> int:
        """Number of shared components."""
        return sum(sum(group.shared.values()) for group in self.groups)

    @property
    def starts(self) -> dict[int, int]:
        """First node of each block, by number of the block."""
        shared = {number: count for group in self.groups for number, count in group.shared.items()}
        return dict(zip(shared, accumulate(shared.values(), initial=0), strict=False))

    def split(self, values: NDArray[Any]) -> Iterator[tuple[Group, dict[int, NDArray[Any]]]]:
        """Split the values of all nodes by group and block."""
        first = 0
        for group in self.groups:
            of_blocks = {}
            for number, count in group.shared.items():
                of_blocks[number] = values[first : first + count]
                first += count
            yield group, of_blocks


class LinkedGroup(TypedDict):
    """Result of linking a group of blocks: the number of pairs of components, and the files."""

    pairs: int
    files: dict[str, int]


def save_components(components: BlockComponents, path: Path, **more: NDArray[np.generic]) -> None:
    """Write the faces and attributes of the shared components of a block, and ``more`` that only the block needs."""
    write_summary(path, {**_summary(components), **more})


def link(scan: BlockScan, shared: Mapping[int, int], empty: Collection[int]) -> Pipeline[list[Graph]]:
    """Link all blocks, with a task for each group of neighbouring blocks.

    Parameters
    ----------
    scan : BlockScan
        Its tasks are done.
    shared : mapping of int to int
        Number of shared components of each block that is not empty, by number of the block.
    empty : collection of int
        Numbers of the blocks without foreground.

    Returns
    -------
    list of Graph
        A graph for all blocks, or for each layer of blocks if slices are labelled on their own; empty if no component
        is shared.
    """
    counts = {**shared, **{number: len(scan.of_empty(number).shared) for number in empty}}
    graphs = make_graphs(scan, counts)
    groups = sum(len(graph.groups) for graph in graphs)
    if groups:
        yield Batch(f"{scan.stage}.link", _link_tasks(scan, graphs, empty), groups, 0)
    return graphs


def make_graphs(scan: BlockScan, counts: Mapping[int, int]) -> list[Graph]:
    """Put the blocks with shared components into groups of neighbours, and these into graphs."""
    blocks = [block for block in scan.grid if counts.get(block.number)]
    layer: Callable[[Block], int] = (lambda block: block.index[0]) if scan.labelling.per_slice else lambda block: 0
    graphs: list[Graph] = []
    index = 0
    for _, of_layer in groupby(sorted(blocks, key=layer), key=layer):
        numbers = [block.number for block in of_layer]
        parts = [numbers[n : n + BLOCKS_PER_GROUP] for n in range(0, len(numbers), BLOCKS_PER_GROUP)]
        groups = [Group(index + n, {number: counts[number] for number in part}) for n, part in enumerate(parts)]
        graphs.append(Graph(tuple(groups)))
        index += len(groups)
    return graphs


def link_group(scan: BlockScan, group: Group, starts: Mapping[int, int], empty: Collection[int]) -> LinkedGroup:
    """Link a group of blocks with their forward neighbours; ``starts`` has the first node of each of these blocks."""
    summaries = {
        number: _summary(scan.of_empty(number)) if number in empty else read_summary(scan.path(number))
        for number in starts
    }
    pairs = list(_pairs(scan, group, starts, summaries))
    names = [f"attribute.{name}" for name in scan.attributes]
    path = scan.link_path(group.index)
    write_summary(
        path,
        {
            "pairs": np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64),
            **{name: np.concatenate([summaries[number][name] for number in group.shared]) for name in names},
        },
    )
    return {"pairs": sum(map(len, pairs)), "files": scan.job.files(path)}


def resolve_batch(scan: BlockScan, graphs: Sequence[Graph], function: Callable[..., Result], *arguments: Any) -> Batch:
    """Make a batch with a task for each graph: ``function(scan, graph, *arguments)``."""
    tasks = (
        Task(number, f"components of graph {number}", function, (scan, graph, *arguments))
        for number, graph in enumerate(graphs)
    )
    return Batch(f"{scan.stage}.resolve", tasks, len(graphs), 0)


def unite_graph(scan: BlockScan, graph: Graph) -> Components:
    """Unite the linked components of a graph and combine their attributes, reading one group at a time."""
    return unite(graph.nodes, (_part(scan, group) for group in graph.groups))


def face_bytes(grid: BlockGrid) -> int:
    """Bound the bytes of the summaries of labelled blocks: few labels over many voxels compress well."""
    return len(grid) * (TASK_FILE_BYTES + int(_face_voxels(grid) * 0.5))


def union_bytes(grid: BlockGrid) -> int:
    """Bound the bytes of memory of linking a group of blocks or of uniting all blocks, whichever is larger."""
    if len(grid) == 1:
        return 0
    read = min(len(grid), 3 * BLOCKS_PER_GROUP) * _face_voxels(grid) * FACE_BYTES_PER_VOXEL
    return max(read, int(len(grid) * _face_voxels(grid) * SHARED_PER_FACE_VOXEL * UNITE_BYTES_PER_SHARED))


def count_links(grid: BlockGrid, labelling: Labelling) -> tuple[int, int]:
    """Count the tasks that link blocks, and those that unite graphs."""
    layers = grid.counts[0] if labelling.per_slice else 1
    blocks = len(grid) // layers
    return (layers * -(-blocks // BLOCKS_PER_GROUP), layers) if blocks > 1 else (0, 0)


def _face_voxels(grid: BlockGrid) -> int:
    """Count the voxels at the faces of a block."""
    z, y, x = grid.block((0, 0, 0)).box.shape
    return 2 * (z * y + y * x + z * x)


def _link_tasks(scan: BlockScan, graphs: Sequence[Graph], empty: Collection[int]) -> Iterator[Task]:
    offsets = forward_offsets(scan.labelling)
    for graph in graphs:
        starts = graph.starts
        for group in graph.groups:
            blocks = [scan.grid.numbered(number) for number in group.shared]
            neighbours = (scan.grid.neighbour(block, offset) for block in blocks for offset in offsets)
            wanted = dict.fromkeys([*group.shared, *(block.number for block in neighbours if block)])
            near = {number: starts[number] for number in wanted if number in starts}
            place = f"{len(blocks)} blocks from {blocks[0].number}"
            yield Task(group.index, place, link_group, (scan, group, near, {n for n in near if n in empty}))


def _pairs(
    scan: BlockScan, group: Group, starts: Mapping[int, int], summaries: Mapping[int, Mapping[str, NDArray[Any]]]
) -> Iterator[NDArray[np.int64]]:
    """Yield pairs of linked nodes."""
    offsets = forward_offsets(scan.labelling)
    for number in group.shared:
        for offset in offsets:
            near = scan.grid.neighbour(scan.grid.numbered(number), offset)
            if near is not None and near.number in starts:
                pairs = link_blocks(_faces(summaries[number]), _faces(summaries[near.number]), offset, scan.labelling)
                yield pairs - 1 + np.array([starts[number], starts[near.number]])


def _part(scan: BlockScan, group: Group) -> Part:
    saved = read_summary(scan.link_path(group.index))
    return Part(saved["pairs"], {name: saved[f"attribute.{name}"] for name in scan.attributes})


def _summary(components: BlockComponents) -> dict[str, NDArray[np.generic]]:
    faces = {f"face.{axis}.{side}": plane for (axis, side), plane in components.faces.items()}
    return {**faces, **{f"attribute.{name}": values for name, values in components.shared_attributes().items()}}


def _faces(summary: Mapping[str, NDArray[Any]]) -> dict[Face, NDArray[np.unsignedinteger]]:
    keys = (key.split(".") for key in summary if key.startswith("face."))
    return {(int(axis), int(side)): summary[f"face.{axis}.{side}"] for _, axis, side in keys}
