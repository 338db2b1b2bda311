"""Every case of test_kernels.py on emulated ARM cores: all of them in one model, so one program for each core."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from tests.backends.kernels import test_kernels
from tests.support.matrices import part
from tests.support.tools import needs


class _Recorded(Exception):
    """Ends a case where it would begin to compile."""


class Case(NamedTuple):
    name: str
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]


def cases(monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """What the tests of test_kernels.py give to `agree`, by name."""
    recorded: list[tuple[nn.Module, tuple[torch.Tensor, ...]]] = []

    def stop(*_: Any, **__: Any) -> None:
        raise _Recorded

    monkeypatch.setattr(test_kernels, "agree", lambda module, *inputs: recorded.append((module, inputs)))
    monkeypatch.setattr(test_kernels, "compile", stop)
    for name, test in inspect.getmembers(test_kernels, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        for values in argument_sets(test):
            torch.manual_seed(0)
            with suppress(_Recorded):
                test(**values)
            for module, inputs in recorded:
                module.eval()
                with torch.no_grad():
                    expected = module(*inputs)
                outputs = expected if isinstance(expected, tuple) else (expected,)
                yield Case(f"{name} {values}", module, inputs, outputs)
            recorded.clear()


def argument_sets(test: Any) -> Iterator[dict[str, Any]]:
    """Every combination that the test's parametrize marks stand for."""
    marks = [mark.args[:2] for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for chosen in itertools.product(*(values for _, values in marks)):
        arguments: dict[str, Any] = {}
        for (names, _), value in zip(marks, chosen, strict=True):
            keys = [names] if isinstance(names, str) and "," not in names else list(names)
            arguments.update(zip(keys, [value] if len(keys) == 1 else value, strict=True))
        yield arguments


class All(nn.Module):
    """Modules side by side: all their inputs, all their outputs."""

    def __init__(self, modules: list[nn.Module], counts: list[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.counts = counts

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: list[torch.Tensor] = []
        rest = list(inputs)
        for module, count in zip(self.parts, self.counts, strict=True):
            found = module(*rest[:count])
            del rest[:count]
            outputs += found if isinstance(found, tuple) else [found]
        return tuple(outputs)


BOARDS = pytest.mark.parametrize(
    ("target", "runtime", "dtype"),
    [
        pytest.param("rpi3", "static", "float32", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi2", "none", "float32", marks=needs("qemu-arm", "arm-linux-gnueabihf-g++")),
        pytest.param("rpi5", "static", "float16", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
    ],
)
PARTS = {"rpi3": (2, 0), "rpi2": (2, 1), "rpi5": (5, 2)}
"""Which of the cases each board has in `make test`; every case has one."""
TOLERANCES = {"float32": test_kernels.TOLERANCE, "float16": 6e-3}
"""Of the largest value. Results of float16 are rounded to 5e-4 of themselves."""


@BOARDS
def test_all_kernels(target: str, runtime: Any, dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(cases(monkeypatch))
    assert len(whole) > 90
    # The loops are the same on all of them.
    found = part(whole, *PARTS[target])
    everything = All([case.module for case in found], [len(case.inputs) for case in found]).eval()
    given = tuple(value for case in found for value in case.inputs)
    # test_kernels.py compares them on this machine.
    built = compile(everything, given, target, dtype=dtype, check=False)
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime=runtime))
    got = iter(run_bundle(bundle, given, bundle_emulator(bundle)))
    wrong = []
    for case in found:
        for theirs in case.outputs:
            mine = next(got)
            assert mine.shape == theirs.shape
            allowed = TOLERANCES[dtype] * float(theirs.abs().max()) + 1e-7
            difference = float((mine - theirs).abs().max())
            if not difference <= allowed:
                wrong.append(f"{case.name}: {difference:.1e} of {allowed:.1e}")
    assert not wrong


@BOARDS
@pytest.mark.parametrize("winograd", ["2x2", "4x4"])
def test_winograd(winograd: Any, target: str, runtime: Any, dtype: Any, tmp_path: Path) -> None:
    """Several chunks of tiles, edges that do not divide, and channels that leave lanes empty."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(i, o, 3, padding=p) for i, o, p in ((18, 33, 1), (33, 18, 0), (18, 8, 1))]
    module = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU6(), layers[2]).eval()
    image = torch.randn(1, 18, 39, 22)
    expected = module(image).detach()
    built = compile(module, (image,), target, winograd=winograd, dtype=dtype)
    assert sum("winograd" in variable.name_hint for variable in built.artifact.scheduled.functions) == 3
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime=runtime))
    (got,) = run_bundle(bundle, (image,), bundle_emulator(bundle))
    allowed = {"float32": 1e-5, "float16": 6e-3}[dtype] * float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=0, atol=allowed)
