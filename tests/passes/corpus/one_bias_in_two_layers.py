"""A bias that two layers of one recurrent call share takes no constants in."""

import torch
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact

aten = torch.ops.aten


def draw(how, seed, *shape):
    """Random float64 numbers, the same for the same seed."""
    return how(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def without(axis, dropped, *shape):
    """True everywhere but at some positions of an axis."""
    kept = torch.ones(shape, dtype=torch.bool)
    kept.index_fill_(axis, torch.tensor(dropped), False)
    return kept


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w2 = nn.Parameter(draw(torch.randn, 2, 12, 4) * 0.5)
        self.w3 = nn.Parameter(draw(torch.randn, 3, 12) * 0.5)
        self.w18 = nn.Parameter(draw(torch.randn, 18, 5, 12) * 0.289)
        self.w19 = nn.Parameter(draw(torch.randn, 19, 5, 5) * 0.447)
        self.w20 = nn.Parameter(draw(torch.randn, 20, 5) * 0.5)
        self.w21 = nn.Parameter(draw(torch.randn, 21, 5) * 0.5)
        self.w22 = nn.Parameter(draw(torch.randn, 22, 5, 12) * 0.289)
        self.w23 = nn.Parameter(draw(torch.randn, 23, 5, 5) * 0.447)
        self.w24 = nn.Parameter(draw(torch.randn, 24, 5) * 0.5)
        self.w25 = nn.Parameter(draw(torch.randn, 25, 5, 10) * 0.316)
        self.w26 = nn.Parameter(draw(torch.randn, 26, 5, 5) * 0.447)
        self.w27 = nn.Parameter(draw(torch.randn, 27, 5) * 0.5)
        self.w28 = nn.Parameter(draw(torch.randn, 28, 5) * 0.5)
        self.w29 = nn.Parameter(draw(torch.randn, 29, 5, 10) * 0.316)
        self.w30 = nn.Parameter(draw(torch.randn, 30, 5, 5) * 0.447)
        self.w31 = nn.Parameter(draw(torch.randn, 31, 5) * 0.5)
        self.w32 = nn.Parameter(draw(torch.randn, 32, 5) * 0.5)

    def forward(self, x1, v33):
        v4 = aten.linear.default(x1, self.w2, self.w3)
        v34 = aten.rnn_tanh.input(
            v4,
            v33,
            [
                self.w18,
                self.w19,
                self.w20,
                self.w21,
                self.w22,
                self.w23,
                self.w21,
                self.w24,
                self.w25,
                self.w26,
                self.w27,
                self.w28,
                self.w29,
                self.w30,
                self.w31,
                self.w32,
            ],
            True,
            2,
            0.0,
            False,
            True,
            False,
        )
        return (v34[1],)


def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn((3, 4, 4), generator=generator, dtype=torch.float64),
        torch.randn((4, 4, 5), generator=generator, dtype=torch.float64),
    )


model = Net().eval()
masks = {
    "w2": without(0, [0], 12, 4),
}
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
