"""The generated case of the union benchmark, small: the real task against scipy, and its layers."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nx47dask.files.summaries import read_summary
from nx47dask.geometry import BlockGrid
from nx47dask.kernels.components import Labelling
from nx47dask.stages.linking import BlockScan, make_graphs
from nx47dask.stages.postprocess import resolve_components
from tests.benchmarks.bench_union import RULES, make_case


def test_the_verdict_of_every_block_is_that_of_the_whole_graph(tmp_path):
    scan, graph, links = make_case(tmp_path, (3, 5, 4), 40, 120)
    assert len(graph.groups) == 2
    record = resolve_components(scan, graph, RULES, frozenset())
    parts = [read_summary(scan.link_path(group.index)) for group in graph.groups]
    pairs = np.concatenate([part["pairs"] for part in parts])
    assert len(pairs) == links > 3000
    number, component = connected_components(
        coo_array((np.ones(len(pairs)), pairs.T), shape=(graph.nodes, graph.nodes)), directed=False
    )
    voxels = np.bincount(component, np.concatenate([part["attribute.voxels"] for part in parts]))
    strong = np.bincount(component, np.concatenate([part["attribute.strong"] for part in parts])) > 0
    expected = np.where(strong, np.where(voxels < 2000, 2, 0), 1)[component]
    assert (record["shared"], record["components"]) == (graph.nodes, number)
    assert len(np.unique(expected)) == 3
    for group, of_blocks in graph.split(expected):
        verdict = read_summary(scan.resolve_path(group.index))
        assert verdict.keys() == {str(number) for number in of_blocks}
        assert all(np.array_equal(verdict[str(number)], values) for number, values in of_blocks.items())


def test_slices_on_their_own_make_a_graph_of_every_layer_of_blocks():
    grid = BlockGrid((30, 70, 60), (10, 10, 10))
    shared = {block.number: 1 + block.number % 3 for block in grid if block.index != (1, 2, 3)}
    scan = BlockScan(None, grid, "measure.sections", Labelling(26, per_slice=True), ("slice",))
    graphs = make_graphs(scan, shared)
    assert [{grid.numbered(n).index[0] for group in graph.groups for n in group.shared} for graph in graphs] == [
        {0},
        {1},
        {2},
    ]
    assert [group.index for graph in graphs for group in graph.groups] == list(range(6))
    assert sum(graph.nodes for graph in graphs) == sum(shared.values())
    assert max(len(group.shared) for graph in graphs for group in graph.groups) == 32
