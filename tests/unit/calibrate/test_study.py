"""Studies: what is asked, in which order, and what is shown of it."""

from __future__ import annotations

import builtins
import math

import pytest

from nx47dask.calibration.methods.space import Choices, Range, SearchSpace
from nx47dask.calibration.methods.study import open_study
from nx47dask.errors import InputError

optuna = pytest.importorskip("optuna")

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
    asked = []
    while trials := study.ask(batch):
        asked += trials
        tell_all(study, trials)
    assert [trial.number for trial in asked] == list(range(len(asked)))
    return [trial.candidate for trial in asked]


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


def test_studies_of_one_seed_share_what_comes_before_sampling(tmp_path):
    studies = [opened(tmp_path / "journal.log", name) for name in ("all", "fold 1")]
    one, other = (study.ask(6) for study in studies)
    assert one == other
    tell_all(studies[0], one)
    for trial in other:
        studies[1].tell(trial, -worth(trial.candidate))
    assert [t.candidate for t in studies[0].ask(8)] != [t.candidate for t in studies[1].ask(8)]


def test_sampling_beats_even_cover():
    tried = run(opened(trials=60, startup=20))
    assert max(map(worth, tried[20:])) > max(map(worth, tried[1:20]))


def test_values_are_finite():
    study = opened()
    (trial,) = study.ask(1)
    with pytest.raises(InputError, match="trial 0 has the value nan"):
        study.tell(trial, math.nan)


def test_a_list_is_asked_after_the_first_candidate_once():
    first = {LOW: 0.1, HIGH: 0.2}
    study = opened(space=GRID, first=first, candidates=GRID.grid())
    tried = []
    while trials := study.ask(2):
        tried += [trial.candidate for trial in trials]
        for trial in trials:
            study.tell(trial, trial.candidate[LOW])
    assert tried == [first, *(one for one in GRID.grid() if one != first)]


def test_the_journal_shows_what_was_asked_and_told(straight, tmp_path):
    run(opened(tmp_path / "journal.log"))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    shown = optuna.load_study(study_name="all", storage=optuna.storages.JournalStorage(backend)).trials
    assert [trial.user_attrs["candidate"] for trial in shown] == straight
    values = [None if number % 3 == 2 else worth(candidate) for number, candidate in enumerate(straight)]
    assert [trial.value for trial in shown] == values


def test_a_key_with_one_value_is_kept():
    space = SearchSpace({LOW: Range(0.1, 0.9, 0.1), "postprocess.closing.use": Choices((False,))})
    study = opened(space=space, first={LOW: 0.1, "postprocess.closing.use": False}, trials=9)
    while trials := study.ask(1):
        for trial in trials:
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
