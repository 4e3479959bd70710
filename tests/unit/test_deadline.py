"""Time limits: what a text means, when a run has to stop, and what the window does then."""

from __future__ import annotations

import math

import pytest

from nx47dask.engine import Ledger, SerialPool, execute
from nx47dask.engine.deadline import Deadline, parse_duration
from nx47dask.errors import InputError
from tests.unit.test_window import Heard, StubbornPool, two_stages


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h30m", 30600), ("45m", 2700), ("90s", 90), ("90", 90), ("1h5m10s", 3910), ("0.5", 0.5), ("2h", 7200)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "1h30", "8x", "h", "-5", "30m8h", "1.5h", "8h 30m", "inf"])
def test_what_is_no_duration(text):
    with pytest.raises(InputError, match=r"time limit .*8h30m"):
        parse_duration(text)


def test_the_longest_task_and_the_closing_are_kept_in_reserve():
    now = [100.0]
    deadline = Deadline(60, 10, clock=lambda: now[0])
    now[0] = 149.9
    assert not deadline.over()
    for seconds in (20.0, 3.0):
        deadline.task_finished("a", {"seconds": seconds}, 0, resumed=False)
    assert deadline.over()
    now[0] = 129.9
    assert not deadline.over()
    now[0] = 130.0
    assert deadline.over()


def test_infinity_is_no_limit():
    assert not Deadline(math.inf, 10).over()
    assert not Deadline(math.inf, 10).limited
    assert Deadline(1e9, 10).limited


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    yield ledger
    ledger.close()


@pytest.fixture
def pool():
    pool = SerialPool()
    yield pool
    pool.close()


def after(tasks):
    """Over when so many tasks have been started."""
    asked = []

    def over():
        asked.append(1)
        return len(asked) > tasks

    return over


@pytest.mark.parametrize("tasks", [0, 1, 3, 5, 8])
def test_no_task_is_started_when_the_time_is_over(ledger, pool, tasks):
    heard = Heard()
    results, errors = execute({"a": two_stages(2), "b": two_stages(2)}, pool, ledger, [heard], over=after(tasks))
    assert len(heard.finished) == tasks
    assert list(results) == ["a", "b"][: tasks // 4]
    assert errors == {}


def test_what_has_records_still_ends(ledger, pool):
    execute({"b": two_stages(2), "c": two_stages(2)}, pool, ledger)
    results, errors = execute({v: two_stages(2) for v in "abcd"}, pool, ledger, over=lambda: True)
    assert results == {"b": [0, 4], "c": [0, 4]}
    assert errors == {}


def test_the_rest_is_done_later(ledger, pool):
    execute({v: two_stages(3) for v in "ab"}, pool, ledger, over=after(4))
    heard = Heard()
    results, _ = execute({v: two_stages(3) for v in "ab"}, pool, ledger, [heard])
    assert results == {"a": [0, 4, 8], "b": [0, 4, 8]}
    assert sum(resumed for *_, resumed in heard.finished) == 4


def test_tasks_under_way_are_left_behind(ledger):
    pool = StubbornPool(3)
    results, _ = execute({"a": two_stages(6)}, pool, ledger, over=after(4))
    assert results == {}
    assert len(pool.done) == 2, "the third slot that became free found the time over"
    assert len(pool.running) == 2


@pytest.mark.parametrize("most", [1, 2, 4])
def test_volumes_under_way_are_bounded(ledger, most):
    begun, ended = [], []

    def pipeline(name):
        begun.append(name)
        yield from two_stages(2)
        ended.append(name)

    class Watched(StubbornPool):
        most_begun = 0

        def wait(self, timeout_s):
            self.most_begun = max(self.most_begun, len(begun) - len(ended))
            return super().wait(timeout_s)

    pool = Watched(20)
    results, _ = execute({name: pipeline(name) for name in "abcdef"}, pool, ledger, most_volumes=most)
    assert pool.most_begun == most
    assert list(results) == begun == list("abcdef")
