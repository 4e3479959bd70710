"""Studies: what is asked, in which order, and that a kill changes nothing."""

from __future__ import annotations

import builtins
import math

import pytest

from nx47dask.calibrate.space import Choices, Range, SearchSpace
from nx47dask.calibrate.study import open_study
from nx47dask.errors import InputError

pytest.importorskip("optuna")

LOW, HIGH = "postprocess.hysteresis.low", "postprocess.hysteresis.high"
SPACE = SearchSpace(
    {
        LOW: Range(0.1, 0.9, 0.02),
        HIGH: Range(0.1, 0.9),
        "postprocess.small_objects.min_vox": Range(10, 1000, log=True, integer=True),
        "postprocess.closing.use": Choices((True, False)),
        "postprocess.closing.radius_zyx_vox": Choices(([1, 1, 1], [2, 2, 2])),
        "postprocess.fill_holes.max_vox": Choices((None, 100)),
    }
)
FIRST = {
    LOW: 0.333,
    HIGH: 0.95,
    "postprocess.small_objects.min_vox": 5,
    "postprocess.closing.use": True,
    "postprocess.closing.radius_zyx_vox": [1, 1, 3],
    "postprocess.fill_holes.max_vox": None,
}
GRID = SearchSpace({LOW: Range(0.1, 0.3, 0.1), HIGH: Range(0.1, 0.3, 0.1)})


def worth(candidate):
    """A smooth value with its best in the middle of the space."""
    holes = 0.1 if candidate["postprocess.fill_holes.max_vox"] else 0
    small = math.log(candidate["postprocess.small_objects.min_vox"] / 100) ** 2 / 50
    return holes - (candidate[LOW] - 0.3) ** 2 - (candidate[HIGH] - 0.6) ** 2 - small


def opened(storage=None, name="all", space=SPACE, first=FIRST, **options):
    return open_study(space, first, **({"storage": storage, "name": name, "seed": 3,
                                       "startup": 6, "trials": 20} | options))  # fmt: skip


def tell_all(study, trials):
    """Every third trial is pruned."""
    for trial in trials:
        study.tell(trial, None if trial.number % 3 == 2 else worth(trial.candidate))


def run(study, batch=4):
    while not study.done():
        tell_all(study, study.ask(batch))
    return [trial.candidate for trial, _ in study.told()]


@pytest.fixture(scope="module")
def straight():
    return run(opened())


def test_the_same_seed_and_values_give_the_same_candidates(straight, tmp_path):
    assert run(opened(tmp_path / "journal.log")) == straight
    assert run(opened(seed=4)) != straight


def test_the_first_trial_is_the_given_candidate_even_outside_the_space(straight):
    assert straight[0] == FIRST


def test_candidates_lie_in_the_space_and_are_repaired(straight):
    assert len(straight) == 20
    for candidate in straight[1:]:
        assert list(candidate) == list(SPACE.dimensions)
        assert SPACE.repair(candidate) == candidate
        assert candidate[LOW] in SPACE.dimensions[LOW].values
        for key, dimension in SPACE.dimensions.items():
            assert dimension.nearest(candidate[key]) == candidate[key]


@pytest.mark.parametrize("lost", range(0, 20, 3))
def test_a_killed_study_goes_on_as_if_nothing_had_been(straight, tmp_path, lost):
    """Killed between asking a batch and telling all of it."""
    path = tmp_path / "journal.log"
    study = opened(path)
    asked = []
    while len(asked) <= lost:
        batch = study.ask(4)
        asked += batch
        tell_all(study, [trial for trial in batch if trial.number < lost])
    del study
    again = opened(path)
    assert again.unfinished() == [trial for trial in asked if trial.number >= lost]
    assert [trial for trial, _ in again.told()] == asked[:lost]
    assert not again.done()
    tell_all(again, again.unfinished())
    assert run(again) == straight


def test_a_batch_that_a_kill_cut_short_can_be_made_full(straight, tmp_path):
    path = tmp_path / "journal.log"
    study = opened(path)
    for _ in range(2):
        tell_all(study, study.ask(4))
    asked = study.ask(1)
    again = opened(path)
    assert again.unfinished() == asked
    tell_all(again, again.unfinished() + again.ask(3))
    assert run(again) == straight


