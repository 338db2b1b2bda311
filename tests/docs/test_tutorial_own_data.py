"""The commands of the tutorial on a person's own images, on photographs that are made here, down to an emulated board."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from reconvene.driver.cli.command_line import main
from reconvene.frontend.program_file import read_program
from tests.support.pictures import write_pictures

PAGE = Path(__file__).parents[2] / "docs" / "tutorial-own-data.md"


@pytest.mark.needs("aarch64-linux-gnu-g++", "qemu-aarch64")
def test_a_folder_of_photographs_goes_to_a_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("photos"), 40)
    text = PAGE.read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert code is not None
    Path("net.py").write_text(code.group(1))
    commands = [shlex.split(line) for line in re.findall(r"^    reconvene (.*)$", text, re.MULTILINE)]
    assert [command[0] for command in commands] == ["train", "evaluate", "prune", "train", "compile", "evaluate"]
    answers = []
    for command in commands:
        capsys.readouterr()
        assert main([*command, "--json"]) == 0, command
        answers.append(json.loads(capsys.readouterr().out))
    dense, told, pruned, small, _, on_board = answers
    assert dense["rows"][-1]["test_accuracy"] > 0.8 and small["rows"][-1]["test_accuracy"] > 0.8
    assert told["items"] == on_board["items"] == 20 and told["agreement"] == on_board["agreement"] == 1.0
    assert told["compiled"]["metric"] == dense["rows"][-1]["test_accuracy"]
    assert on_board["compiled"]["metric"] == small["rows"][-1]["test_accuracy"]
    assert on_board["largest_difference"] < 1e-4
    report = pruned["report"]
    assert report["after"]["parameters"] < 0.5 * report["before"]["parameters"]
    facts = read_program("run/model.pt2").data
    assert facts is not None and facts.classes == ("ripe", "unripe") and facts.test_share == 0.25
