"""Where JSON values and manifests differ, and how masks overlap."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nx47dask.metrics.masks import joint_counts, overlap
from nx47dask.runs.differences import find_differences, manifest_differences

MANIFEST = {
    "nx47dask": "0.1.0",
    "workflow": {
        "name": "mine",
        "detect": [{"residual": {"gain": 2.0}}],
        "postprocess": [{"closing": {"radius": 1}}, {"fill_holes": {"max_vox": None}}, {"closing": {"radius": 2}}],
    },
    "inputs": {
        "1": {"path": "/a/1.tif", "fingerprint": "f", "voxels_sha256_by_block": "h", "work": "0:9", "block_vox": 160}
    },
    "artefacts_sha256": {"masks/1.tif": "a1"},
    "versions": {"numpy": "2.0.0"},
    "platform": "Linux",
    "foreground": 255,
    "wall_s": 1.5,
    "ended_s": 7.0,
    "arguments": ["run"],
}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def changed(**entries):
    return copy.deepcopy(MANIFEST) | entries


def paths(baseline, candidate):
    found = manifest_differences(baseline, candidate)
    return {
        name: [(one["path"], one["baseline"], one["candidate"]) for one in ones] for name, ones in found.items() if ones
    }


@given(values)
def test_a_value_does_not_differ_from_itself(value):
    assert find_differences(value, copy.deepcopy(value)) == []


@given(values, values)
def test_differences_are_found_from_both_sides(before, now):
    there = [(one.path, one.before, one.now) for one in find_differences(before, now)]
    back = [(one.path, one.now, one.before) for one in find_differences(now, before)]
    assert there == back


def test_paths_and_both_values():
    before = {"a": {"b": [1, {"c": 2}]}, "gone": 1, "long": [1]}
    now = {"a": {"b": [1, {"c": 3}]}, "new": True, "long": [1, 2]}
    assert [str(one) for one in find_differences(before, now)] == [
        "a.b[1].c was 2, is 3",
        "gone was 1, is null",
        "long was [1], is [1, 2]",
        "new was null, is true",
    ]


def test_one_execution_does_not_differ_from_another():
    assert paths(MANIFEST, changed(wall_s=99.0, ended_s=0.0, arguments=[], stages={"detect": {}})) == {}


def test_sections():
    now = changed(nx47dask="0.2.0", versions={"numpy": "2.1.0"}, platform="Darwin", foreground=1)
    now["artefacts_sha256"]["masks/1.tif"] = "a2"
    now["labels"] = {"1": {"path": "/l/1.tif", "fingerprint": "l"}}
    assert paths(MANIFEST, now) == {
        "software": [
            ("nx47dask", "0.1.0", "0.2.0"),
            ("platform", "Linux", "Darwin"),
            ("versions.numpy", "2.0.0", "2.1.0"),
        ],
        "labels": [("labels", None, now["labels"])],
        "artefacts": [("artefacts_sha256.masks/1.tif", "a1", "a2")],
        "settings": [("foreground", 255, 1)],
    }


def test_a_step_more_leaves_the_others_alone():
    now = changed()
    now["workflow"]["postprocess"].insert(0, {"smooth": {"sigma": 1}})
    now["workflow"]["postprocess"][3]["closing"]["radius"] = 5
    before, after = "closing, fill_holes, closing 2", "smooth, closing, fill_holes, closing 2"
    assert paths(MANIFEST, now) == {
        "workflow": [
            ("workflow.postprocess.closing 2.radius", 2, 5),
            ("workflow.postprocess.order", before, after),
            ("workflow.postprocess.smooth", None, {"sigma": 1}),
        ]
    }


def test_a_hash_by_block_counts_only_for_the_same_blocks():
    now = changed()
    now["inputs"]["1"] |= {"path": "/elsewhere/1.tif", "voxels_sha256_by_block": "other"}
    assert paths(MANIFEST, now) == {"inputs": [("inputs.1.voxels_sha256_by_block", "h", "other")]}
    now["inputs"]["1"]["block_vox"] = 256
    assert paths(MANIFEST, now) == {}


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 6)] * 3))
def test_joint_counts_are_those_of_sets(seed, shape):
    first, second = np.random.default_rng(seed).integers(0, 3, (2, *shape), dtype=np.uint8)
    counts = joint_counts(first, second)
    for z in range(shape[0]):
        a, b = (set(map(tuple, np.argwhere(mask[z]))) for mask in (first, second))
        assert counts[:, z].tolist() == [len(a), len(b), len(a & b)]
        if a | b:
            expected = (2 * len(a & b) / (len(a) + len(b)), len(a & b) / len(a | b))
            assert overlap(*counts[:, z].tolist()) == pytest.approx(expected)


def test_empty_masks_agree():
    assert overlap(0, 0, 0) == (1, 1)
    assert overlap(3, 0, 0) == (0, 0)
