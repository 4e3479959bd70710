"""The search space: what can be written, what the grid holds, which workflow a candidate stands for."""

from __future__ import annotations

import copy
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nx47dask.calibration.methods.space import (
    Choices,
    Range,
    SearchSpace,
    default_space,
    own_values,
    space_from,
    variant,
)
from nx47dask.errors import InputError
from nx47dask.files.presets import preset_names
from nx47dask.workflow import load_workflow

LOW, HIGH = "postprocess.hysteresis.low", "postprocess.hysteresis.high"
CLOSING = "postprocess.closing"
BASE = """\
detect:
  - residual: {weight: 0.3}
  - sheetness: {weight: 0.7}
postprocess:
  - support
  - smooth
  - hysteresis: {by: volume, low: 0.86, high: 0.92}
  - z_coherence: {window_vox: 1, least: 1, reach_vox: 1}
  - small_objects: {min_vox: 5000}
  - closing: {radius_zyx_vox: [1, 1, 1]}
  - fill_holes
"""


def where(key, message):
    return InputError(f"at {'/'.join(map(str, key))}: {message}")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.yaml"
    path.write_text(BASE)
    return load_workflow(path).resolved


@pytest.fixture
def twice(tmp_path):
    """A workflow with two closings."""
    path = tmp_path / "twice.yaml"
    path.write_text(
        "detect: [sheetness]\n"
        "postprocess: [threshold, closing, small_objects, {closing: {radius_zyx_vox: [2, 2, 2], shape: box}}]\n"
    )
    return load_workflow(path).resolved


def loaded(document, folder):
    """The workflow that a document gives when it is written and read."""
    path = folder / "variant.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_workflow(path)


def refused(data, base, match):
    with pytest.raises(InputError, match=match):
        space_from(data, base, where)


def test_ranges_and_choices_are_read(base):
    space = space_from(
        {
            LOW: {"low": 0.7, "high": 0.9, "step": 0.01},
            "postprocess.small_objects.min_vox": {"low": 100, "high": 20000, "log": True, "integer": True},
            f"{CLOSING}.radius_zyx_vox": [[0, 1, 1], [1, 1, 1]],
            "postprocess.fill_holes.max_vox": [None, 100],
            "detect.residual.weight": {"low": 0, "high": 1},
        },
        base,
        where,
    )
    assert space.dimensions == {
        LOW: Range(0.7, 0.9, 0.01),
        "postprocess.small_objects.min_vox": Range(100, 20000, None, log=True, integer=True),
        f"{CLOSING}.radius_zyx_vox": Choices(([0, 1, 1], [1, 1, 1])),
        "postprocess.fill_holes.max_vox": Choices((None, 100)),
        "detect.residual.weight": Range(0, 1),
    }
    assert not space.all_sources
    assert space.size is None


