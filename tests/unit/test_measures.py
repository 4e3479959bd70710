"""Measures by name: the same numbers and names as the metrics of a run have."""

from __future__ import annotations

import pytest

from nx47dask.runs.measures import (
    MASK_NAMES,
    NAMES,
    SCORE_NAMES,
    mean_measures,
    paired_measures,
    score_means,
    shared_measures,
    volume_measures,
)
from nx47dask.runs.run import open_run
from nx47dask.words import TITLES
from tests.integration.tiny_runs import VOLUMES, add_scores, score_record, tiny_run

MASK = {"density": 0.1, "components_26": 7}


def test_means_are_those_of_the_metrics():
    scores = {"a": score_record(0.4, holes=1), "b": score_record(0.1 + 0.2, recall=0.5), "c": score_record(0.7)}
    means = mean_measures([volume_measures(MASK, score) for score in scores.values()])
    recorded = score_means(scores)
    assert recorded.pop("volumes") == 3
    assert {name: means[name] for name in SCORE_NAMES} == recorded
    assert means["clean_volumes"] == 2
    assert list(means) == list(NAMES) == list(TITLES)


def test_without_a_score_there_are_measures_of_the_mask():
    assert volume_measures(MASK, None) == {"density": 0.1, "components": 7}


def test_means_are_over_the_volumes_that_have_a_measure():
    volumes = [volume_measures(MASK, score_record(0.4)), volume_measures(MASK, None)]
    assert mean_measures(volumes)["score"] == 0.4
    assert mean_measures(volumes)["density"] == pytest.approx(0.1)
    paired = paired_measures(volumes, [volume_measures(MASK, score_record(score)) for score in (0.5, 0.9)])
    assert paired["score"].mean == pytest.approx(0.1)
    assert paired["score"].wins + paired["score"].losses + paired["score"].ties == 1
    assert paired["density"].ties == 2
    assert "clean_volumes" not in paired


def test_shared_are_scores_for_the_same_labels_of_the_same_part(tmp_path):
    for name, bbox in (("a", None), ("b", None), ("part", "0:6,0:40,0:36")):
        add_scores(tiny_run(tmp_path, name, bbox=bbox).path, {volume: score_record(0.5) for volume in VOLUMES})
    a, b, part = (open_run(tmp_path / name) for name in ("a", "b", "part"))
    assert shared_measures(a, part) == {}
    for before, now in shared_measures(a, b).values():
        assert list(before) == list(now)
        assert before["score"] == 0.5
    add_scores(b.path, {volume: score_record(0.5) for volume in VOLUMES}, fingerprint="other")
    for pair in shared_measures(a, open_run(b.path)).values():
        assert [tuple(sorted(one)) for one in pair] == [tuple(sorted(MASK_NAMES))] * 2
