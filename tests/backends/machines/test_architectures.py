"""Instruction sets: which triples and machines mean them, and that no other is taken for one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.machines.architectures import ARCHITECTURES, architecture_of, machine_name
from reconvene.backends.machines.targets import find_target, targets
from reconvene.frontend.base.errors import InputError

OTHERS = [
    "riscv64-linux-gnu",
    "riscv32-unknown-elf",
    "armeb-linux-gnueabi",
    "i686-linux-gnu",
    "powerpc64le-linux-gnu",
    "",
]


@pytest.mark.parametrize(
    ("triple", "name"),
    [
        ("x86_64-unknown-linux-gnu", "x86_64"),
        ("aarch64-linux-gnu", "aarch64"),
        ("arm64-apple-darwin23.1.0", "aarch64"),
        ("armv7l-linux-gnueabihf", "arm"),
        ("arm-none-eabi", "arm"),
        ("thumbv7em-none-eabi", "arm"),
    ],
)
def test_triples_name_their_instruction_set(triple: str, name: str) -> None:
    found = architecture_of(triple)
    assert found is not None and found.name == name
    assert replace(find_target("rpi4"), triple=triple).architecture == name


def test_what_machines_call_themselves() -> None:
    said = {
        "armv7l": "arm",
        "armv8l": "arm",
        "arm64": "aarch64",
        "amd64": "x86_64",
        "aarch64": "aarch64",
        "riscv64": "riscv64",
    }
    assert {machine: machine_name(machine) for machine in said} == said


def test_every_target_has_a_record_and_every_record_a_target() -> None:
    assert {target.isa.name for target in targets()} == set(ARCHITECTURES)
    assert all(target.machine.registers >= 8 for target in targets())


@pytest.mark.parametrize("triple", OTHERS)
def test_another_instruction_set_is_refused_by_name(triple: str) -> None:
    """It is not taken for ARM, whose schedules and registers are others."""
    board = replace(find_target("rpi4"), name="board", triple=triple)
    line = f"target 'board': code is made for x86_64, aarch64 and arm, .*, not for the triple '{triple}'$"
    for ask in (lambda: board.machine, board.llvm, lambda: board.architecture):
        with pytest.raises(InputError, match=line) as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert architecture_of(triple) is None and not board.runs_here
    with pytest.raises(InputError, match=line):
        compile(nn.ReLU(), (torch.zeros(1, 4),), board, check=False)


def test_another_instruction_set_in_a_users_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(
        'triple = "riscv64-linux-gnu"\ncpu = "sifive-u74"\nlanes = 4\nregisters = 32\ncores = 4\nchannel_multiple = 4\n'
        "l1_bytes = 32768\nl2_bytes = 131072\n"
    )
    line = r"target 'board' in .*board\.toml: code is made for x86_64, aarch64 and arm, .*'riscv64-linux-gnu'$"
    with pytest.raises(InputError, match=line):
        find_target(str(path))
