"""Which tests run which lines: one pass over the tests, each in a coverage context of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

from .children import run_child

TEST_SECONDS = 10.0
"""Processor seconds; a slower test is not used against mutants."""
FILE_SECONDS = 900.0
"""After that many seconds no further test of a file is begun."""
_UNCOLLECTED = 101
QUIET = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--tb=short")


class _TooSlow(BaseException):
    """Not an Exception, so that no code under test catches it."""


class _Contexts:
    """A pytest plugin that gives each test its context, stops slow ones and remembers how long those that pass take."""

    def __init__(self, recorder: coverage.Coverage) -> None:
        self.recorder = recorder
        self.began = time.monotonic()
        self.seconds: dict[str, float] = defaultdict(float)
        self.not_passed: set[str] = set()
        self.uncollected = False
        signal.signal(signal.SIGPROF, self._stop)

    @staticmethod
    def _stop(*_: Any) -> None:
        raise _TooSlow(f"more than {TEST_SECONDS:.0f} s")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.recorder.switch_context(item.nodeid)
        signal.setitimer(signal.ITIMER_PROF, TEST_SECONDS)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.recorder.switch_context("")
            if time.monotonic() - self.began > FILE_SECONDS:
                item.session.shouldstop = "enough of this file"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.uncollected = self.uncollected or report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.outcome != "passed":
            self.not_passed.add(report.nodeid)

    def passed(self) -> dict[str, float]:
        """Seconds of every test that passed."""
        return {name: round(took, 3) for name, took in self.seconds.items() if name not in self.not_passed}


def record(folder: Path, test_file: str, limit: float = FILE_SECONDS + 300) -> bool:
    """Runs `test_file` of the copy and leaves ``folder/coverage/NAME.lines`` and ``NAME.json`` (seconds by test).

    False if it could not be run to its end.

    Raises:
        ValueError: it cannot be collected. All of its tests would count as none, and mutants that they kill as survivors.
    """
    base = _base(folder, test_file)
    base.parent.mkdir(exist_ok=True)
    lines, times = base.with_suffix(".lines"), base.with_suffix(".json")
    lines.unlink(missing_ok=True)

    def work() -> int:
        recorder = coverage.Coverage(data_file=str(lines), include=["passes/*", "backends/*"], config_file=False)
        recorder.set_option("run:relative_files", True)
        recorder.start()
        plugin = _Contexts(recorder)
        code = int(pytest.main([*QUIET, test_file], plugins=[plugin]))
        recorder.stop()
        recorder.save()
        if plugin.uncollected or code == pytest.ExitCode.USAGE_ERROR:
            return _UNCOLLECTED
        unfinished = times.with_suffix(".new")
        unfinished.write_text(json.dumps({"file": test_file, "seconds": plugin.passed()}))
        os.replace(unfinished, times)
        return 0 if code in (0, 1, 2, 5) else code

    times.unlink(missing_ok=True)
    code = run_child(work, folder, limit)
    if code == _UNCOLLECTED:
        lines.unlink(missing_ok=True)
        raise ValueError(f"{test_file} cannot be collected: see {folder / 'log'}, and put it right")
    return code == 0


def recorded(folder: Path, test_file: str) -> bool:
    """Whether `record` has been there."""
    return _base(folder, test_file).with_suffix(".json").exists()


def _base(folder: Path, test_file: str) -> Path:
    return folder / "coverage" / Path(test_file).with_suffix("").as_posix().replace("/", "-")


@dataclass(frozen=True)
class Covering:
    """What `record` left, to be asked."""

    seconds: dict[str, float]
    """Of every test that may be used."""
    tests: dict[str, dict[int, frozenset[str]]]
    """By file (relative to the copy) and line."""

    def of_lines(self, file: str, lines: Iterable[int]) -> list[str]:
        """Tests that run any of `lines`, the fastest first."""
        by_line = self.tests.get(file, {})
        found = frozenset[str]().union(*(by_line.get(line, frozenset()) for line in lines))
        return sorted(found, key=lambda test: (self.seconds[test], test))

    def of_file(self, file: str) -> list[str]:
        """Tests that run any line of `file` (after it was imported), the fastest first."""
        return self.of_lines(file, self.tests.get(file, {}))

    def within(self, tests: Iterable[str], seconds: float) -> list[str]:
        """The first of `tests` that together take no longer, and one in any case."""
        chosen: list[str] = []
        for test in tests:
            seconds -= self.seconds[test]
            if seconds < 0 and chosen:
                break
            chosen.append(test)
        return chosen


def covering(folder: Path, files: Iterable[str]) -> Covering:
    """Reads what `record` left about `files`."""
    seconds: dict[str, float] = {}
    tests: dict[str, dict[int, set[str]]] = {file: defaultdict(set) for file in files}
    for times in sorted((folder / "coverage").glob("*.json")):
        passed = json.loads(times.read_text())["seconds"]
        seconds |= passed
        data = coverage.CoverageData(str(times.with_suffix(".lines")))
        with contextlib.closing(data):
            data.read()
            for file, by_line in tests.items():
                for line, names in data.contexts_by_lineno(file).items():
                    by_line[line].update(name for name in names if name in passed)
    frozen = {file: {line: frozenset(names) for line, names in by_line.items()} for file, by_line in tests.items()}
    return Covering(seconds, frozen)
