"""Components of blocks, linked and united, against whole-volume scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nx47dask.geometry import BlockGrid
from nx47dask.kernels.components import Labelling, find_components
from nx47dask.merge.components import forward_offsets, link_blocks, reduce_attributes, unite

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
    component, number = unite(nodes, np.concatenate(pairs))
    shared = {n: np.concatenate([part.shared_attributes()[n] for part in found.values()]) for n in names}
    united = reduce_attributes(component, number, shared)
    rows += [tuple(united[name][i] for name in names) for i in range(number)]
    return sorted((int(v), bool(s), bool(b), int(z)) for v, s, b, z in rows)


@given(states, labellings, blocks)
def test_any_cut_gives_the_components_of_the_whole(case, labelling, block_shape):
    state = random_state(case)
    labels, number = scipy_labels(state, labelling)
    assert blockwise_attributes(state, labelling, block_shape) == whole_attributes(state, labels, number, labelling)


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
