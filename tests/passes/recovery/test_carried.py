"""What outputs lose with a weight: relative errors of layers worked out by hand, and shares of layers that follow from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import reconvene
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.recovery.carried import relative
from reconvene.passes.recovery.layerwise import felt_by_outputs


def uncorrelated(rows: int, columns: int) -> Tensor:
    """Rows of plus and minus one, whose columns are orthogonal and have the mean 0."""
    signs = torch.ones(1, 1)
    while len(signs) < rows:
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    return signs[:, 1 : columns + 1]


def felt(model: nn.Module, x: Tensor, *names: str) -> dict[str, Tensor]:
    return felt_by_outputs(canonicalize(capture(model.eval(), (x,))), names, [(x,)])


def test_squares_are_relative_errors_where_columns_are_uncorrelated() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    x = uncorrelated(16, 6) * torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0, 1.0])
    found = felt(model, x, "weight")["weight"]
    whole, gone = model(x).detach().double(), torch.rand(4, 6) > 0.5
    lost = x.double() @ (model.weight.detach().double() * gone).T
    variance = (whole - whole.mean(0)).square().mean(0).sum()
    expected = lost.square().mean(0).sum() / variance
    torch.testing.assert_close(found.square()[gone].sum(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.square().sum(), torch.tensor(1.0).double(), rtol=1e-5, atol=0)


def test_layers_are_compared_whatever_their_scale() -> None:
    """A layer whose weights are a hundred times larger, and undone by the next one, loses no less for it."""
    torch.manual_seed(0)
    small, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1)), torch.randn(8, 3, 9, 9)
    before = felt(small, x, "0.weight", "1.weight")
    with torch.no_grad():
        small[0].weight.mul_(100)
        small[0].bias.mul_(100)
        small[1].weight.div_(100)
    after = felt(small, x, "0.weight", "1.weight")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-6)


def test_where_nothing_is_known_of_the_inputs_columns_count_alike() -> None:
    model, x = nn.Sequential(nn.LSTM(5, 7, batch_first=True)), torch.randn(2, 3, 5)
    found = felt(model, x, "0.weight_ih_l0")["0.weight_ih_l0"]
    weight = model[0].weight_ih_l0.detach()
    torch.testing.assert_close(found, weight.double() / weight.double().norm())
    assert not relative(torch.zeros(3, 3)).any()


def test_globally_the_layer_that_is_needed_less_loses_more() -> None:
    """Half of what the second layer reads hardly varies, so that half of its weights carry little."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 2, 1)
    ).eval()
    with torch.no_grad():
        model[0].weight[8:] *= 0.01
        model[0].bias[8:] = 1
    x = torch.randn(16, 3, 12, 12)
    result = reconvene.prune(
        model, (x,), "layerwise", 0.5, structure="unstructured", scope="global", calibration=[(x,)]
    )
    left = {layer.name: layer.weights - layer.zeros for layer in result.report.zeros}
    assert left["2.weight"] < left["4.weight"] - 0.1 * 16 * 16 * 9
    assert result.certificate.max_relative < 1e-9