def test_whole_numbers_have_a_step_of_one(base):
    space = space_from({"postprocess.z_coherence.reach_vox": {"low": 0, "high": 3, "integer": True}}, base, where)
    assert [one["postprocess.z_coherence.reach_vox"] for one in space.grid()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({}, "nothing to search"),
        (None, "nothing to search"),
        ({"postprocess.closign.use": [True]}, "unknown key.*did you mean 'postprocess.closing"),
        ({"postprocess.hysteresis.use": [True, False]}, "unknown key"),
        ({"detect.sheetness.contrast": [0.05, 0.1]}, "once per source: list it as a second source instead"),
        ({LOW: {"low": 0.9, "high": 0.7}}, r"at postprocess.hysteresis.low: .*low 0.9 is not below high 0.7"),
        ({LOW: {"low": 0.7, "high": 0.7}}, "impossible range"),
        ({LOW: {"low": 0.7, "high": 0.9, "step": 0.3}}, "step 0.3: expected a number above 0, up to the 0.2"),
        ({LOW: {"low": 0.7, "high": 0.9, "step": 0}}, "step 0"),
        ({LOW: {"low": 0.7}}, "high = None: expected a number"),
        ({LOW: {"low": 0.7, "high": True}}, "high = True: expected a number"),
        ({LOW: {"low": 0.7, "high": 0.9, "stepp": 0.1}}, "at .*/stepp: .*did you mean 'step'"),
        ({LOW: {"low": 0, "high": 0.9, "log": True}}, "a low above 0"),
        ({LOW: {"low": 0.1, "high": 0.9, "log": True, "step": 0.1}}, "no step"),
        ({LOW: {"low": 0.1, "high": 0.9, "log": "yes"}}, "expected true or false"),
        ({LOW: 0.5}, "found 0.5"),
        ({LOW: []}, "empty list"),
        ({LOW: {"low": 0.5, "high": 1.5}, HIGH: [0.9]}, "postprocess.hysteresis.low = 1.5: .*less than or equal to 1"),
        ({LOW: {"low": 0.5, "high": 0.95}}, "low 0.95 exceeds high 0.92; narrow it, or vary the other one"),
        ({f"{CLOSING}.radius_zyx_vox": {"low": 1, "high": 3}}, "list the values"),
        ({f"{CLOSING}.radius_zyx_vox": [[1, 1]]}, "closing.radius_zyx_vox"),
        ({f"{CLOSING}.use": [0, 1]}, "use = 0: expected true or false"),
        ({"postprocess.small_objects.min_vox": {"low": 1, "high": 10}}, "valid integer; add integer: true"),
        ({"postprocess.small_objects.min_vox": {"low": 1.5, "high": 9, "integer": True}}, "expected a whole number"),
        ({"detect.residual.weight": [-1]}, "expected a number >= 0"),
        ({"detect.residual.weight": ["much"]}, "expected a number >= 0"),
        ({"combine": ["mean"]}, "expected probability or logit"),
        ({"postprocess.z_coherence.least": [1, 4]}, "least 4 exceeds the 2"),
    ],
)
def test_what_cannot_be_searched_is_refused(base, data, match):
    refused(data, base, match)


def test_the_weight_of_an_only_source_is_refused():
    refused({"detect.sheetness.weight": [0.5, 1]}, load_workflow("fast").resolved, "the only source")


def test_the_grid_counts_up_the_last_key_first(base):
    space = space_from({LOW: [0.7, 0.8], HIGH: {"low": 0.8, "high": 0.9, "step": 0.05}}, base, where)
    assert space.size == 6
    assert [(one[LOW], one[HIGH]) for one in space.grid()] == [
        (0.7, 0.8), (0.7, 0.85), (0.7, 0.9), (0.8, 0.8), (0.8, 0.85), (0.8, 0.9),
    ]  # fmt: skip


def test_the_grid_repairs_and_leaves_out_what_it_has_had(base):
    space = space_from({LOW: [0.5, 0.8], HIGH: [0.6, 0.8]}, base, where)
    assert [(one[LOW], one[HIGH]) for one in space.grid()] == [(0.5, 0.6), (0.5, 0.8), (0.8, 0.8)]


def test_the_grid_tries_equal_mixtures_once(base):
    space = space_from({"detect.residual.weight": [0, 0.5, 1], "detect.sheetness.weight": [0, 0.5, 1]}, base, where)
    grid = [tuple(one.values()) for one in space.grid()]
    assert grid == [(1, 1), (0, 0.5), (0.5, 0), (0.5, 1), (1, 0.5)]


def test_the_grid_varies_no_step_that_is_off(base):
    space = space_from(
        {f"{CLOSING}.use": [False, True], f"{CLOSING}.radius_zyx_vox": [[1, 1, 1], [2, 2, 2]]}, base, where
    )
    assert [list(one.values()) for one in space.grid()] == [[False, [1, 1, 1]], [True, [1, 1, 1]], [True, [2, 2, 2]]]


def test_a_grid_needs_steps(base):
    with pytest.raises(InputError, match=r"give one to postprocess.hysteresis.low"):
        list(space_from({LOW: {"low": 0.5, "high": 0.9}}, base, where).grid())