@pytest.mark.parametrize("length", [1, 60])
def test_a_client_killed_while_it_writes_loses_that_record_alone(straight, tmp_path, length):
    path = tmp_path / "journal.log"
    study = opened(path)
    tell_all(study, study.ask(4))
    before = path.stat().st_size
    asked = study.ask(1)
    whole = path.read_bytes()
    path.write_bytes(whole[: before + length])
    (tmp_path / "journal.log.lock").symlink_to(path)
    again = opened(path)
    assert again.unfinished() == []
    assert again.ask(1) == asked
    assert path.read_bytes().startswith(whole[:before])


def test_studies_of_one_seed_share_what_comes_before_sampling(tmp_path):
    studies = [opened(tmp_path / "journal.log", name) for name in ("all", "fold 1")]
    one, other = ([trial.candidate for trial in study.ask(7)] for study in studies)
    assert one[:6] == other[:6]
    tell_all(studies[0], studies[0].unfinished())
    for trial in studies[1].unfinished():
        studies[1].tell(trial, -worth(trial.candidate))
    assert [t.candidate for t in studies[0].ask(8)] != [t.candidate for t in studies[1].ask(8)]


def test_sampling_beats_even_cover():
    tried = run(opened(trials=60, startup=20))
    assert max(map(worth, tried[20:])) > max(map(worth, tried[1:20]))


def test_told_values_come_back(tmp_path):
    study = opened(tmp_path / "journal.log")
    first, second = study.ask(2)
    study.tell(second, None)
    study.tell(first, 0.25)
    assert opened(tmp_path / "journal.log").told() == [(first, 0.25), (second, None)]


def test_values_are_finite():
    study = opened()
    (trial,) = study.ask(1)
    with pytest.raises(InputError, match="trial 0 has the value nan"):
        study.tell(trial, math.nan)


def test_a_study_may_be_made_longer(tmp_path):
    path = tmp_path / "journal.log"
    short = run(opened(path, trials=8))
    assert run(opened(path, trials=12))[:8] == short


@pytest.mark.parametrize("options", [{"seed": 5}, {"startup": 7}, {"first": FIRST | {LOW: 0.2}}, {"space": GRID}])
def test_a_study_goes_on_only_with_what_it_began_with(tmp_path, options):
    opened(tmp_path / "journal.log")
    with pytest.raises(InputError, match=r"journal.log: study all has .*another output folder"):
        opened(tmp_path / "journal.log", **options)


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    path = tmp_path / "journal.log"
    path.write_text("no journal")
    with pytest.raises(InputError, match=r"journal.log: cannot be used.*something else"):
        opened(path)
    assert path.read_text() == "no journal"


def test_a_grid_asks_the_first_candidate_and_every_other_point_once(tmp_path):
    first = {LOW: 0.1, HIGH: 0.2}
    study = opened(tmp_path / "journal.log", space=GRID, first=first, candidates=GRID.grid())
    tried = []
    while not study.done():
        batch = study.ask(2)
        tried += [trial.candidate for trial in batch]
        for trial in batch:
            study.tell(trial, trial.candidate[LOW])
        study = opened(tmp_path / "journal.log", space=GRID, first=first, candidates=GRID.grid())
    assert tried == [first, *(one for one in GRID.grid() if one != first)]


def test_a_key_with_one_value_is_kept():
    space = SearchSpace({LOW: Range(0.1, 0.9, 0.1), "postprocess.closing.use": Choices((False,))})
    study = opened(space=space, first={LOW: 0.1, "postprocess.closing.use": False}, trials=9)
    while not study.done():
        for trial in study.ask(1):
            assert trial.candidate["postprocess.closing.use"] is False
            study.tell(trial, trial.candidate[LOW])


def test_without_optuna_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "optuna":
            raise ImportError("gone", name="optuna")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r'pip install "nx47dask\[calibrate\]"'):
        opened()
