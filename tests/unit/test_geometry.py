"""Boxes, grids, halos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nx47dask.errors import InputError
from nx47dask.geometry import BlockGrid, Box, parse_bbox, storage_chunk

shapes = st.tuples(*[st.integers(1, 20)] * 3)
blocks = st.tuples(*[st.integers(1, 9)] * 3)


@given(shapes, blocks)
def test_blocks_cover_a_volume_once(shape, block):
    grid = BlockGrid(shape, block)
    covered = np.zeros(shape, dtype=int)
    numbers = []
    for one in grid:
        covered[one.box.slices] += 1
        numbers.append(one.number)
        assert grid.numbered(one.number) == one
    assert (covered == 1).all()
    assert sorted(numbers) == list(range(len(grid)))


@given(shapes, blocks)
def test_a_face_is_inner_exactly_where_a_neighbour_lies(shape, block):
    grid = BlockGrid(shape, block)
    for one in grid:
        for axis, sides in enumerate(grid.inner_faces(one)):
            for side, inner in zip((-1, 1), sides, strict=True):
                step = tuple(side if a == axis else 0 for a in range(3))
                assert (grid.neighbour(one, step) is not None) == inner


def test_morton_order_keeps_neighbours_together():
    first = [block.index for block in BlockGrid((8, 8, 8), (2, 2, 2))][:8]
    assert set(first) == {(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)}


def test_halo_is_clipped_to_the_volume():
    assert Box((0, 5, 9), (4, 8, 10)).expand((2, 2, 2)).clip(Box.of_shape((10, 10, 10))) == Box((0, 3, 7), (6, 10, 10))


@pytest.mark.parametrize(
    ("block", "chunk"), [(1, 1), (96, 96), (128, 128), (160, 80), (256, 128), (320, 80), (512, 128)]
)
def test_storage_chunk_divides_the_block(block, chunk):
    assert storage_chunk(block) == chunk


def test_a_block_that_no_chunk_divides_is_refused_with_one_that_works():
    with pytest.raises(InputError, match=r"block 131: .*--block 128 works"):
        storage_chunk(131)


def test_bbox_reads_open_ends():
    assert parse_bbox("1:4,:,10:", (8, 9, 20)) == Box((1, 0, 10), (4, 9, 20))


@pytest.mark.parametrize("text", ["1:2", "a:2,0:1,0:1", "0:9,0:9,0:21", "3:3,:,:", "5:2,:,:"])
def test_bad_bbox_is_refused_with_its_text(text):
    with pytest.raises(InputError, match=r"--bbox"):
        parse_bbox(text, (9, 9, 20))
