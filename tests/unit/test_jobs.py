"""What is known of a running job: states of blocks, changes since a look, rates, time left, sums."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from nx47dask.engine.events import JobTitle
from nx47dask.engine.tasks import Batch, Failure
from nx47dask.monitor.estimate import Pace, StageWork, share_done, time_left_s
from nx47dask.monitor.feed import JobFeed
from nx47dask.monitor.state import DONE, MOST_JOBS, QUARANTINED, REPEATED, RETRYING, SKIPPED, WAITING, Jobs


class Client:
    """Takes messages as Dask's client does; may be out of reach for a while."""

    id = "Client-7"
    status = "running"

    def __init__(self, jobs, failing=0):
        self.jobs, self.failing, self.messages = jobs, failing, []

    def log_event(self, topic, message):
        self.messages.append(message)
        if self.failing:
            self.failing -= 1
            if self.failing % 2:  # it came, but the answer was lost
                self.jobs.apply(message)
            raise OSError("timed out")
        self.jobs.apply(message)


TITLE = JobTitle("run", "/runs/run", "fast", ("a", "b"), ("detect", "export"))


def record(stage, number, **others):
    return {"stage": stage, "number": number, "seconds": 2.0, "worker": "w-1", "peak_rss_bytes": 1, **others}


def failure(number, attempt, final):
    return Failure("detect", number, f"block {number}", attempt, "no such chunk", "Traceback", final)


def happen(feed):
    """Six blocks of one volume end in every way, one has not ended; another volume has not begun."""
    feed.stage_started("a", Batch("detect", (), 8, 8000, (2, 2, 2)))
    feed.task_finished("a", record("detect", 0, files={"x": 30, "y": 12}), 1000, resumed=False)
    feed.task_finished("a", record("detect", 1, files={"x": 99}), 1000, resumed=True)
    feed.task_finished("a", record("detect", 2, skipped=True), 1000, resumed=False)
    feed.task_failed("a", failure(3, 1, final=False))
    feed.task_finished("a", record("detect", 3), 1000, resumed=False)
    for attempt in (1, 2, 3):
        feed.task_failed("a", failure(4, attempt, final=attempt == 3))
    feed.task_failed("a", failure(5, 1, final=False))


@pytest.fixture
def jobs():
    return Jobs()


def told(jobs, failing=0):
    client = Client(jobs, failing)
    with JobFeed(client, TITLE) as feed:
        happen(feed)
    return client


def look(jobs, since=0, wanted=None, known=None, running=None):
    answer = jobs.choose(None).answer(since, wanted, known, 1e12, running or {})
    return json.loads(json.dumps(answer))


STATES = [DONE, DONE, SKIPPED, REPEATED, QUARANTINED, RETRYING, WAITING, WAITING]


def test_every_end_of_a_block_gets_its_state(jobs):
    client = told(jobs)
    answer = look(jobs)
    assert answer["maps"]["detect"]["states"] == "".join(map(str, STATES))
    assert answer["maps"]["detect"]["grid"] == [2, 2, 2]
    assert answer["volumes"]["b"][0] == "waiting"
    assert [(error["number"], error["attempt"], error["final"]) for error in answer["errors"]] == [
        (3, 1, False),
        (4, 1, False),
        (4, 2, False),
        (4, 3, True),
        (5, 1, False),
    ]
    sums = jobs.choose(None).sums["detect"]
    assert [sums[key] for key in ("tasks", "resumed", "skipped", "retried", "quarantined")] == [2, 1, 1, 4, 1]
    assert (sums["voxels"], sums["task_s"], sums["written_bytes"]) == (2000, 4.0, 42)
    assert answer["state"] == "done"
    assert len(client.messages) <= 3, "changes are gathered"


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_nothing_is_lost_or_counted_twice_when_messages_fail(jobs, failing, monkeypatch):
    monkeypatch.setattr("nx47dask.monitor.feed.SECONDS_BETWEEN_MESSAGES", 0.01)
    client = Client(jobs, failing)
    with JobFeed(client, TITLE) as feed:
        deadline = time.monotonic() + 30
        while client.failing or not client.messages:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        happen(feed)
    assert look(jobs)["maps"]["detect"]["states"] == "".join(map(str, STATES))
    assert jobs.choose(None).sums["detect"]["tasks"] == 2
    assert len(look(jobs)["errors"]) == 5


def test_a_scheduler_that_is_gone_does_not_stop_the_run(jobs):
    client = Client(jobs, failing=10**9)
    client.status = "closed"
    with JobFeed(client, TITLE) as feed:
        happen(feed)
        feed._thread.join(30)
        assert not feed._thread.is_alive()
    assert len(client.messages) == 1


def test_the_end_of_a_job_says_why(jobs):
    with pytest.raises(ValueError, match="disk"), JobFeed(Client(jobs), TITLE):
        raise ValueError("the disk is full")
    assert [jobs.choose(None).state, jobs.choose(None).message] == ["stopped", "the disk is full"]


