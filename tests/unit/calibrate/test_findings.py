"""What is looked at around the best candidate: thresholds of curves."""

from __future__ import annotations

from nx47dask.calibration.findings import Sweep
from nx47dask.workflow import load_workflow

LOW = "postprocess.hysteresis.low"


def test_the_curve_goes_through_the_threshold_and_ends_at_a_high_one_that_is_fixed(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("detect: [sheetness]\npostprocess: [hysteresis: {low: 0.33, high: 0.62}, small_objects]\n")
    sweep = Sweep.of(load_workflow(path))
    assert (sweep.key, sweep.value, sweep.high, sweep.least_vox) == (LOW, 0.33, 0.62, 100)
    free, fixed = (sweep.thresholds([0.41], most) for most in (None, 0.62))
    assert {0.33, 0.41} < set(fixed) < set(free)
    assert max(fixed) <= 0.62 < max(free)
    assert [sweep.high_at(low) for low in (0.3, 0.62, 0.8)] == [0.62, 0.62, 0.8]
