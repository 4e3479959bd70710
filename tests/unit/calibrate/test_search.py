"""The search: what is asked again, what is pruned, in which order."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nx47dask.calibration.candidates import LeastScore, mask_terms, source_key
from nx47dask.calibration.methods.space import Range, SearchSpace, own_values, variant
from nx47dask.calibration.methods.study import Trial
from nx47dask.calibration.search import Evaluations, search
from nx47dask.geometry import Box
from nx47dask.workflow import load_workflow, workflow_of

VOLUMES = ("a", "b", "c")


class Listed:
    """A study that asks for a list of candidates."""

    def __init__(self, values):
        self.left = [Trial(number, {"detect.x.weight": value}) for number, value in enumerate(values)]
        self.told = {}

    def ask(self, count):
        asked, self.left = self.left[:count], self.left[count:]
        return asked

    def tell(self, trial, value):
        self.told[trial.number] = value


def evaluations():
    subjects = {name: SimpleNamespace(id=name, box=Box((0, 0, 0), (2, 2, 2))) for name in VOLUMES}
    return Evaluations(subjects, lambda candidate: candidate, lambda candidate: str(candidate["detect.x.weight"]))


def drive(work, score):
    """Run a search with a score in place of masks; returns its trials and what was asked by stage."""
    asked = {}
    try:
        batch = next(work)
        while True:
            records = {}
            for task in batch.tasks:
                subject, candidate, least = task.arguments
                value = score(candidate["detect.x.weight"], subject.id)
                asked.setdefault(batch.stage, []).append((candidate["detect.x.weight"], subject.id))
                terms = {"surface_dice": value, "voi": value}
                known = {"score": value, "topo": value} if least is None or least.in_play(terms) else {}
                records[task.number] = {"terms": terms | known}
            assert batch.count == len(records)
            batch = work.send(records)
    except StopIteration as stop:
        return stop.value, asked


def test_studies_share_what_they_ask():
    studies = {"all": (Listed([1, 2, 3]), VOLUMES), "fold": (Listed([1, 2, 3]), VOLUMES[:2])}
    trials, asked = drive(search(evaluations(), studies, 3, lambda: False), lambda weight, _: weight / 10)
    everything = [one for stage in asked.values() for one in stage]
    assert len(everything) == len(set(everything)) == 9
    assert studies["all"][0].told == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})
    assert studies["fold"][0].told == pytest.approx(studies["all"][0].told)
    assert [trial.mean for trial in trials if trial.study == "all"] == pytest.approx([0.1, 0.2, 0.3])


def test_a_trial_that_falls_behind_on_a_part_is_pruned_after_the_startup():
    study = Listed([9, 8, 1, 9, 1, 8])
    _, asked = drive(search(evaluations(), {"all": (study, VOLUMES)}, 4, lambda: False), lambda weight, _: weight / 10)
    assert (1, "b") in asked["search.1b"], "the startup is scored whatever it is worth"
    study = Listed([9, 8, 7, 9, 1, 8.9])
    trials, asked = drive(
        search(evaluations(), {"all": (study, VOLUMES)}, 4, lambda: False), lambda weight, _: weight / 10
    )
    assert asked["search.2b"] == [(8.9, "b"), (8.9, "c")]
    assert study.told[4] is None
    assert trials[4].mean is None
    assert trials[4].terms.keys() == {"a"}


def test_no_trial_is_begun_when_time_is_over():
    over = iter([False, True])
    study = Listed(range(1, 13))
    trials, _ = drive(
        search(evaluations(), {"all": (study, VOLUMES)}, 4, lambda: next(over)), lambda weight, _: weight / 20
    )
    assert len(trials) == 4


def test_sources_are_told_apart_by_all_but_their_weight(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        "detect: [sheetness: {weight: 0.2}, sheetness: {scales: [2], weight: 0.8}]\npostprocess: [hysteresis]\n"
    )
    base = load_workflow(path)
    keys = [source_key(item) for item in base.resolved["detect"]]
    assert len(set(keys)) == 2
    space = SearchSpace({"detect.sheetness.weight": Range(0, 1, 0.5), "detect.sheetness#2.weight": Range(0, 1, 0.5)})
    candidate = own_values(space, base.resolved) | {"detect.sheetness.weight": 0}
    alone = workflow_of(variant(base.resolved, candidate), "alone")
    assert [source_key(item) for item in alone.resolved["detect"]] == keys[1:]


def test_topology_is_counted_only_where_a_candidate_has_a_chance():
    rng = np.random.default_rng(0)
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[8:11] = 1
    mask = labels.astype(bool) & (rng.random(labels.shape) > 0.1)
    whole = mask_terms(mask, labels)
    assert whole.keys() >= {"score", "topo"}
    hopeless = LeastScore(score=1.0, topo=whole["topo"])
    assert not hopeless.in_play(whole)
    cheap = mask_terms(mask, labels, hopeless)
    assert cheap == {name: value for name, value in whole.items() if name not in ("score", "topo")}
    assert mask_terms(mask, labels, LeastScore(whole["score"], whole["topo"])) == whole, (
        "as good as the best is in play"
    )
