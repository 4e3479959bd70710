"""Matched features against their definition, by ranks over Z2 on tiny volumes, and against other programs."""

from __future__ import annotations

import glob
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from nx47dask.metrics.loop_basis import loop_basis
from nx47dask.metrics.topology import count_features

EDGES = st.integers(1, 4)


@st.composite
def pairs(draw):
    shape = draw(st.tuples(EDGES, EDGES, EDGES))
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(bool, shape))


def cells(shape, dimension):
    """Cells in raster order of their lowest voxel and then of their type, as sets of voxel numbers."""
    number = np.arange(np.prod(shape)).reshape(shape)
    # An edge has the axis along which it runs for its type, a square the axis to which it is normal.
    kinds = {
        0: [(0, 0, 0)],
        1: [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
        2: [(0, 1, 1), (1, 0, 1), (1, 1, 0)],
        3: [(1, 1, 1)],
    }[dimension]
    for start in itertools.product(*map(range, shape)):
        for kind in kinds:
            stop = [a + k + 1 for a, k in zip(start, kind, strict=True)]
            if all(b <= n for b, n in zip(stop, shape, strict=True)):
                part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
                yield frozenset(number[part].ravel().tolist())


def reduce(vector, basis):
    while vector and vector.bit_length() in basis:
        vector ^= basis[vector.bit_length()]
    return vector


def extend(basis, vector):
    vector = reduce(vector, basis)
    if vector:
        basis[vector.bit_length()] = vector


def rank_of_image(cycles, boundaries):
    """Rank of the cycles modulo boundaries."""
    basis = dict(boundaries)
    for cycle in cycles:
        extend(basis, cycle)
    return len(basis) - len(boundaries)


def cycles_of(inside, positions, faces):
    """A basis of the cycles among some cells: the kernel of their boundary, by elimination with bookkeeping."""
    basis, cycles = {}, []
    for cell in inside:
        column, trace = faces(cell), 1 << positions[cell]
        while column and column.bit_length() in basis:
            other, other_trace = basis[column.bit_length()]
            column, trace = column ^ other, trace ^ other_trace
        if column:
            basis[column.bit_length()] = (column, trace)
        else:
            cycles.append(trace)
    return cycles


def matched_by_definition(a, b, dimension):
    """Cells outside the union that lower the rank of the homology of both masks when they enter in raster order."""
    union = set(np.flatnonzero(a | b).tolist())
    ordered = {d: list(cells(a.shape, d)) for d in range(4)}
    positions = {d: {cell: i for i, cell in enumerate(ordered[d])} for d in range(4)}

    def boundary(cell, d):
        if d == 0:
            return 0
        return sum(1 << i for face, i in positions[d - 1].items() if face < cell)

    images = []
    for mask in (a, b):
        voxels = set(np.flatnonzero(mask).tolist())
        inside = [cell for cell in ordered[dimension] if cell <= voxels]
        images.append(cycles_of(inside, positions[dimension], lambda cell: boundary(cell, dimension)))
    boundaries: dict[int, int] = {}
    higher = ordered[dimension + 1] if dimension < 3 else []
    for cell in higher:
        if cell <= union:
            extend(boundaries, boundary(cell, dimension + 1))
    ranks = [rank_of_image(cycles, boundaries) for cycles in images]
    matched = 0
    for cell in higher:
        if not cell <= union:
            extend(boundaries, boundary(cell, dimension + 1))
            now = [rank_of_image(cycles, boundaries) for cycles in images]
            matched += all(after < before for before, after in zip(ranks, now, strict=True))
            ranks = now
    return matched


def ring(shape, *holes):
    mask = np.ones(shape, bool)
    for hole in holes:
        mask[hole] = False
    return mask


TWO_HOLES = ring((1, 4, 4), (0, 1, 1), (0, 2, 2))
SHELL = ring((3, 3, 3), (1, 1, 1))


@given(pairs())
@settings(max_examples=120)
@example((TWO_HOLES, ring((1, 4, 4), (0, 1, 1))))
@example((SHELL, SHELL))
@example((SHELL, ring((3, 3, 3), (1, 1, 1), (0, 0, 0))))
def test_matched_counts_are_those_of_the_definition(pair):
    a, b = pair
    expected = [matched_by_definition(a, b, dimension) for dimension in range(3)]
    # The definition counts every component of dimension 0 that ends in another; the last never ends.
    assert count_features(a, b)[:, 0].tolist() == expected


@given(pairs())
def test_matched_counts_do_not_depend_on_which_mask_is_which(pair):
    a, b = pair
    assert count_features(a, b)[:, [0, 2, 1]].tolist() == count_features(b, a).tolist()


@given(pairs())
def test_a_mask_matches_all_of_itself(pair):
    counts = count_features(pair[0], pair[0])
    assert (counts == counts[:, :1]).all()


@given(hnp.arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))))
def test_loops_generate_at_least_the_tunnels_and_are_closed(mask):
    loops = loop_basis(mask)
    assert loops.count >= count_features(mask, mask)[1, 1]
    for number in range(loops.count):
        edges = loops.edges[loops.edges[:, 4] == number]
        ends = np.concatenate([edges[:, :3], edges[:, :3] + np.eye(3, dtype=int)[edges[:, 3]]])
        assert mask[tuple(ends.T)].all()
        _, times = np.unique(ends, axis=0, return_counts=True)
        assert (times == 2).all()


@given(hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))))
def test_features_of_a_mask_are_its_betti_numbers_in_gudhi(mask):
    gudhi = pytest.importorskip("gudhi")
    features = count_features(mask, np.zeros_like(mask))[:, 1].tolist()
    if not mask.any():
        assert features == [0, 0, 0]
        return
    complex_ = gudhi.CubicalComplex(vertices=np.where(mask, 0.0, 1.0))
    complex_.compute_persistence(homology_coeff_field=2, min_persistence=-1)
    components, tunnels, cavities = [*complex_.persistent_betti_numbers(0.0, 0.5), 0, 0, 0][:3]
    assert features == [components - 1, tunnels, cavities]


def test_matched_counts_on_smooth_and_noisy_volumes_are_those_of_the_official_extension():
    spec = importlib.util.find_spec("topolosses")
    if spec is None:
        pytest.skip("topolosses, which has the official extension, is not installed")
    folder = Path(spec.origin).parent
    (path,) = glob.glob(str(folder / "**" / "betti_matching*.so"), recursive=True)
    loaded = importlib.util.spec_from_file_location("betti_matching", path)
    official = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(official)
    rng = np.random.default_rng(7)
    for shape in [(16, 15, 17), (1, 20, 20), (12, 1, 30), (9, 24, 11)] * 5:
        field = ndimage.gaussian_filter(rng.standard_normal(shape), 0.9)
        a = (field > 0.05) ^ (rng.random(shape) < 0.02)
        b = (field + 0.2 * ndimage.gaussian_filter(rng.standard_normal(shape), 0.9) > 0.05) ^ (rng.random(shape) < 0.02)
        matching = official.BettiMatching(1.0 - a, 1.0 - b)
        matching.compute_matching()
        found = matching.get_matching()
        matched = np.array(found.num_matched)
        expected = np.stack([matched, matched + found.num_unmatched_input1, matched + found.num_unmatched_input2], 1)
        assert count_features(a, b).tolist() == expected.tolist()
