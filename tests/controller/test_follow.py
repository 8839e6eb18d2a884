"""Following the history: everything once, in order, whatever the consumer does."""

import threading

import pytest

from sliceform.controller.follow.follower import Follower
from sliceform.states import AttemptRecord, History

BOUND_S = 20.0


class Fleet:
    """A history with somebody who writes it."""

    def __init__(self, limit=1000):
        self.history = History(limit)
        self.published = threading.Condition()

    def write(self, count=1):
        for _ in range(count):
            self.history.append(
                tick=1, at=1.0, kind="slice", key="slice-1", trigger=None, source=None, dest=None, reason="desired"
            )
        with self.published:
            self.published.notify_all()


class Reader:
    """A consumer that can be told to fail, and can be waited for."""

    def __init__(self):
        self.batches = []
        self.failures = 0
        self._told = threading.Condition()

    def __call__(self, batch):
        with self._told:
            self._told.notify_all()
            if self.failures:
                self.failures -= 1
                raise RuntimeError("the disk is full")
            self.batches.append(batch)

    @property
    def seqs(self):
        return [change.seq for batch in self.batches for change in batch.changes]

    def until(self, done):
        with self._told:
            assert self._told.wait_for(done, BOUND_S)


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def follow():
    followers = []

    def begin(fleet, consume, **options):
        follower = Follower(fleet.history, fleet.published, consume, name="test", **options)
        followers.append(follower)
        follower.start()
        return follower

    yield begin
    assert all(follower.stop(BOUND_S) for follower in followers)


def test_every_change_comes_once_and_in_order(fleet, reader, follow):
    fleet.write(2)
    follow(fleet, reader, since=0)
    for _ in range(50):
        fleet.write(3)
    reader.until(lambda: len(reader.seqs) >= 152)
    assert reader.seqs == list(range(1, 153))
    assert all(batch.missed == 0 for batch in reader.batches)


def test_by_default_only_what_comes_later_is_handed_over(fleet, reader, follow):
    fleet.write(2)
    follow(fleet, reader)
    fleet.write()
    reader.until(lambda: reader.seqs)
    assert reader.seqs == [3]


def test_a_batch_that_failed_is_offered_again(fleet, reader, follow):
    reader.failures = 2
    follower = follow(fleet, reader)
    fleet.write(2)
    reader.until(lambda: len(reader.seqs) >= 2)
    assert reader.seqs == [1, 2]
    assert follower.errors == 2


def test_what_is_left_is_handed_over_at_the_end(fleet, reader):
    follower = Follower(fleet.history, fleet.published, reader, name="test")
    follower.start()
    fleet.write(4)
    assert follower.stop(BOUND_S)
    assert reader.seqs == [1, 2, 3, 4]


def test_it_says_what_the_history_forgot_before_it_came(reader, follow):
    fleet = Fleet(limit=8)
    fleet.write(20)
    follow(fleet, reader, since=0)
    reader.until(lambda: reader.batches)
    assert reader.batches[0].missed == reader.seqs[0] - 1 > 0


def test_attempts_come_as_they_stand(fleet, reader, follow):
    follow(fleet, reader)
    fleet.history.attempts.record(AttemptRecord("run-1", 1, ("slice-1",), (), 1.0))
    fleet.write()
    reader.until(lambda: reader.batches and reader.batches[-1].attempts)
    assert [attempt.key for attempt in reader.batches[-1].attempts] == ["run-1/1"]


def test_a_consumer_that_hangs_does_not_hold_up_the_end(fleet):
    free, entered = threading.Event(), threading.Event()

    def hang(_batch):
        entered.set()
        free.wait(BOUND_S)

    follower = Follower(fleet.history, fleet.published, hang, name="test")
    follower.start()
    fleet.write()
    assert entered.wait(BOUND_S)
    try:
        assert not follower.stop(0.01)
    finally:
        free.set()
    assert follower.stop(BOUND_S)


def test_at_a_pace_a_batch_comes_though_it_is_empty(fleet, reader, follow):
    follow(fleet, reader, every_s=0.01)
    reader.until(lambda: len(reader.batches) >= 3)
    assert reader.seqs == []
    fleet.write(2)
    reader.until(lambda: len(reader.seqs) == 2)


def test_a_consumer_may_end_its_own_following(fleet, reader):
    ended = []
    follower = Follower(fleet.history, fleet.published, lambda _: ended.append(follower.stop(BOUND_S)), name="test")
    follower.start()
    fleet.write()
    follower._thread.join(BOUND_S)
    assert ended == [True]


def test_what_was_there_before_it_began_is_neither_handed_over_nor_missed(fleet, reader):
    follower = Follower(fleet.history, fleet.published, reader, name="test")
    fleet.write(5)
    follower.start()
    fleet.write()
    assert follower.stop(BOUND_S)
    assert reader.seqs == [6]
    assert reader.batches[0].missed == 0
