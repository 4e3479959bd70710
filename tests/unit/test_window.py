"""The scheduling window: what is submitted when, and what happens when tasks fail."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from nx47dask.cluster import dask_pool
from nx47dask.engine import Batch, Ledger, SerialPool, Task, execute, window
from nx47dask.engine.tasks import Outcome
from nx47dask.engine.window import TRIES
from nx47dask.engine.worker import library_versions, run_task
from nx47dask.errors import BlockError, DeviceMemoryError, InputError, ModelError, StorageError


class Heard:
    """An observer that keeps what it hears."""

    def __init__(self):
        self.finished = []
        self.failed = []
        self.started = []
        self.stages = []

    def stage_started(self, volume, batch):
        self.stages.append(("start", volume, batch.stage))

    def task_started(self, volume, stage, number):
        self.started.append((volume, stage, number))

    def stage_finished(self, volume, stage):
        self.stages.append(("end", volume, stage))

    def task_finished(self, volume, record, voxels, resumed):
        self.finished.append((volume, record["stage"], record["number"], resumed))

    def task_failed(self, volume, failure):
        self.failed.append((volume, failure.stage, failure.number, failure.final))


class StubbornPool:
    """Runs tasks in the order of submission, but keeps back those it is told to until nothing else is left."""

    observers = ()
    run = staticmethod(run_task)

    def __init__(self, window, keep_back=()):
        self.window = window
        self.keep_back = set(keep_back)
        self.running = {}
        self.most = 0
        self.done = []

    def submit(self, ticket, task, name, place):
        self.running[ticket] = (task, place)
        self.most = max(self.most, len(self.running))

    def wait(self, timeout_s):
        ready = [
            t for t, (task, place) in self.running.items() if (place.split(",")[0], task.number) not in self.keep_back
        ]
        ticket = (ready or list(self.running))[0]
        task, place = self.running.pop(ticket)
        self.done.append(place)
        try:
            return [Outcome(ticket, self.run(task.function, task.arguments, place))]
        except Exception as error:  # noqa: BLE001 - a pool hands over whatever a task raises
            return [Outcome(ticket, error=error)]


def double(value):
    return {"value": 2 * value}


def fail(kind, calls=None, succeed_at=None):
    """A task that raises, until its try number ``succeed_at``."""
    if calls is not None:
        calls.append(1)
        if len(calls) == succeed_at:
            return {"value": 0}
    raise kind("broken")


def batch(stage, *tasks):
    return Batch(stage, iter(tasks), len(tasks), 0)


def task(number, function=double, *arguments):
    return Task(number, f"block {number}", function, arguments or (number,))


def two_stages(count):
    first = yield batch("first", *(task(n) for n in range(count)))
    second = yield batch("second", *(task(n, double, first[n]["value"]) for n in range(count)))
    return [second[n]["value"] for n in range(count)]


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    yield ledger
    ledger.close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(window, "RETRY_AFTER_S", (0.0, 0.0))


@pytest.fixture
def pool():
    pool = SerialPool()
    yield pool
    pool.close()


def test_results_of_stages_feed_the_next(ledger, pool):
    heard = Heard()
    results, errors = execute({"a": two_stages(3), "b": two_stages(2)}, pool, ledger, [heard])
    assert results == {"a": [0, 4, 8], "b": [0, 4]}
    assert errors == {}
    for volume in "ab":
        mine = [(what, stage) for what, v, stage in heard.stages if v == volume]
        assert mine == [("start", "first"), ("end", "first"), ("start", "second"), ("end", "second")]
    assert len(heard.finished) == len(set(heard.finished)) == 10


def test_volume_2_runs_while_volume_1_waits_for_its_last_task(ledger):
    pool = StubbornPool(3, keep_back=[("a", 2)])
    execute({"a": two_stages(3), "b": two_stages(2)}, pool, ledger)
    last = pool.done.index("a, first, block 2")
    assert {place for place in pool.done[:last] if place.startswith("b")} == {
        f"b, {stage}, block {n}" for stage in ("first", "second") for n in range(2)
    }
    assert not [place for place in pool.done[:last] if place.startswith("a, second")], "a barrier holds its own volume"


def test_first_volume_goes_first(ledger):
    pool = StubbornPool(2)
    execute({"a": two_stages(4), "b": two_stages(4)}, pool, ledger)
    assert [place[0] for place in pool.done[:3]] == ["a"] * 3


@pytest.mark.parametrize("window", [1, 2, 5])
def test_window_is_bounded_and_used(ledger, window):
    pool = StubbornPool(window)
    execute({name: two_stages(7) for name in "abc"}, pool, ledger)
    assert pool.most == window


def test_tasks_are_read_lazily(ledger):
    made = []

    def tasks():
        for number in range(50):
            made.append(number)
            yield task(number)

    def pipeline():
        yield Batch("first", tasks(), 50, 0)

    class Checked(StubbornPool):
        def wait(self, timeout_s):
            assert len(made) <= len(self.done) + self.window
            return super().wait(timeout_s)

    execute({"a": pipeline()}, Checked(4), ledger)
    assert len(made) == 50


def test_recorded_tasks_do_not_run_again(ledger, pool):
    ledger.append("a", {"stage": "first", "number": 1, "value": 100})
    ledger.append("a", {"stage": "second", "number": 0, "value": 7})
    heard = Heard()
    results, _ = execute({"a": two_stages(3)}, pool, ledger, [heard])
    assert results == {"a": [7, 200, 8]}, "records of an earlier client are what the next stage sees"
    assert [key for *key, resumed in heard.finished if resumed] == [["a", "first", 1], ["a", "second", 0]]
    again = Heard()
    assert execute({"a": two_stages(3)}, pool, ledger, [again])[0] == results
    assert all(resumed for *_, resumed in again.finished)
    assert len(again.finished) == 6


@pytest.mark.parametrize(("kind", "words"), [(KeyError, "KeyError: 'broken'"), (BlockError, "broken")])
def test_a_block_that_always_fails_is_quarantined(ledger, pool, kind, words):
    """The rest of its stage is done, its volume stops there, other volumes go on; a resumed run has it left alone."""
    calls = []

    def broken(function, *arguments):
        records = yield batch("first", task(0), task(1, function, *arguments), task(2))
        return [records[n]["value"] for n in range(3)]

    heard = Heard()
    pipelines = {"a": broken(fail, kind, calls), "b": two_stages(2)}
    results, errors = execute(pipelines, pool, ledger, [heard])
    assert len(calls) == TRIES == 3
    assert heard.failed == [("a", "first", 1, False), ("a", "first", 1, False), ("a", "first", 1, True)]
    assert results == {"b": [0, 4]}
    assert isinstance(errors["a"], BlockError)
    assert str(errors["a"]) == f"a, first, block 1: {words}; every other task of first is done"
    assert "raise kind(" in errors["a"].__cause__.__notes__[0]
    assert sorted(ledger.load("a")) == [("first", 0), ("first", 2)]

    again = Heard()
    assert execute({"a": broken(double, 5)}, pool, ledger, [again]) == ({"a": [0, 10, 4]}, {})
    assert again.started == [("a", "first", 1)]


def test_a_fault_of_every_block_stops_the_volume(ledger, monkeypatch):
    monkeypatch.setattr(window, "MOST_QUARANTINED", 4)
    calls = []

    def broken():
        yield batch("first", *(task(n, fail, KeyError, calls) for n in range(100)))

    _, errors = execute({"a": broken()}, StubbornPool(1), ledger)
    assert "block 4" in str(errors["a"])
    assert len(calls) == 5 * TRIES


def test_failures_carry_the_traceback_of_the_worker(ledger, pool):
    class Kept(Heard):
        def task_failed(self, volume, failure):
            self.failed.append(failure)

    def broken():
        yield batch("first", task(7, fail, ZeroDivisionError))

    heard = Kept()
    execute({"a": broken()}, pool, ledger, [heard])
    last = heard.failed[-1]
    assert (last.stage, last.number, last.place, last.attempt, last.final) == ("first", 7, "block 7", 3, True)
    assert last.message == "a, first, block 7: ZeroDivisionError: broken"
    assert "in fail" in last.traceback
    assert "ZeroDivisionError: broken" in last.traceback


class DeadlyPool(StubbornPool):
    """Workers die while they have certain blocks, and take whatever is under way with them."""

    def __init__(self, size, deadly):
        super().__init__(size)
        self.deadly = deadly
        self.alone = []

    def wait(self, timeout_s):
        if any(task.number in self.deadly for task, _ in self.running.values()):
            lost, self.running = self.running, {}
            if len(lost) == 1:
                self.alone += [task.number for task, _ in lost.values()]
            return [Outcome(ticket, error=RuntimeError("killed"), worker_died=True) for ticket in lost]
        return super().wait(timeout_s)


def test_only_the_block_that_ends_workers_is_quarantined(ledger):
    def pipeline():
        yield batch("first", *(task(n) for n in range(12)))

    pool = DeadlyPool(4, {5})
    heard = Heard()
    _, errors = execute({"a": pipeline()}, pool, ledger, [heard])
    assert pool.alone == [5], "a suspect is the only task under way"
    assert [key for *key, final in heard.failed if final] == [["a", "first", 5]]
    assert "a, first, block 5: workers ended while they ran it, the last time with no other task" in str(errors["a"])
    assert len(ledger.load("a")) == 11


def test_known_results_are_recorded_and_not_run(ledger):
    def pipeline():
        known = Task(1, "block 1", fail, (AssertionError,), known={"value": 5, "files": {}})
        records = yield batch("first", task(0), known)
        return [records[n]["value"] for n in range(2)]

    heard, pool = Heard(), StubbornPool(2)
    assert execute({"a": pipeline()}, pool, ledger, [heard])[0] == {"a": [0, 5]}
    assert pool.done == ["a, first, block 0"]
    assert ledger.load("a")["first", 1]["skipped"]
    assert heard.started == [("a", "first", 0)]


def test_a_gpu_without_memory_gets_the_block_in_smaller_pieces(ledger, monkeypatch):
    class Restarting(StubbornPool):
        restarted = ()

        def run(self, function, arguments, place):
            return dask_pool.run_on_worker(function, arguments, place, library_versions())

        def restart(self, worker):
            self.restarted = (*self.restarted, worker)

    def exhausted():
        raise DeviceMemoryError("out of memory")

    def pipeline():
        smaller = task(0, double, 21)
        records = yield batch("first", dataclasses.replace(task(0, exhausted), arguments=(), smaller=smaller))
        return records[0]["value"]

    pool = Restarting(1)
    monkeypatch.setattr(dask_pool, "get_worker", lambda: SimpleNamespace(address="tcp://there"))
    assert execute({"a": pipeline()}, pool, ledger) == ({"a": 42}, {})
    assert pool.restarted == ("tcp://there",)


def test_a_try_that_succeeds_leaves_no_error(ledger, pool):
    calls = []

    def pipeline():
        records = yield batch("first", task(0, fail, OSError, calls, 3))
        return records[0]["value"]

    assert execute({"a": pipeline()}, pool, ledger) == ({"a": 0}, {})
    assert len(calls) == 3


@pytest.mark.parametrize("kind", [InputError, ModelError])
def test_what_no_block_is_to_blame_for_stops_the_volume_at_once(ledger, pool, kind):
    calls = []

    def broken():
        yield batch("first", task(0, fail, kind, calls), task(1))

    results, errors = execute({"a": broken(), "b": two_stages(1)}, pool, ledger)
    assert len(calls) == 1
    assert type(errors["a"]) is kind
    assert str(errors["a"]) == "a, first, block 0: broken"
    assert results == {"b": [0]}
    assert ledger.load("a") == {}


def test_storage_error_stops_all(ledger, pool):
    def full():
        yield batch("first", task(0, fail, StorageError))

    later = []

    def other():
        later.append(1)
        yield batch("first", task(0))

    with pytest.raises(StorageError, match="a, first, block 0: broken"):
        execute({"a": full(), "b": other()}, pool, ledger)
    assert later == []


def test_tasks_under_way_are_recorded_when_their_volume_stops(ledger):
    def broken():
        yield batch("first", task(0, fail, InputError), task(1), task(2), task(3))

    pool = StubbornPool(3)
    _, errors = execute({"a": broken()}, pool, ledger)
    assert isinstance(errors["a"], InputError)
    assert sorted(ledger.load("a")) == [("first", 1), ("first", 2)], "no new task of a stopped volume"


def test_a_stopped_volume_tries_nothing_again(ledger):
    calls = []

    def broken():
        yield batch("first", task(0, fail, InputError), task(1, fail, KeyError, calls))

    execute({"a": broken()}, StubbornPool(2), ledger)
    assert len(calls) == 1


def test_torn_last_line_is_cut_off(ledger, pool, tmp_path):
    results, _ = execute({"a": two_stages(2)}, pool, ledger)
    ledger.close()
    path = tmp_path / "ledger" / "a.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    heard = Heard()
    assert execute({"a": two_stages(2)}, pool, ledger, [heard])[0] == results
    assert [key for *key, resumed in heard.finished if not resumed] == [["a", "second", 1]]
    ledger.close()
    assert path.read_bytes().count(b"\n") == content.count(b"\n") == 4


def test_damaged_ledger_is_named(ledger, tmp_path):
    path = tmp_path / "ledger" / "a.jsonl"
    for damage in (b"\0" * 9, b"[1]", b'{"stage": "first"}'):
        path.write_bytes(damage + b"\n" + b'{"stage": "first", "number": 1}\n')
        with pytest.raises(InputError, match=r"a\.jsonl: a record cannot be read .*--resume"):
            ledger.load("a")
