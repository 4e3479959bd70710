"""Components of blocks, linked and united, against whole-volume scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nx47dask.geometry import BlockGrid
from nx47dask.kernels.components import Labelling, empty_components, find_components
from nx47dask.merge.components import Part, forward_offsets, link_blocks, unite

STRUCTURE = {6: 1, 18: 2, 26: 3}

states = st.tuples(st.tuples(*[st.integers(1, 9)] * 3), st.floats(0.05, 0.9), st.integers(0, 9999))
blocks = st.tuples(*[st.integers(1, 5)] * 3)
labellings = st.builds(Labelling, st.sampled_from([6, 18, 26]), st.booleans(), st.booleans())


def random_state(case):
    shape, density, seed = case
    rng = np.random.default_rng(seed)
    return ((rng.random(shape) < density) * rng.integers(1, 3, shape, dtype=np.uint8)).astype(np.uint8)


def scipy_labels(state, labelling):
    structure = ndimage.generate_binary_structure(3, STRUCTURE[labelling.connectivity])
    if labelling.per_slice:
        structure[[0, 2]] = False
    return ndimage.label(state == 0 if labelling.background else state != 0, structure)


def whole_attributes(state, labels, number, labelling):
    """Multiset of (voxels, strong, border, first slice) of the components of a whole volume."""
    found = []
    for label in range(1, number + 1):
        where = np.argwhere(labels == label)
        axes = (1, 2) if labelling.per_slice else (0, 1, 2)
        border = any((where[:, a] == 0).any() or (where[:, a] == state.shape[a] - 1).any() for a in axes)
        found.append((len(where), bool((state[labels == label] == 2).any()), bool(border), int(where[:, 0].min())))
    return sorted(found)


def blockwise_attributes(state, labelling, block_shape):
    """The same from blocks: complete components, and united ones."""
    names = ("voxels", "strong", "border", "slice")
    grid = BlockGrid(state.shape, block_shape)
    found = {
        block.number: find_components(
            np.ascontiguousarray(state[block.box.slices]), labelling, names, grid.inner_faces(block), block.box.start[0]
        )
        for block in grid
    }
    rows = [
        tuple(part.attributes[name][i] for name in names)
        for part in found.values()
        for i in np.flatnonzero(part.complete())
    ]
    start = dict(zip(found, itertools.accumulate([0] + [len(p.shared) for p in found.values()]), strict=False))
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for block in grid:
        for offset in forward_offsets(labelling):
            other = grid.neighbour(block, offset)
            if other is not None:
                linked = link_blocks(found[block.number].faces, found[other.number].faces, offset, labelling)
                pairs.append(linked - 1 + [start[block.number], start[other.number]])
    nodes = sum(len(part.shared) for part in found.values())
    links = np.concatenate(pairs)
    parts = [
        Part(links[n :: len(found)], {name: part.shared_attributes()[name] for name in names})
        for n, part in enumerate(found.values())
    ]
    united = unite(nodes, parts)
    rows += [tuple(united.attributes[name][i] for name in names) for i in range(united.number)]
    return sorted((int(v), bool(s), bool(b), int(z)) for v, s, b, z in rows)


@given(states, labellings, blocks)
def test_any_cut_gives_the_components_of_the_whole(case, labelling, block_shape):
    state = random_state(case)
    labels, number = scipy_labels(state, labelling)
    assert blockwise_attributes(state, labelling, block_shape) == whole_attributes(state, labels, number, labelling)


graphs = st.tuples(
    st.integers(1, 60), st.integers(0, 90), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 9999)
)


@given(graphs)
def test_a_graph_in_any_parts_has_the_components_of_scipy(case):
    nodes, links, cuts, seed = case
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, nodes, (links, 2))
    values = {
        "voxels": rng.integers(1, 9, nodes),
        "strong": rng.random(nodes) < 0.3,
        "slice": rng.integers(0, 99, nodes),
    }
    ends = [0, *sorted(min(cut, nodes) for cut in cuts), nodes]
    parts = [
        Part(links_of, {name: value[a:b] for name, value in values.items()})
        for (a, b), links_of in zip(itertools.pairwise(ends), np.array_split(pairs, len(ends) - 1), strict=True)
    ]
    found = unite(nodes, iter(parts))
    number, expected = connected_components(coo_array((np.ones(links), pairs.T), shape=(nodes, nodes)), directed=False)
    assert found.number == number
    assert len(set(zip(found.component.tolist(), expected.tolist(), strict=True))) == number
    for component in range(number):
        inside = found.component == component
        assert found.attributes["voxels"][component] == values["voxels"][inside].sum()
        assert found.attributes["strong"][component] == values["strong"][inside].any()
        assert found.attributes["slice"][component] == values["slice"][inside].min()


faces = st.tuples(*[st.tuples(st.booleans(), st.booleans())] * 3)


@given(st.tuples(*[st.integers(1, 5)] * 3), labellings, faces, st.integers(0, 9))
def test_an_empty_block_is_known_without_a_look(shape, labelling, inner, first):
    names = ("voxels", "strong", "border", "slice")
    known = empty_components(shape, labelling, names, inner, first)
    found = find_components(np.zeros(shape, np.uint8), labelling, names, inner, first)
    assert np.array_equal(known.labels, found.labels)
    assert np.array_equal(known.shared, found.shared)
    assert known.faces.keys() == found.faces.keys()
    assert all(np.array_equal(plane, found.faces[face]) for face, plane in known.faces.items())
    assert all(np.array_equal(known.attributes[name], found.attributes[name]) for name in names)


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 9), (26, 13)])
def test_half_of_the_neighbours_are_forward(connectivity, count):
    assert len(forward_offsets(Labelling(connectivity))) == count


def test_slices_on_their_own_have_no_neighbours_along_z():
    assert all(offset[0] == 0 for offset in forward_offsets(Labelling(26, per_slice=True)))
    assert len(forward_offsets(Labelling(26, per_slice=True))) == 4


def test_shared_labels_take_few_bytes():
    state = np.zeros((8, 8, 8), dtype=np.uint8)
    state[:, 3, 3] = 1
    found = find_components(state, Labelling(26), ("voxels",), ((False, True),) * 3)
    assert found.faces[0, 1].dtype == np.uint8
    assert found.shared.tolist() == [1]


@pytest.mark.parametrize("shape", [(1, 1, 9), (1, 7, 7), (3, 3, 3), (9, 9, 9), (8, 9, 33)])
@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_isolated_voxels_everywhere_are_labelled(shape, connectivity):
    """As many components as fit, which cc3d alone cannot label in odd shapes."""
    state = np.zeros(shape, dtype=np.uint8)
    state[::2, ::2, ::2] = 1
    found = find_components(state, Labelling(connectivity), ("voxels",), ((False, False),) * 3)
    assert len(found.attributes["voxels"]) == state.sum()
