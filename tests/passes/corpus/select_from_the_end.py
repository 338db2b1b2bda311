"""A position counted from the end of an axis whose entries are all alike."""

import torch
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact

aten = torch.ops.aten


class Net(nn.Module):
    def forward(self, x1):
        v1 = aten.select.int(x1, 2, -3)
        return (v1,)


def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((2, 3, 6, 5), generator=generator, dtype=torch.float64),)


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
