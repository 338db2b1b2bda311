"""MetaSchedule on kernels without a schedule of ours: used where it is measured to be faster, and only there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tvm import tirx

from reconvene.backends.choosing import tuning
from reconvene.backends.choosing.kernel_times import HereTimes
from reconvene.backends.choosing.tuning import Tuned
from reconvene.backends.compile import compile
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import InputError

X = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=4), nn.ReLU(), nn.Conv2d(6, 5, 1)).eval()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path))
    return tmp_path / "tuned"


def judged(monkeypatch: pytest.MonkeyPatch, *, own: float) -> None:
    """Lets what was found take a second, and our schedule `own`; all are still compiled and run."""
    original = HereTimes.__call__

    def compare(self: HereTimes, groups: Sequence[Sequence[tirx.PrimFunc]]) -> list[list[float]]:
        assert all(seconds > 0 for group in original(self, groups) for seconds in group)
        # In the search every schedule is a group of its own; after it ours comes first.
        return [[own, *[1.0] * (len(group) - 1)] if len(group) > 1 else [1.0] for group in groups]

    monkeypatch.setattr(HereTimes, "__call__", compare)


def agrees(found: torch.Tensor) -> None:
    expected = network()(X).detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_what_is_faster_is_used_and_remembered(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    judged(monkeypatch, own=2.0)
    built = compile(network(), (X,), tune=2)
    (result,) = built.tuned
    assert result == Tuned("conv2d_transpose", "s", own=2.0, found=1.0, kept=True)
    agrees(built.run(X))
    assert built.artifact.objects != compile(network(), (X,)).artifact.objects
    # The second time nothing is searched, until what was kept is damaged.
    monkeypatch.setattr(tuning.Tuner, "_searched", lambda *_: [])
    again = compile(network(), (X,), tune=2)
    assert again.tuned == built.tuned
    assert again.artifact.objects == built.artifact.objects
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:-9])
    (lost,) = compile(network(), (X,), tune=2).tuned
    assert (lost.found, lost.kept) == (None, False)


def test_what_is_slower_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, own=1.01)  # not clearly slower
    built = compile(network(), (X,), tune=2)
    assert [result.kept for result in built.tuned] == [False]
    assert built.artifact.objects == compile(network(), (X,)).artifact.objects
    agrees(built.run(X))


def test_our_own_kernels_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning.Tuner, "_searched", None)
    assert compile(nn.Conv2d(4, 8, 3).eval(), (X,), tune=2).tuned == ()


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning.Tuner, "_searched", lambda *_: [])
    (tmp_path / "net.py").write_text("from torch import nn\ndef net():\n    return nn.ConvTranspose2d(4, 6, 3, 4)\n")
    line = ["compile", f"{tmp_path / 'net.py'}:net", "--input", "1x4x6x6", "--tune", "2", "-o", str(tmp_path / "out")]
    assert main([*line, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["tuned"]
    assert (result["kernel"], result["found"], result["kept"]) == ("conv2d_transpose", None, False)
    assert main(line) == 0
    assert "tuned: 0 of 1 kernels are faster" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": -1}, "tune is -1; give the number of trials"),
        (
            {"tune": 4, "target": "rpi4"},
            r"code for 'rpi4' .* does not run here; name a board .*, or take modelled cycles",
        ),
        ({"tune": 4, "pipeline": "tvm-default"}, "'tvm-default' is TVM's without schedules"),
    ],
)
def test_where_it_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compile(network(), (X,), **options)
