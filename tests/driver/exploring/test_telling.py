"""Who tells times: a formula, a model of compiled code, this machine's clock, or a board's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconvene.backends.boards.place import parse_place
from reconvene.backends.machines.targets import find_target
from reconvene.backends.measure import timing
from reconvene.driver.exploring import telling
from reconvene.driver.exploring.telling import CYCLES, MILLISECONDS, Teller
from tests.driver.exploring.test_explore import ONE, dense
from tests.support.tools import needs

RPI4 = find_target("rpi4")


@dataclass(frozen=True)
class Answered:
    """In place of what a board's session gives."""

    value: Any


def test_units() -> None:
    assert Teller(RPI4, "model").unit == CYCLES and Teller(RPI4, "time").unit == MILLISECONDS
    clockless = next(target for target in (find_target("host"), RPI4) if target.clock_mhz is None)
    assert Teller(clockless, "estimate").unit == CYCLES and Teller(RPI4, "estimate").unit == MILLISECONDS


def test_a_board_times_the_very_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int, str]] = []

    def benchmark(bundle: Any, repeat: int, place: Any) -> Answered:
        asked.append((bundle.folder, repeat, str(place)))
        return Answered(timing([3.0, 1.0, 2.0], 1, 1))

    monkeypatch.setattr(telling, "benchmark_on_board", benchmark)
    teller = Teller(find_target("host"), "time", parse_place("rpc://board:9090"), repeat=7)
    told = teller.compiled(dense(), ONE, tmp_path)
    assert told.time == 2.0 and told.bytes > 0
    assert asked == [(tmp_path / "bundle", 7, "rpc://board:9090")]


def test_this_machine_s_clock_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dense").mkdir()
    teller = Teller(find_target("host"), "time", repeat=3)
    assert teller.compiled(dense(), ONE, tmp_path / "dense").time is None
    found = teller.side_by_side(tmp_path, ["dense"], ONE)
    assert found.keys() == {"dense"} and found["dense"] > 0
    (tmp_path / "times.json").write_text('{"dense": 5.0}')
    assert teller.side_by_side(tmp_path, ["dense"], ONE) == {"dense": 5.0}
    for damage in ('{"dense": "fast"}', "{", '{"other": 1.0}'):
        (tmp_path / "times.json").write_text(damage)
        assert teller.side_by_side(tmp_path, ["dense"], ONE) != {"dense": 5.0}


@needs("aarch64-linux-gnu-g++", "qemu-aarch64", "llvm-mca")
def test_compiled_code_is_modelled(tmp_path: Path) -> None:
    told = Teller(RPI4, "estimate").compiled(dense(), ONE, tmp_path)
    assert told.time is not None and 0.001 < told.time < 10
