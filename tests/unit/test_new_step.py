"""A step that is defined in one class is known wherever steps are: nothing else has to be written for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import nx47dask
from nx47dask.calibration.methods.space import default_space, own_values, role_of, sibling, variant
from nx47dask.cli.reference import reference_text
from nx47dask.detectors import DETECTORS
from nx47dask.errors import WorkflowError
from nx47dask.files.presets import preset_names
from nx47dask.steps import STEPS, ComponentStep, LocalStep
from nx47dask.steps.base import Binarise, Kind, Step
from nx47dask.steps.dimensions import Choices, Range
from nx47dask.steps.parameters import Role, Unit, parameters
from nx47dask.steps.passes import describe
from nx47dask.workflow import Settings, load_workflow, workflow_of
from tests import strategies
from tests.integration import reference
from tests.property import test_invariance


@dataclass(frozen=True)
class Shift(LocalStep):
    """Move the mask along x.

    Parameters
    ----------
    by_vox : int
        How far to move. Raise it to move further.
    fill : bool
        Fill what is left behind.
    """

    by_vox: Annotated[int, Field(ge=0, le=9), Range(1, 4, 1, integer=True)] = 2
    fill: bool = False

    def radius_zyx(self):
        return 0, 0, self.by_vox

    def apply(self, data, image):
        moved = np.full_like(data, self.fill)
        width = data.shape[2] - self.by_vox
        if width > 0:
            moved[:, :, self.by_vox :] = data[:, :, :width]
        return moved


@dataclass(frozen=True)
class Slabs(ComponentStep):
    """Remove components of many voxels.

    Parameters
    ----------
    most : int
        Components of at most this many voxels stay.
    """

    most: Annotated[int, Field(ge=1), Unit("voxels"), Choices((10, 1000))] = 10

    @property
    def attributes(self):
        return ("voxels",)

    def changes(self, attributes: Mapping):
        return attributes["voxels"].astype(np.int64) > self.most


@dataclass(frozen=True)
class Band(Step):
    """Keep what reaches the lower of two thresholds, and nothing else.

    Parameters
    ----------
    weak : float
        The threshold that counts.
    sure : float
        A threshold without effect.
    """

    takes: ClassVar[Kind] = "probability"

    weak: Annotated[float, Field(gt=0, le=1), Role.LOW_THRESHOLD, Range(0.1, 0.9, 0.1)] = 0.3
    sure: Annotated[float, Field(gt=0, le=1), Role.HIGH_THRESHOLD, Range(0.1, 0.9, 0.1)] = 0.5

    def parts(self):
        return (Binarise((self.weak,)),)


CHAIN = {"detect": ["sheetness"], "postprocess": ["threshold", {"shift": {"by_vox": 3}}, "slabs"]}


@pytest.fixture
def new(monkeypatch):
    """Three steps, each defined by its class and one line of the registry."""
    monkeypatch.setitem(STEPS, "shift", Shift)
    monkeypatch.setitem(STEPS, "slabs", Slabs)
    monkeypatch.setitem(STEPS, "band", Band)


def test_the_workflow_schema_has_it(new):
    assert [named.step for named in workflow_of(CHAIN, "new").steps[1:]] == [Shift(3), Slabs()]
    for parameters_, message in [
        ({"by_vox": 10}, "by_vox = 10: input should be less than or equal to 9"),
        ({"by_vox": 1.5}, "by_vox = 1.5: "),
        ({"by": 1}, "unknown key 'by'"),
    ]:
        with pytest.raises(WorkflowError, match=message):
            workflow_of({**CHAIN, "postprocess": ["threshold", {"shift": parameters_}]}, "new")


def test_the_plan_has_it(new, make_tiff, tmp_path):
    path = tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump(CHAIN))
    passes = nx47dask.plan([make_tiff((10, 24, 22))], tmp_path / "run", workflow=path).passes
    assert [describe(one) for one in passes] == ["shift, threshold (threshold), label for slabs", "apply slabs"]
    assert passes[0].radius_zyx == (0, 0, 3)


def test_calibration_searches_it(new):
    base = workflow_of(CHAIN, "new").resolved
    space = default_space(base)
    assert space.dimensions == {
        "postprocess.threshold.value": Range(0.2, 0.9, 0.05),
        "postprocess.shift.use": Choices((True, False)),
        "postprocess.shift.by_vox": Range(1, 4, 1, integer=True),
        "postprocess.slabs.use": Choices((True, False)),
        "postprocess.slabs.most": Choices((10, 1000)),
    }
    without = variant(base, own_values(space, base) | {"postprocess.shift.use": False})
    assert [named.name for named in workflow_of(without, "new").steps] == ["threshold", "slabs"]


def test_calibration_knows_thresholds_by_their_roles(new):
    low, high = "postprocess.band.weak", "postprocess.band.sure"
    space = default_space(workflow_of({"detect": ["sheetness"], "postprocess": ["band"]}, "new").resolved)
    assert space.repair({low: 0.7, high: 0.2}) == {low: 0.7, high: 0.7}
    assert (role_of(low), sibling(low, Role.HIGH_THRESHOLD)) == (Role.LOW_THRESHOLD, high)


def test_the_table_of_steps_has_it(new):
    text = reference_text()
    assert "### shift (mask to mask; local, radius 0,0,2 by default)\n\nMove the mask along x.\n" in text
    assert "| by_vox | 2 | integer, 0 to 9 (voxels) | How far to move. Raise it to move further. |" in text
    assert "| most | 10 | integer, at least 1 (voxels) | Components of at most this many voxels stay. |" in text


def test_the_invariance_test_draws_it(new, tmp_path):
    drawn = set()
    chains = st.lists(strategies.steps("mask", "mask"), min_size=2, max_size=4)

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(chains)
    def draw(chain):
        drawn.update(name for item in chain for name in item)

    draw()
    assert drawn >= {"shift", "slabs", "closing", "thin"}
    test_invariance.check_any_cut(tmp_path, CHAIN | {"detect": ["residual"]}, (9, 20, 21), 8, 1)
    assert not {"shift", "slabs"} & set(reference.REFERENCES)


@pytest.mark.parametrize(("name", "kind"), [*STEPS.items(), *DETECTORS.items(), ("settings", Settings)])
def test_every_parameter_has_a_sentence_and_its_search_range_is_within_its_limits(name, kind):
    for parameter in parameters(kind).values():
        assert parameter.meaning.endswith("."), f"{name}.{parameter.name}"
        assert ":class:" not in parameter.meaning
        assert "|" not in parameter.meaning
        for share in (0, 0.5, 1) if parameter.search else ():
            value = parameter.search.at(share)
            document = {"detect": ["sheetness"], "postprocess": ["threshold", {name: {parameter.name: value}}]}
            if kind.takes == "probability":
                document["postprocess"].reverse()
            workflow_of(document, "range")


@pytest.mark.parametrize(("name", "step"), STEPS.items())
def test_a_step_with_a_high_threshold_has_a_low_one(name, step):
    roles = {parameter.role for parameter in parameters(step).values()}
    assert (Role.HIGH_THRESHOLD in roles) == (Role.LOW_THRESHOLD in roles)


@pytest.mark.parametrize("name", preset_names())
def test_default_spaces_are_json(name):
    space = default_space(load_workflow(name).resolved)
    candidate = space.at([0.5] * len(space.dimensions))
    assert json.loads(json.dumps(candidate)) == candidate
