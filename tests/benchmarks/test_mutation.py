"""The program that changes code in small ways: what it leaves alone, which tests it picks, and one run of a small project."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import dedent

import pytest
from mutating.passed_over import PassedOver, imported_lines, statement_lines
from mutating.tree import copy_tree, renew

SOURCE = dedent(
    """\
    import warnings
    from dataclasses import dataclass
    from functools import lru_cache

    SIZE = 3

    @dataclass(frozen=True)
    class Pair:
        left: int | None = 1

        def __repr__(self):
            return "pair" * 2

        @lru_cache(maxsize=8)
        def total(self, other: int | float = 2) -> int | float:
            warnings.warn("more than 9", stacklevel=2)
            text = f"{other + 1} of {SIZE}"
            return [a + b for a, b in zip(
                [self.left], [other], strict=True
            )][0] or text
    """
)


def place(text: str, part: str) -> tuple[int, int]:
    """Line and column of `part` in the line that holds `text`."""
    line = next(number for number, line in enumerate(SOURCE.splitlines(), 1) if text in line)
    return line, SOURCE.splitlines()[line - 1].index(part)


@pytest.mark.parametrize(
    ("text", "part", "reason"),
    [
        ("SIZE = 3", "3", ""),
        ("frozen", "True", "a guard against assignment, or there for speed"),
        ("left: int", "|", "a type"),
        ("left: int", "1", ""),
        ('"pair"', "2", "text for a person"),
        ("maxsize", "8", "there for speed"),
        ("def total", "|", "a type"),
        ("def total", "2", ""),
        ("-> int | float", "| float:", "a type"),
        ("warnings.warn", "2", "text for a person"),
        ("text = f", "+", "text for a person"),
        ("return [a", "+", ""),
        ("strict", "True", "a guard against a fault of our own"),
        (")][0]", "0", ""),
    ],
)
def test_types_words_and_guards_are_left_alone(text: str, part: str, reason: str) -> None:
    assert PassedOver(SOURCE).reason(place(text, part), "core/NumberReplacer") == reason


def test_decorators_of_caches_are_left_alone_and_others_are_not() -> None:
    passed_over, operator = PassedOver(SOURCE), "core/RemoveDecorator"
    assert passed_over.reason(place("@lru_cache", "@"), operator) == "there for speed"
    assert passed_over.reason(place("@dataclass", "@"), operator) == ""


def test_a_statement_has_all_its_lines_and_a_function_only_its_head() -> None:
    assert statement_lines(SOURCE, 5, 5) == range(5, 6)
    assert statement_lines(SOURCE, 19, 19) == range(18, 21)
    assert statement_lines(SOURCE, 15, 15) == range(15, 16)


def test_what_runs_at_import_is_what_is_outside_of_functions() -> None:
    assert imported_lines(SOURCE) & set(range(1, 21)) == {*range(1, 12), 13, 14, 15}


def test_tests_are_picked_by_the_lines_they_run_the_fastest_first() -> None:
    pytest.importorskip("coverage")
    from mutating.covering import Covering

    lines = {1: frozenset("ab"), 2: frozenset("c"), 5: frozenset("d")}
    covering = Covering({"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.5}, {"x.py": lines})
    assert covering.of_lines("x.py", [1, 2]) == ["b", "c", "a"]
    assert covering.of_lines("x.py", [3]) == covering.of_lines("y.py", [1]) == []
    assert covering.of_file("x.py") == ["d", "b", "c", "a"]
    assert covering.within(["b", "c", "a"], 3.0) == ["b", "c"]
    assert covering.within(["a", "b"], 1.0) == ["a"], "one in any case"


FILES = {
    "passes/__init__.py": "",
    "passes/sums.py": dedent(
        """\
        def total(values):
            found = 0
            for value in values:
                found += value * 2
            return found
        """
    ),
    "backends/__init__.py": "",
    "frontend/__init__.py": "",
    "driver/__init__.py": "",
    "reconvene/__init__.py": "",
    "tests/passes/test_sums.py": "from reconvene.passes.sums import total\n\ndef test_total():\n    assert total([0]) == 0\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project of this one's folders, with a test that notices little."""
    top = tmp_path / "checkout"
    for name, text in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    return top


def test_a_copy_has_what_git_tracks_and_takes_changes_over(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".gitignore").write_text("left/\n")
    (checkout / "left").mkdir()
    (checkout / "left" / "big").write_text("")
    copy_tree(checkout, tmp_path / "tree")
    assert (tmp_path / "tree" / "reconvene" / "passes" / "sums.py").read_text() == FILES["passes/sums.py"]
    assert not (tmp_path / "tree" / "left").exists()
    (checkout / "passes" / "sums.py").write_text("")
    (checkout / "tests" / "passes" / "test_more.py").write_text("")
    assert renew(checkout, tmp_path / "tree", "tests") == ["tests/passes/test_more.py"]
    assert renew(checkout, tmp_path / "tree", "tests") == []
    assert (tmp_path / "tree" / "passes" / "sums.py").read_text()


def test_a_run_ends_where_better_tests_kill_what_survived(checkout: Path, tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    pytest.importorskip("cosmic_ray")
    from mutating.page import as_json, as_markdown
    from mutating.session import Session

    def run(again: bool) -> dict[str, str]:
        session = Session.begun(tmp_path / "session", checkout, 9, 0)
        with session.alone():
            if again:
                session.renew_tests(checkout)
            assert all(whole for _, whole in session.map_tests())
            covered = session.covering()
            for mutant in session.waiting(again):
                session.try_mutant(mutant, covered)
        data = as_json(session)
        assert data["score"] == data["killed"] / data["tried"] and f"{data['killed']} of" in as_markdown(data)
        return {f"{row['before']} -> {row['after']}": row["by"] for row in data["rows"]}

    first = run(again=False)
    assert sorted(first.values()) == ["failed", "survived", "survived", "survived"]
    assert all(change.startswith("found = 0") for change, by in first.items() if by == "failed")
    assert run(again=False) == first
    test = checkout / "tests" / "passes" / "test_sums.py"
    test.write_text(test.read_text() + "\n\ndef test_more():\n    assert total([1, 2]) == 6\n")
    assert set(run(again=True).values()) == {"failed"}
    assert (tmp_path / "session" / "tree" / "passes" / "sums.py").read_text() == FILES["passes/sums.py"]


@pytest.mark.parametrize("text", ["def test_it(:\n", "import nothing_of_this_name\n"])
def test_tests_that_cannot_be_collected_are_no_tests_that_nothing_kills(
    text: str, checkout: Path, tmp_path: Path
) -> None:
    pytest.importorskip("coverage")
    pytest.importorskip("cosmic_ray")
    from mutating.session import Session

    (checkout / "tests" / "passes" / "test_broken.py").write_text(text)
    subprocess.run(["git", "-C", str(checkout), "add", "."], check=True)
    session = Session.begun(tmp_path / "session", checkout, 2, 0)
    for _ in range(2):  # It is not taken for known by the next run.
        with session.alone(), pytest.raises(ValueError, match=r"test_broken\.py cannot be collected"):
            list(session.map_tests())
