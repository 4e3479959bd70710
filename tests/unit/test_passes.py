"""Steps become as few passes as exactness allows."""

from __future__ import annotations

import pytest

from nx47dask.errors import WorkflowError
from nx47dask.steps import STEPS
from nx47dask.steps.passes import ComponentScan, NamedStep, QuantileScan, compile_passes, describe


def chain(*steps):
    return [NamedStep(name, STEPS[name](**parameters)) for name, parameters in steps]


def test_hysteresis_and_small_objects_share_a_labelling():
    passes = compile_passes(chain(("hysteresis", {}), ("small_objects", {}), ("fill_holes", {})))
    assert [p.number for p in passes] == [0, 1, 2]
    assert isinstance(passes[0].scan, ComponentScan)
    assert [name for name, _ in passes[0].scan.rules] == ["hysteresis", "small_objects"]
    assert passes[1].resolve is passes[0].scan
    assert passes[1].scan.labelling.background
    assert passes[2].scan is None


def test_other_connectivity_needs_a_labelling_of_its_own():
    passes = compile_passes(chain(("hysteresis", {"connectivity": 6}), ("small_objects", {"connectivity": 26})))
    assert len([p for p in passes if p.scan]) == 2


def test_adjacent_local_steps_fuse_and_radii_add():
    passes = compile_passes(
        chain(
            ("support", {"radius_vox": 1}),
            ("smooth", {"sigma_zyx_vox": (1, 0.5, 0)}),
            ("threshold", {}),
            ("closing", {"radius_zyx_vox": (2, 1, 1)}),
        )
    )
    assert len(passes) == 1
    assert passes[0].radius_zyx == (2 + 4 + 4, 2 + 2 + 2, 2 + 0 + 2)
    assert passes[0].reads_image


def test_a_verdict_holds_for_the_core_only_so_a_halo_starts_a_pass():
    passes = compile_passes(chain(("threshold", {}), ("small_objects", {}), ("closing", {})))
    assert [bool(p.resolve) for p in passes] == [False, True, False]
    assert passes[1].radius_zyx == (0, 0, 0)
    assert any(passes[2].radius_zyx)


def test_quantiles_scan_first_and_write_nothing_when_nothing_came_before():
    passes = compile_passes(chain(("hysteresis", {"by": "slice"})))
    assert isinstance(passes[0].scan, QuantileScan)
    assert not passes[0].writes
    passes = compile_passes(chain(("smooth", {}), ("threshold", {"by": "volume"})))
    assert passes[0].writes
    assert "histogram per volume" in describe(passes[0])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((("closing", {}),), "closing takes a mask, but detection gives a probability; put threshold or hysteresis"),
        ((("threshold", {}), ("smooth", {})), "smooth takes a probability, but threshold gives a mask"),
        ((("smooth", {}),), "ends in a probability, not a mask"),
    ],
)
def test_a_chain_that_does_not_fit_is_refused(steps, message):
    with pytest.raises(WorkflowError, match=message):
        compile_passes(chain(*steps))
