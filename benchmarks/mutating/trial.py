"""One mutant: its code in place of the original, and the tests that run it until one fails."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cosmic_ray.work_item import MutationSpec

from .children import run_child
from .covering import QUIET, Covering
from .passed_over import imported_lines, statement_lines

__all__ = ["Verdict", "restored", "tests_for", "try_tests"]

PATIENCE = 200.0
"""Tests are used, the fastest first, until together they take this many seconds without a mutant."""
_STUCK = 600.0
"""Seconds that a process may take beyond ten times what its tests took; on a busy machine, too."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    kind: str
    """``failed`` (a test), ``import`` (of a test file), ``time`` or ``crash`` kill it; else ``survived``, ``no test``."""
    test: str = ""
    """The one that ended it."""
    tests: int = 0
    """How many were used at most."""

    @property
    def killed(self) -> bool:
        return self.kind in ("failed", "import", "time", "crash")


def tests_for(mutant: MutationSpec, source: str, covering: Covering) -> list[str]:
    """Tests that run the mutated code, the fastest first; for what runs at import, those that run the file at all."""
    file = mutant.module_path.as_posix()
    first, last = mutant.start_pos[0], mutant.end_pos[0]
    if first in imported_lines(source):
        return covering.of_file(file)
    exact = covering.of_lines(file, range(first, last + 1))
    return exact or covering.of_lines(file, statement_lines(source, first, last))


@contextlib.contextmanager
def restored(path: Path, changed: str) -> Iterator[None]:
    """`path` holds `changed` for a while."""
    original = path.read_bytes()
    path.write_text(changed, encoding="utf-8")
    try:
        yield
    finally:
        path.write_bytes(original)


def try_tests(folder: Path, tests: Sequence[str], covering: Covering, patience: float = PATIENCE) -> Verdict:
    """Runs `tests` of ``folder/tree``, in that order, until one fails."""
    chosen = covering.within(tests, patience)
    if not chosen:
        return Verdict("no test")
    seconds = {test: covering.seconds[test] for test in chosen}
    current = folder / "current"
    current.unlink(missing_ok=True)
    files = list(dict.fromkeys(test.partition("::")[0] for test in chosen))

    def work() -> int:
        _without_deadlines()
        return int(pytest.main([*QUIET, "-x", *files], plugins=[_Chosen(seconds, current)]))

    code = run_child(work, folder, _STUCK + 10 * sum(seconds.values()))
    test = current.read_text() if current.exists() else ""
    return Verdict(_kind(code, test), test if code else "", len(chosen))


def _kind(code: int | None, test: str) -> str:
    if code is None or code == -signal.SIGPROF:
        return "time"
    if code == 1:
        return "failed"
    if code == 0:
        return "survived"
    return "import" if code > 1 and not test else "crash"


def _without_deadlines() -> None:
    """Neither chance nor the machine's load decides about a mutant."""
    with contextlib.suppress(ImportError):
        from hypothesis import settings

        settings.register_profile("mutation", deadline=None, derandomize=True, database=None)
        settings.load_profile("mutation")


class _Chosen:
    """A pytest plugin that runs tests by name, in the order of `seconds`, each for a limited time."""

    def __init__(self, seconds: dict[str, float], current: Path) -> None:
        self.seconds, self.current = seconds, current
        self.order = {test: place for place, test in enumerate(seconds)}
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # Ends the process, whatever it is doing.

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.current.write_text(item.nodeid)
        signal.setitimer(signal.ITIMER_PROF, 20 + 10 * self.seconds[item.nodeid])  # Processor time: others may be busy.
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