def test_a_single_varied_weight_may_be_zero(base):
    space = space_from({"detect.residual.weight": [0, 0.5]}, base, where)
    assert [one["detect.residual.weight"] for one in space.grid()] == [0, 0.5]


def test_complexity_counts_sources_and_steps_that_act(base):
    space = default_space(base)
    own = own_values(space, base)
    assert space.complexity(own) == 9  # two sources, seven steps
    off = own | {f"{CLOSING}.use": False, "detect.residual.weight": 0, "postprocess.smooth.sigma_zyx_vox": [0, 0, 0]}
    assert space.complexity(off) == 6
    assert space.complexity(own | {f"{CLOSING}.radius_zyx_vox": [0, 0, 0]}) == 8


def test_steps_for_topology_are_searched_too(tmp_path):
    path = tmp_path / "w.yaml"
    steps = "smooth_sheet: {sigma_vox: 2.5}, hysteresis, thin, plug_pinholes"
    path.write_text(f"detect: [sheetness]\npostprocess: [{steps}]\n")
    base = load_workflow(path).resolved
    space = default_space(base)
    own = own_values(space, base)
    assert own["postprocess.smooth_sheet.sigma_vox"] == 2.5
    off = variant(base, own | {f"postprocess.{step}.use": False for step in ("smooth_sheet", "thin", "plug_pinholes")})
    assert [next(iter(item)) for item in off["postprocess"]] == ["hysteresis"]


@pytest.mark.parametrize("name", preset_names())
def test_own_values_are_the_base_workflow(name, tmp_path):
    workflow = load_workflow(name)
    own = own_values(default_space(workflow.resolved), workflow.resolved)
    again = loaded(variant(workflow.resolved, own), tmp_path)
    assert (again.sources, again.steps, again.settings) == (workflow.sources, workflow.steps, workflow.settings)


def test_a_variant_leaves_out_what_is_off_and_the_base_alone(base, tmp_path):
    before = copy.deepcopy(base)
    document = variant(
        base,
        {"detect.residual.weight": 0, f"{CLOSING}.use": False, LOW: 0.5, "combine": "logit", f"{CLOSING}.shape": "box"},
    )
    assert base == before
    workflow = loaded(document, tmp_path)
    assert [step.name for step in workflow.steps] == [
        "support", "smooth", "hysteresis", "z_coherence", "small_objects", "fill_holes",
    ]  # fmt: skip
    assert len(workflow.sources) == 1
    assert workflow.settings.combine == "logit"
    assert workflow.resolved["postprocess"][2]["hysteresis"]["low"] == 0.5


def test_a_repeated_step_is_found_by_its_number(twice, tmp_path):
    space = default_space(twice)
    assert own_values(space, twice)["postprocess.closing#2.radius_zyx_vox"] == [2, 2, 2]
    kept = loaded(variant(twice, {"postprocess.closing.use": False}), tmp_path)
    assert [(step.name, step.step.shape) for step in kept.steps if "closing" in step.name] == [("closing", "box")]
    changed = loaded(variant(twice, {"postprocess.closing#2.shape": "ellipsoid"}), tmp_path)
    assert changed.resolved["postprocess"][3]["closing#2"]["shape"] == "ellipsoid"
    assert changed.resolved["postprocess"][1] == twice["postprocess"][1]


@pytest.mark.parametrize("name", preset_names())
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_point_of_the_default_space_is_a_workflow(name, data, tmp_path_factory):
    base = load_workflow(name).resolved
    space = default_space(base)
    shares = data.draw(st.lists(st.floats(0, 1), min_size=len(space.dimensions), max_size=len(space.dimensions)))
    candidate = space.at(shares)
    assert json.loads(json.dumps(candidate)) == candidate
    assert space.repair(candidate) == candidate
    loaded(variant(base, candidate), tmp_path_factory.getbasetemp())


