"""Graphs that round to integers, also those that others made, are captured, kept in files and copied like any."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reconvene
from reconvene.frontend.program_file import load_program, save_program
from reconvene.frontend.quantized_operators import is_quantized

pytest.importorskip("torchao", reason="pip install '.[int8]'")

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def foreign() -> torch.fx.GraphModule:
    """What torchao and its quantizer for x86 make: unsigned activations, and a module that refuses ``eval()``."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5)
    ).eval()  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        observed = prepare_pt2e(torch.export.export(model, (IMAGES,)).module(), quantizer)
        observed(IMAGES)
        made: torch.fx.GraphModule = convert_pt2e(observed)
    with pytest.raises(NotImplementedError):
        made.eval()
    return made


def _file(made: torch.fx.GraphModule, path: Path) -> Any:
    torch.export.save(torch.export.export(made, (IMAGES,)), path)
    return path


FORMS: dict[str, Callable[[torch.fx.GraphModule, Path], Any]] = {
    "module": lambda made, path: made,
    "program": lambda made, path: torch.export.export(made, (IMAGES,)),
    "module of a program": lambda made, path: torch.export.export(made, (IMAGES,)).module(),
    "file": _file,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_graphs_of_others(
    foreign: torch.fx.GraphModule, form: Callable[[torch.fx.GraphModule, Path], Any], tmp_path: Path
) -> None:
    given = form(foreign, tmp_path / "theirs.pt2")
    module = reconvene.capture(given, (IMAGES,))
    assert is_quantized(module)
    wanted = foreign(IMAGES)
    assert torch.equal(module.train().eval()(IMAGES), wanted)
    assert torch.equal(copy.deepcopy(module)(IMAGES), wanted)
    save_program(module, (IMAGES,), tmp_path / "ours.pt2")
    assert torch.equal(load_program(tmp_path / "ours.pt2")[0](IMAGES), wanted)


def test_they_are_read_by_a_process_that_has_not_met_the_operators(
    foreign: torch.fx.GraphModule, tmp_path: Path
) -> None:
    module = reconvene.capture(foreign, (IMAGES,))
    save_program(module, (IMAGES,), tmp_path / "int8.pt2")
    torch.save(module, tmp_path / "int8.pickle")
    torch.save((IMAGES, foreign(IMAGES)), tmp_path / "wanted.pt")
    code = (
        "import sys, torch, reconvene\n"
        "images, wanted = torch.load('wanted.pt')\n"
        "module = torch.load('int8.pickle', weights_only=False) if sys.argv[1] == 'pickle' else reconvene.capture('int8.pt2')\n"
        "assert torch.equal(module(images), wanted)\n"
    )
    for form in ("file", "pickle"):
        subprocess.run([sys.executable, "-c", code, form], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda module: reconvene.prune(module, (IMAGES,)),
            "the model is quantised already; prune before you quantise",
        ),
        (
            lambda module: reconvene.compact(module, (IMAGES,)),
            "the model is quantised already; compact before you quan",
        ),
        (lambda module: reconvene.quantize(module, IMAGES), "the model is quantised already; quantise once, as the"),
    ],
)
def test_what_has_no_meaning_after_quantisation_is_refused(
    foreign: torch.fx.GraphModule, action: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(reconvene.InputError, match=message):
        action(reconvene.capture(foreign, (IMAGES,)))


def test_a_float_graph_is_none() -> None:
    assert not is_quantized(reconvene.capture(nn.Conv2d(3, 4, 3), (IMAGES,)))
