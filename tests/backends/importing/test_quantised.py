"""Ways to quantise that are not compiled are refused by the operator's name, the line and what is compiled instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fuzzing.quantised import QuantisedLinear
from torch import Tensor, nn

import reconvene
from reconvene.frontend.base.errors import CaptureError, InputError
from reconvene.frontend.capture import capture

Q = torch.ops.quantized_decomposed
CODES = (-128, 127, torch.int8)


class Product(nn.Module):
    def __init__(self, values: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.values = QuantisedLinear(6, 3), values

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.values(x))


def dynamic(x: Tensor) -> Tensor:
    scale, zero = Q.choose_qparams.tensor(x, -128, 127, 1e-6, torch.int8)
    return Q.dequantize_per_tensor.tensor(Q.quantize_per_tensor.tensor(x, scale, zero, *CODES), scale, zero, *CODES)


def by_token(x: Tensor) -> Tensor:
    scale, zero = torch.ones(2, 1), torch.zeros(2, 1)
    return Q.dequantize_per_token(Q.quantize_per_token(x, scale, zero, *CODES), scale, zero, *CODES, torch.float32)


def by_channel(x: Tensor) -> Tensor:
    scale, zero = torch.ones(6), torch.zeros(6).long()
    return Q.dequantize_per_channel(Q.quantize_per_channel(x, scale, zero, 1, *CODES), scale, zero, 1, *CODES)


REFUSED = {
    "dynamic": (dynamic, "'quantized_decomposed.choose_qparams' at ", "finds scales in every call"),
    "tokens": (by_token, "'quantized_decomposed.quantize_per_token' at ", "has a scale for each token"),
    "channels": (by_channel, "'quantized_decomposed.quantize_per_channel' at ", "a scale for each channel of a value"),
}


@pytest.mark.parametrize(("values", "name", "why"), REFUSED.values(), ids=REFUSED)
def test_other_scales_are_refused_in_one_line(values: Callable[[Tensor], Tensor], name: str, why: str) -> None:
    with pytest.raises(CaptureError) as error:
        reconvene.compile(Product(values).eval(), (torch.randn(2, 6),))
    told = str(error.value)
    assert name in told and why in told and "\n" not in told
    assert "what compiles are int8 or uint8 values with one known scale" in told


def test_a_target_without_float16_is_not_to_blame_for_a_quantised_model() -> None:
    module = capture(Product(lambda x: Q.dequantize_per_tensor(Q.quantize_per_tensor(x, 0.1, 0, *CODES), 0.1, 0, *CODES)),
                     (torch.randn(2, 6),))  # fmt: skip
    with pytest.raises(InputError, match="is quantised, and computes on codes; leave out dtype='float16'"):
        reconvene.compile(module, (torch.randn(2, 6),), "rpi2", dtype="float16")
