"""A graph's own types follow the type of the check: what PyTorch makes of bytes, booleans, defaults and literals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact
from tests.support.pruning import prune

from ..support.models import assert_same_outputs, masked_copy

BYTES = torch.randint(0, 256, (3, 8), dtype=torch.uint8)
FLOATS = torch.randn(3, 8)
KEEP = torch.tensor([[True] * 8, [False] * 4 + [True] * 4, [True, False] * 4])


class Between(nn.Module):
    """Two layers behind something that makes numbers of its input."""

    def __init__(self, made: Callable[..., Tensor]) -> None:
        super().__init__()
        self.hidden, self.out, self.made = nn.Linear(8, 16), nn.Linear(16, 4), made

    def forward(self, *inputs: Tensor) -> Tensor:
        y: Tensor = self.out(self.hidden(self.made(*inputs)).relu())
        return y


@pytest.mark.parametrize(
    ("made", "inputs"),
    [
        (lambda x: x / 255, (BYTES,)),
        (lambda x: x.float() / 255, (BYTES,)),
        (lambda x: x.to(torch.float32).mul(1 / 255), (BYTES,)),
        (lambda keep: keep / keep.sum(1, keepdim=True), (KEEP,)),
        (lambda keep: keep.float(), (KEEP,)),
        (lambda keep: keep * 0.5, (KEEP,)),
        (lambda keep: torch.where(keep, 1.0, 0.25), (KEEP,)),
        (lambda x: x * torch.arange(8) / 7, (FLOATS,)),
        (lambda x: x + torch.full((8,), 0.5) + torch.zeros(3, 8) + torch.linspace(0, 1, 8), (FLOATS,)),
        (lambda x: x + torch.tensor([0.5, 1.5] * 4) + torch.ones(8, dtype=torch.float32), (FLOATS,)),
        (lambda x: x * (x > 0).to(x.dtype) + (x > 1).type_as(x), (FLOATS,)),
        (lambda x: x @ torch.eye(8), (FLOATS,)),
        (lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.tensor(1 + 2j), n=8), (FLOATS,)),
        (lambda x: torch.view_as_complex(x.reshape(3, 4, 2)).to(torch.complex64).abs().repeat(1, 2), (FLOATS,)),
        (lambda x: x.half().float(), (FLOATS,)),
    ],
)
def test_a_graph_with_types_of_its_own_is_checked_in_float64(made: Callable[..., Tensor], inputs: Any) -> None:
    model = Between(made).eval()
    result = prune(capture(model, inputs), inputs)
    assert (result.before.parameters, result.after.parameters) == (212, 108)
    assert result.certificate.dtype == "float64"
    with torch.no_grad():
        assert_same_outputs(masked_copy(model, result.plan.masks).float()(*inputs), result.module(*inputs), 1e-5)


def test_complex_parameters_are_widened() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.hidden, self.out = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 4)
            self.scale = nn.Parameter(torch.randn(5, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            bent = torch.fft.irfft(torch.fft.rfft(self.before(x)) * self.scale, n=8)
            y: Tensor = self.out(self.hidden(bent).relu())
            return y

    result = prune(capture(Spectral().eval(), (FLOATS,)), (FLOATS,))
    assert len(result.module.get_parameter("hidden.weight")) == 8
    assert result.certificate.dtype == "float64"


def test_branches_run_in_the_type_of_the_check() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.out(self.hidden(x).relu())
            y: Tensor = torch.cond(x.sum() > 0, lambda h: h + torch.ones(4), lambda h: h.to(torch.float32) * 2, (h,))
            return y

    result = prune(capture(Branches().eval(), (FLOATS,)), (FLOATS,))
    assert (result.certificate.dtype, result.after.parameters) == ("float64", 108)


def test_a_graph_that_runs_in_no_other_type_is_checked_in_its_own() -> None:
    @torch.library.custom_op("test_own_types::single", mutates_args=())
    def single(x: Tensor) -> Tensor:
        if x.dtype is not torch.float32:
            raise TypeError("float32 only")
        return x * 2

    single.register_fake(torch.empty_like)
    model = Between(lambda x: torch.ops.test_own_types.single(x)).eval()
    certificate = prune(capture(model, (FLOATS,)), (FLOATS,)).certificate
    assert (certificate.dtype, certificate.max_relative < 1e-5) == ("float32", True)
    assert certificate.tolerance == 1e-4


def test_a_model_that_does_not_run_on_its_example_is_an_input_error() -> None:
    graph = capture(nn.Embedding(4, 3).eval(), (torch.tensor([1, 2]),))
    with pytest.raises(InputError, match="does not run on its example inputs: index out of range"):
        compact(graph, (torch.tensor([1, 9]),))


def test_values_that_are_no_tensors_come_out_as_they_went_in() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Any:
            h = self.hidden(x).relu()
            return self.out(h), None, 3, 2.5, {"more": (None, x.shape[0] * 2), "kind": "logits"}, h.sum(1)

    model = Mixed().eval()
    result = prune(capture(model, (FLOATS,)), (FLOATS,))
    expected, found = masked_copy(model, result.plan.masks).float()(FLOATS), result.module(FLOATS)
    assert found[1:5] == (None, 3, 2.5, {"more": (None, 6), "kind": "logits"})
    assert_same_outputs([expected[0], expected[5]], [found[0], found[5]], 1e-5)
    assert result.after.parameters == 108
