"""Programs that train many networks write each line as it is reached, and go on where they were stopped."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from resumable import Job, Line, add_options, hardware_of, main, swept

from reconvene.driver.sweep import read_results
from reconvene.driver.training.loop import Hardware
from reconvene.frontend.base.errors import InputError

MACHINE = Hardware("cpu", "float32", 1)


def line(key: str, precision: str = "float32") -> Line:
    return {"key": key, "precision": precision, "device": "cpu"}


def job(name: str, keys: str, calls: list[str], refused: bool = False) -> Job:
    def measured() -> Iterator[Line]:
        calls.append(name)
        for key in keys:
            yield line(key)
        if refused:
            raise InputError("no")

    return Job(name, frozenset(keys), measured, lambda one: f"has {one['key']}")


def options_of(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, "some_name", seeds=[0, 1])
    return parser.parse_args(words)


def test_what_is_missing_is_done_and_written_as_it_is_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, calls = tmp_path / "new" / "lines.jsonl", list[str]()
    jobs = [job("first", "ab", calls), job("refused", "c", calls, refused=True), job("last", "d", calls)]
    found = swept(jobs, [], MACHINE, path)
    assert [one["key"] for one in found] == list("abcd") == [one["key"] for one in read_results(path)]
    assert calls == ["first", "refused", "last"]
    assert capsys.readouterr().err.splitlines() == [
        "first: has a", "first: has b", "refused: has c", "refused: no", "last: has d",
    ]  # fmt: skip


def test_a_job_begins_again_where_a_line_of_it_is_missing_and_repeats_none(tmp_path: Path) -> None:
    path, calls = tmp_path / "lines.jsonl", list[str]()
    path.write_text(json.dumps(line("a")) + "\n" + json.dumps(line("d")) + "\n" + '{"key": "cut sho', encoding="utf-8")
    found = swept([job("first", "ab", calls), job("last", "d", calls)], read_results(path), MACHINE, path)
    assert [one["key"] for one in found] == ["a", "d", "b"] == [one["key"] for one in read_results(path)]
    assert calls == ["first"]


def test_lines_of_another_precision_are_refused_before_anything_runs(tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(InputError, match="name another file"):
        swept([job("first", "a", calls)], [line("b", "bfloat16")], MACHINE, tmp_path / "lines.jsonl")
    assert not calls and not list(tmp_path.iterdir())


def test_record_and_page_stand_beside_the_lines(tmp_path: Path) -> None:
    options = options_of("--results", str(tmp_path / "lines.jsonl"))
    options.latency = False
    assert main(options, lambda lines: [*lines, line("a")], lambda lines, times: f"{len(lines)} {times}") == 0
    assert (tmp_path / "lines.md").read_text() == "1 {}"
    assert json.loads((tmp_path / "lines.json").read_text()) == {"lines": [line("a")]}
    options.report_only = True
    assert main(options, lambda _: [], lambda lines, _: "") == 2  # There are no lines in the file.


def test_times_are_kept_for_the_next_page(tmp_path: Path) -> None:
    options = options_of("--results", str(tmp_path / "lines.jsonl"), "--report-only")
    options.results.write_text(json.dumps(line("a")) + "\n")
    options.latency = True
    pages: list[dict[str, float]] = []

    def page(lines: object, times: object) -> str:
        pages.append(dict(times))  # type: ignore[call-overload]
        return ""

    assert main(options, lambda _: [], page, lambda lines: {lines[0]["key"]: 2.5}) == 0
    options.latency = False
    assert main(options, lambda _: [], page, lambda _: {}) == 0
    assert pages == [{"a": 2.5}] * 2


def test_options_are_those_of_a_name() -> None:
    options = options_of("--bfloat16")
    assert (
        options.results.name == "some_name.jsonl" and options.work == Path("out/some-name") and options.seeds == [0, 1]
    )
    assert hardware_of(options) == Hardware("cpu", "bfloat16", 1)
