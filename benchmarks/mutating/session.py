"""A run of mutants that goes on where it stopped: a copy of the code, what the tests cover, and Cosmic Ray's database."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

from .covering import Covering, covering, record, recorded
from .sample import draw, mutated
from .tree import copy_tree, renew
from .trial import PATIENCE, Verdict, restored, tests_for, try_tests

__all__ = ["TEST_FOLDERS", "Mutant", "Session"]

TEST_FOLDERS = ("tests/passes", "tests/backends")
NOT_USED = tuple(f"tests/backends/{name}" for name in (
    "boards/", "estimate/", "test_bundle.py", "test_calling.py", "test_kernels_on_boards.py", "test_layer_times.py",
    "test_library.py", "test_linkers.py", "test_measure.py", "test_standalone.py", "test_state_in_bundles.py",
    "test_switching.py", "test_targets.py", "test_threads.py", "test_tuning.py",
))  # fmt: skip
"""Tests of other code, which compile at length."""


@dataclass(frozen=True)
class Mutant:
    """One change and what became of it; `verdict` is None as long as it was not tried."""

    key: str
    spec: MutationSpec
    verdict: Verdict | None
    before: str
    """The first line that is changed, without its indentation."""
    after: str

    @property
    def file(self) -> str:
        return self.spec.module_path.as_posix()


class Session:
    """A folder with ``tree`` (the copy that mutants change), ``source`` (the mutated files as they were), ``coverage``,
    ``session.sqlite`` (Cosmic Ray's), and ``about.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.tree, self.source = self.folder / "tree", self.folder / "source"
        self.about: dict[str, Any] = json.loads((self.folder / "about.json").read_text())
        self._database = WorkDB(str(self.folder / "session.sqlite"), WorkDB.Mode.create)

    @classmethod
    def begun(cls, folder: Path, checkout: Path, count: int, seed: int) -> Session:
        """The session in `folder`; a new one of `count` mutants of `checkout` if there is none."""
        if not (folder / "about.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "tree").exists():
                copy_tree(checkout, folder / "tree")
            drawn = draw(folder / "tree", count, seed)
            for name in {mutant.module_path.as_posix() for mutant in drawn}:
                _copy_if_other(folder / "tree" / name, folder / "source" / name)
            (folder / "session.sqlite").unlink(missing_ok=True)
            database = WorkDB(str(folder / "session.sqlite"), WorkDB.Mode.create)
            database.add_work_items(WorkItem.single(f"{number:04d}", mutant) for number, mutant in enumerate(drawn))
            database.close()
            about = {"seed": seed, "mutants": count, "commit": _commit(checkout), "checkout": str(checkout.resolve())}
            (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")
        return cls(folder)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While the copy is changed and run: nobody else does, and what a killed run left in it is put right first.

        Raises BlockingIOError where another process is at it.
        """
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in self.source.rglob("*.py"):
                _copy_if_other(path, self.tree / path.relative_to(self.source))
            yield

    # The map ---------------------------------------------------------------------------------------------------

    def test_files(self) -> list[str]:
        """Files of tests that are used, relative to the tree."""
        found = (
            path.relative_to(self.tree).as_posix()
            for name in TEST_FOLDERS
            for path in (self.tree / name).rglob("test_*.py")
        )
        return sorted(file for file in found if not file.startswith(NOT_USED))

    def map_tests(self) -> Iterator[tuple[str, bool]]:
        """Records what each file of tests covers, where that is not known yet: its name, and whether it ran to its end."""
        for file in self.test_files():
            if not recorded(self.folder, file):
                yield file, record(self.folder, file)

    def renew_tests(self, checkout: Path) -> list[str]:
        """Takes over tests that changed in `checkout` and forgets what they covered; returns their files."""
        changed = renew(checkout, self.tree, "tests")
        for file in changed:
            for left in (self.folder / "coverage").glob(Path(file).with_suffix("").as_posix().replace("/", "-") + ".*"):
                left.unlink()
        return changed

    def covering(self) -> Covering:
        """What is known of the mutated files."""
        return covering(self.folder, [path.relative_to(self.source).as_posix() for path in self.source.rglob("*.py")])

    # The mutants -----------------------------------------------------------------------------------------------

    def mutants(self) -> list[Mutant]:
        """All of them, in the order they were drawn in."""
        verdicts = {key: Verdict(**json.loads(result.output)) for key, result in self._database.results}
        return [
            Mutant(item.job_id, spec, verdicts.get(item.job_id), *self._changed_line(spec))
            for item in sorted(self._database.work_items, key=lambda item: item.job_id)
            for spec in item.mutations
        ]

    def waiting(self, again: bool = False) -> list[Mutant]:
        """Those that were not tried yet, `again` also those that no test killed."""
        return [m for m in self.mutants() if m.verdict is None or (again and not m.verdict.killed)]

    def try_mutant(self, mutant: Mutant, covered: Covering, patience: float = PATIENCE) -> Verdict:
        """Runs the tests that cover it, and keeps what comes of it."""
        original = (self.source / mutant.file).read_text(encoding="utf-8")
        changed = mutated(mutant.spec, original)
        with restored(self.tree / mutant.file, changed):
            verdict = try_tests(self.folder, tests_for(mutant.spec, original, covered), covered, patience)
        outcome = TestOutcome.KILLED if verdict.killed else TestOutcome.SURVIVED
        worker = WorkerOutcome.NO_TEST if verdict.kind == "no test" else WorkerOutcome.NORMAL
        diff = f"-{mutant.before}\n+{mutant.after}"
        self._database.set_result(mutant.key, WorkResult(worker, json.dumps(asdict(verdict)), outcome, diff))
        return verdict

    def _changed_line(self, spec: MutationSpec) -> tuple[str, str]:
        original = (self.source / spec.module_path).read_text(encoding="utf-8")
        before, after = original.splitlines(), mutated(spec, original).splitlines()
        row = spec.start_pos[0] - 1
        return before[row].strip(), after[row].strip() if len(after) == len(before) else ""


def _commit(checkout: Path) -> str:
    line = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True).stdout.strip()


def _copy_if_other(source: Path, target: Path) -> None:
    if not target.exists() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
