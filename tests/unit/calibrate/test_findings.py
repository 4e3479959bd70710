"""What is looked at around the best candidate: thresholds of curves, density targets."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nx47dask.calibration.findings import Sweep, TradeOffs, density_targets
from nx47dask.calibration.search import Evaluations
from nx47dask.geometry import Box
from nx47dask.workflow import load_workflow

LOW, HIGH = "postprocess.hysteresis.low", "postprocess.hysteresis.high"
THRESHOLDS = np.round(np.arange(0.7, 0.98, 0.02), 4)


def curve(shift):
    """The density falls with the threshold; the score is best at a density of 0.1 + shift."""
    density = 1 - THRESHOLDS + shift
    scores = 0.5 - (density - 0.1 - shift) ** 2
    rows = zip(THRESHOLDS.tolist(), density.tolist(), scores.tolist(), strict=True)
    return [{"threshold": t, "density": d, "precision": 0.5, "recall": 0.5, "score": s} for t, d, s in rows]


def steered(best):
    """What is asked for each volume."""
    subjects = {name: SimpleNamespace(box=Box((0, 0, 0), (2, 2, 2))) for name in "abcd"}
    evaluations = Evaluations(subjects, dict, lambda one: str(sorted(one.items())))
    evaluations._known |= {(evaluations.identity(best), name): {"score": 0.4} for name in subjects}
    curves = TradeOffs(
        key=LOW,
        by="volume",
        volumes={name: {"curve": curve(0.01 * n)} for n, name in enumerate(subjects)},
        features={name: {"tells": float(n)} for n, name in enumerate(subjects)},
        knees=None,
    )
    work = density_targets(evaluations, best, curves)
    asked = {task.place.split()[1].rstrip(","): task for task in next(work).tasks}
    numbers = {task.number: {"terms": {"score": 0.45}} for task in asked.values()}
    with pytest.raises(StopIteration) as stop:
        work.send(numbers)
    return {name: task.arguments[1] for name, task in asked.items()}, stop.value.value


def test_the_threshold_of_a_volume_gives_the_density_that_the_others_tell():
    asked, found = steered({LOW: 0.8, HIGH: 0.95})
    for n, (name, candidate) in enumerate(sorted(asked.items())):
        told = found["volumes"][name]
        assert 1 - candidate[LOW] + 0.01 * n == pytest.approx(told["predicted"], abs=2e-4)
        assert told["target"] == pytest.approx(0.1 + 0.01 * n)
        assert (told["fixed_score"], told["steered_score"]) == (0.4, 0.45)
        assert candidate[HIGH] == 0.95


def test_a_high_threshold_is_raised_with_the_low_one():
    asked, _ = steered({LOW: 0.8, HIGH: 0.8})
    assert all(candidate[HIGH] == candidate[LOW] > 0.8 for candidate in asked.values())


def test_the_curve_goes_through_the_threshold_and_ends_at_a_high_one_that_is_fixed(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("detect: [sheetness]\npostprocess: [hysteresis: {low: 0.33, high: 0.62}, small_objects]\n")
    sweep = Sweep.of(load_workflow(path))
    assert (sweep.key, sweep.value, sweep.high, sweep.least_vox) == (LOW, 0.33, 0.62, 100)
    free, fixed = (sweep.thresholds([0.41], most) for most in (None, 0.62))
    assert {0.33, 0.41} < set(fixed) < set(free)
    assert max(fixed) <= 0.62 < max(free)
    assert [sweep.high_at(low) for low in (0.3, 0.62, 0.8)] == [0.62, 0.62, 0.8]
