"""Models that write to buffers: every call of the compiled code is PyTorch's, in turn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.backends.built import Built
from reconvene.backends.compile import compile
from reconvene.frontend.base.errors import CaptureError
from reconvene.frontend.capture import capture
from tests.support.stateful import STATEFUL, Keeping, frames

CALLS = 4


def expected_of(model: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """PyTorch's results, computed in float64 where a buffer has one name: ``double()`` makes two buffers of two names."""
    kind = (
        torch.float64
        if len(list(model.buffers())) == len(dict(model.named_buffers(remove_duplicate=False)))
        else torch.float32
    )
    wide = copy.deepcopy(model).to(kind)
    with torch.no_grad():
        return [wide(x.to(kind)).clone().to(x.dtype) for x in inputs]


def check(built: Built, expected: list[Tensor], inputs: list[Tensor]) -> None:
    for found, wanted in zip([built.run(x) for x in inputs], expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", STATEFUL)
def test_every_call_is_pytorchs(name: str) -> None:
    model, inputs = STATEFUL[name](), frames(CALLS)
    before = copy.deepcopy(model.state_dict())
    built = compile(capture(model, (inputs[0],)), (inputs[0],))
    expected = expected_of(model, inputs)
    check(built, expected, inputs)
    built.reset()
    check(built, expected, inputs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_state_is_of_each_built_and_clone() -> None:
    model, inputs = STATEFUL["streaming"](), frames(CALLS)
    expected = expected_of(model, inputs)
    built = compile(model, (inputs[0],))
    assert [(entry.name, entry.spec.shape, entry.spec.dtype) for entry in built.state] == [("cache", (2, 4), "float32")]
    assert built.memory.state_bytes == 32
    check(built, expected[:2], inputs[:2])
    clone, copied = built.clone(), copy.deepcopy(built)
    check(clone, expected, inputs)
    check(built, expected[2:], inputs[2:])
    check(copied, expected[2:], inputs[2:])
    clone.reset()
    check(clone, expected, inputs)


def test_timing_leaves_the_state_alone() -> None:
    model, inputs = STATEFUL["counter"](), frames(CALLS)
    expected = expected_of(model, inputs)
    built = compile(model, (inputs[0],))
    check(built, expected[:2], inputs[:2])
    built.benchmark(repeat=3, warmup=1)
    check(built, expected[2:], inputs[2:])


def test_what_is_given_out_and_taken_is_no_state() -> None:
    """Writing to an output or an input afterwards changes no later call."""
    for name in ("given out", "delayed"):
        model, inputs = STATEFUL[name](), frames(CALLS)
        expected = expected_of(model, inputs)
        built = compile(model, (inputs[0],))
        for x, wanted in zip(inputs, expected, strict=True):
            found = built.run(x)
            torch.testing.assert_close(found, wanted)
            found.fill_(7)
            x.fill_(9)
        built.reset()
        torch.testing.assert_close(built.run(frames(1)[0]), expected[0])


def test_a_module_that_was_not_captured_compiles_the_same() -> None:
    for name in ("two names", "rotated in a layer", "gated"):
        model, inputs = STATEFUL[name](), frames(CALLS)
        check(compile(model, (inputs[0],)), expected_of(model, inputs), inputs)


def test_tvms_own_pipeline_carries_state() -> None:
    model, inputs = STATEFUL["swapped"](), frames(CALLS)
    check(compile(model, (inputs[0],), pipeline="tvm-default"), expected_of(model, inputs), inputs)


def test_a_model_begins_with_what_its_buffers_hold_when_it_is_compiled() -> None:
    model, inputs = STATEFUL["counter"](), frames(CALLS)
    expected = expected_of(model, inputs)
    with torch.no_grad():
        model(inputs[0])
    check(compile(model, (inputs[0],)), expected[1:], inputs[1:])


def test_a_written_input_is_refused_by_name_and_line() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        x[0] += 1
        return x * 2

    x = torch.ones(3, 4)
    with pytest.raises(CaptureError, match=r"writes to input 'x' at .*test_state.py:\d+.*x.clone\(\)"):
        compile(Keeping(forward), (x,))
    assert x.sum() == 12
