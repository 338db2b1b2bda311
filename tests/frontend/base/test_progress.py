"""Stages reach the listener, and cost nothing without one."""

from __future__ import annotations

import threading

import pytest

from reconvene.frontend.base.progress import listening, stage, track


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []
        self._lock = threading.Lock()

    def begin(self, label: str, total: int | None) -> int:
        with self._lock:
            self.events.append(("begin", (label, total)))
            return len(self.events)

    def advance(self, key: int) -> None:
        with self._lock:
            self.events.append(("advance", key))

    def end(self, key: int) -> None:
        with self._lock:
            self.events.append(("end", key))


def test_nobody_listens_by_default() -> None:
    with stage("quiet"):
        assert list(track([1, 2], "quiet")) == [1, 2]


def test_stages_nest_and_end_even_when_they_fail() -> None:
    recorder = Recorder()
    with pytest.raises(ValueError), listening(recorder), stage("outer"), stage("inner"):
        raise ValueError
    assert recorder.events == [("begin", ("outer", None)), ("begin", ("inner", None)), ("end", 2), ("end", 1)]


@pytest.mark.parametrize(
    ("items", "total", "expected"), [([1, 2], None, 2), (iter([1, 2]), None, None), ([1, 2], 9, 9)]
)
def test_track_reports_every_step(items: list[int], total: int | None, expected: int | None) -> None:
    recorder = Recorder()
    with listening(recorder):
        assert list(track(items, "count", total)) == [1, 2]
    assert recorder.events[0] == ("begin", ("count", expected))
    assert [kind for kind, _ in recorder.events] == ["begin", "advance", "advance", "end"]


def test_a_broken_off_track_ends() -> None:
    recorder = Recorder()
    with listening(recorder):
        steps = track([1, 2, 3], "count")
        next(steps)
        steps.close()
    assert [kind for kind, _ in recorder.events] == ["begin", "end"]


def test_the_listener_before_comes_back() -> None:
    outer, inner = Recorder(), Recorder()
    with listening(outer):
        with listening(inner), stage("inner"):
            pass
        with stage("outer"):
            pass
    assert [event for event in outer.events if event[0] == "begin"] == [("begin", ("outer", None))]


def test_stages_from_several_threads_all_arrive() -> None:
    recorder = Recorder()

    def work(label: str) -> None:
        for _ in track(range(50), label):
            pass

    with listening(recorder):
        threads = [threading.Thread(target=work, args=(str(index),)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    kinds = [kind for kind, _ in recorder.events]
    assert (kinds.count("begin"), kinds.count("advance"), kinds.count("end")) == (4, 200, 4)
