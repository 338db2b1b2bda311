"""Slopes with more axes than what they are applied to."""

import torch
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact

aten = torch.ops.aten


def draw(how, seed, *shape):
    """Random float64 numbers, the same for the same seed."""
    return how(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(draw(torch.randn, 1, 1, 1))

    def forward(self, x1):
        v1 = aten._prelu_kernel.default(x1, self.w1)
        return (v1,)


def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((3,), generator=generator, dtype=torch.float64),)


model = Net().eval()
masks = {}
result = compact(capture(model, inputs(0)), inputs(0), masks)
with torch.no_grad():
    for name, kept in masks.items():
        getattr(model, name)[~kept] = 0.0
    expected, found = model(*inputs(1)), result.module(*inputs(1))
for one, other in zip(expected, found, strict=True):
    assert one.shape == other.shape, f"shape {tuple(other.shape)} instead of {tuple(one.shape)}"
    assert one.dtype == other.dtype, f"{other.dtype} instead of {one.dtype}"
    one, other = one.double(), other.double()
    difference = float((one - other).abs().max()) / (float(one.abs().max()) or 1.0)
    assert difference <= 1e-12, f"masked and compacted differ by {difference:.1e} of the largest output"