def test_default_thresholds_follow_their_basis(base):
    assert default_space(base).dimensions[LOW] == Range(0.75, 0.97, 0.01)
    assert default_space(load_workflow("surface").resolved).dimensions[HIGH] == Range(0.2, 0.9, 0.05)


@given(
    st.one_of(
        st.builds(
            lambda low, width, count: Range(low, low + width, width / count),
            *[st.floats(0.01, 10)] * 2,
            st.integers(1, 30),
        ),
        st.builds(lambda low, width: Range(low, low + width, log=True), *[st.floats(0.01, 10)] * 2),
        st.builds(lambda low, width: Range(low, low + width, log=True, integer=True), *[st.integers(1, 10**4)] * 2),
    ),
    st.floats(0, 1),
)
def test_values_of_a_range_are_within_it_and_their_own_nearest(one, share):
    value = one.at(share)
    assert one.low - 1e-9 <= value <= one.high + 1e-9
    assert one.nearest(value) == value
    assert one.at(0) == pytest.approx(one.low)
    assert one.at(0) <= value <= one.at(1)


def test_the_steps_of_a_range_are_round_numbers():
    assert Range(0.7, 0.8, 0.01).values == (0.7, 0.71, 0.72, 0.73, 0.74, 0.75, 0.76, 0.77, 0.78, 0.79, 0.8)
    assert Range(0.7, 0.795, 0.03).values == (0.7, 0.73, 0.76, 0.79)
    assert Range(1, 7, 3, integer=True).values == (1, 4, 7)


def test_what_is_not_listed_counts_as_the_nearest_choice():
    sigmas = Choices(([0, 0, 0], [1, 1, 1], [2, 2, 2]))
    assert sigmas.nearest([1, 1.5, 1.5]) == [1, 1, 1]
    assert sigmas.code([3, 3, 3]) == 2
    assert Choices((None, 100, 1000)).code(900) == 2
    assert Choices((None, 100, 1000)).code(None) == 0
    assert Choices(("a", "b")).nearest("c") == "a"


def test_identity_tells_candidates_apart_that_differ_in_a_mask():
    space = SearchSpace({LOW: Range(0.1, 0.5, 0.1), HIGH: Range(0.1, 0.5, 0.1)})
    assert space.identity({LOW: 0.1, HIGH: 0.2}) == space.identity({HIGH: 0.2, LOW: 0.1})
    assert space.identity({LOW: 0.1, HIGH: 0.2}) != space.identity({LOW: 0.2, HIGH: 0.2})


def test_usual_ranges_of_the_default_workflow():
    use, threshold = Choices((True, False)), Range(0.2, 0.9, 0.05)
    sigmas = [[sigma] * 3 for sigma in (0.0, 0.5, 1.0, 1.5, 2.0, 0.7)]
    expected = {
        "smooth.sigma_zyx_vox": Choices(tuple(sigmas)),
        "smooth_sheet.use": use,
        "smooth_sheet.sigma_vox": Range(1, 6, 0.5),
        "hysteresis.low": threshold,
        "hysteresis.high": threshold,
        "small_objects.min_vox": Range(100, 20000, log=True, integer=True),
        "plug_pinholes.use": use,
        "closing.use": use,
        "closing.radius_zyx_vox": Choices(([1, 1, 1], [2, 1, 1], [2, 2, 2])),
        "plug_pinholes#2.use": use,
        "fill_holes.max_vox": Choices((None, 100, 1000)),
    }
    space = default_space(load_workflow("surface").resolved)
    assert list(space.dimensions.items()) == [(f"postprocess.{key}", value) for key, value in expected.items()]


def test_an_opening_and_what_makes_the_mask_are_not_left_out(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("detect: [sheetness]\npostprocess: [{threshold: {by: slice}}, opening]\n")
    assert default_space(load_workflow(path).resolved).dimensions == {
        "postprocess.threshold.value": Range(0.75, 0.97, 0.01)
    }