def test_only_what_changed_is_told_again(jobs):
    told(jobs)
    job, since = jobs.choose(None), jobs.changes
    assert look(jobs, since, known="a")["maps"]["detect"]["late"] == {}
    message = {"job": job.id, "number": 99, "time_s": 0.0, "blocks": [["a", "detect", (5, 6), bytes((DONE, SKIPPED))]]}
    jobs.apply(message)
    answer = look(jobs, since, known="a")
    assert answer["maps"]["detect"]["late"] == {str(DONE): [5], str(SKIPPED): [6]}
    assert list(answer["volumes"]) == ["a"]
    assert answer["errors"] == []
    assert "states" in look(jobs, since, known="b")["maps"]["detect"], "another volume's page knows nothing of it"
    jobs.apply(message | {"blocks": [["a", "detect", (5,), bytes((WAITING,))]]})
    assert look(jobs, since, known="a")["maps"]["detect"]["late"] == {str(DONE): [5], str(SKIPPED): [6]}, "came twice"


def test_running_blocks_are_those_of_the_volume_shown(jobs):
    told(jobs)
    running = {("a", "detect"): [6], ("b", "detect"): [1]}
    assert look(jobs, running=running)["maps"]["detect"]["running"] == [6]


def test_a_lost_client_ends_its_jobs_and_old_jobs_go():
    jobs = Jobs()
    for n in range(3 * MOST_JOBS):
        opening = {"job": str(n), "number": 1, "time_s": 0.0, "client": f"Client-{n}", "title": {"volumes": ["a"]}}
        opening["title"] |= {"name": "r", "out": "r", "workflow": "w", "stages": ["detect"]}
        jobs.apply(opening)
        if n < 3 * MOST_JOBS - 1:
            jobs.lose(f"Client-{n}", 1.0)
    assert len(jobs.jobs) <= MOST_JOBS + 1
    assert jobs.choose(None).id == str(3 * MOST_JOBS - 1)
    assert [jobs.choose("23").state, jobs.choose("22").state] == ["running", "lost"]


def test_ten_thousand_blocks_are_told_in_a_moment(jobs):
    client = Client(jobs)
    with JobFeed(client, TITLE) as feed:
        feed.stage_started("a", Batch("detect", (), 10_240, 10_240, (40, 16, 16)))
        for n in range(10_240):
            feed.task_finished("a", record("detect", n), 1, resumed=False)
    answer = look(jobs)
    assert answer["maps"]["detect"]["states"] == str(DONE) * 10_240
    assert len(client.messages) < 20


def test_time_left_is_that_of_the_stages_that_have_a_rate():
    detect = StageWork("detect", settled=10, left=30, ran=10, task_s=40.0)
    assert time_left_s([detect], 2.0) == (60.0, [])
    merge = StageWork("merge", settled=0, left=0, ran=0, task_s=0.0, begun=False)
    assert time_left_s([detect, merge], 2.0) == (60.0, ["merge"])
    fresh = StageWork("fresh", settled=0, left=5, ran=0, task_s=0.0)
    assert time_left_s([fresh], 2.0) == (None, ["fresh"])
    assert time_left_s([detect, fresh], None) == (None, ["fresh"])
    over = StageWork("over", settled=5, left=0, ran=5, task_s=1.0)
    assert time_left_s([over], None) == (0.0, [])


def test_share_weighs_stages_by_their_time():
    slow = StageWork("slow", settled=5, left=5, ran=5, task_s=90.0)
    fast = StageWork("fast", settled=10, left=0, ran=10, task_s=20.0)
    assert share_done([slow, fast]) == pytest.approx((90 + 20) / (180 + 20))
    unknown = StageWork("unknown", settled=0, left=0, ran=0, task_s=0.0, begun=False)
    assert share_done([slow, fast, unknown]) == pytest.approx((90 + 20) / (180 + 20 + 100))
    assert share_done([]) == 0.0


def test_pace_is_that_of_the_last_minute_or_of_a_few_long_tasks():
    pace = Pace()
    pace.start(0.0)
    assert pace.at_once(1.0) is None
    for second in range(1, 601):
        pace.add(float(second), 1, 2.0 if second > 300 else 8.0, 100.0)
    assert pace.at_once(600.0) == pytest.approx(2.0, rel=0.05)
    assert pace.voxels_per_s(600.0) == pytest.approx(100.0, rel=0.05)
    assert pace.at_once(6000.0) is None, "nothing ended lately"
    long = Pace()
    long.start(0.0)
    for n in range(1, 9):
        long.add(300.0 * n, 2, 600.0, 1.0)
    assert long.at_once(2550.0) == pytest.approx(2.0, rel=0.35)


def test_maps_grow_for_numbers_that_were_not_announced(jobs):
    told(jobs)
    job = jobs.choose(None)
    jobs.apply({"job": job.id, "number": 99, "time_s": 0.0, "blocks": [["a", "detect", (11,), bytes((DONE,))]]})
    assert np.array_equal(job.volumes["a"].maps["detect"].states[8:], [WAITING] * 3 + [DONE])
