"""Captured and compacted modules do in train() and eval() what their models do: flags, frozen parts, random operators."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import load_program, save_program
from reconvene.passes.compaction import compact

from ..support.models import assert_same_outputs, randomise

IMAGE = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
WORDS = torch.randn(4, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class Written(nn.Module):
    """Layers by name, and a forward that takes the module and the input."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.written = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, x)


def in_modes(module: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Outputs in eval, train, train, eval, and the buffers that are left, with equal seeds."""
    for seed, mode in enumerate((False, True, True, False)):
        module.train(mode)
        torch.manual_seed(seed)
        with torch.no_grad():
            output = module(x)
        yield output
    for _, buffer in sorted(module.named_buffers()):
        if buffer.is_floating_point():
            yield buffer


def assert_same_modes(model: nn.Module, module: nn.Module, x: Tensor) -> None:
    model = copy.deepcopy(model)
    for expected, found in zip(in_modes(model, x), in_modes(module, x), strict=True):
        assert_same_outputs(expected, found, 1e-10)


def batch_norm(training: bool | None) -> Callable[[nn.Module, Tensor], Tensor]:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        norm, flag = model.norm, model.training if training is None else training
        return F.batch_norm(model.first(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, flag)

    return forward


def with_norm(forward: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
    return Written(forward, first=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4))


def between(operator: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
    return Written(
        lambda model, x: model.last(operator(model, model.first(x))), first=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 2, 1)
    )


class FrozenNorm(nn.Sequential):
    """A convolution whose batch normalisation stays in inference."""

    def train(self, mode: bool = True) -> FrozenNorm:
        super().train(mode)
        self[1].eval()
        return self


class FrozenBackbone(nn.Module):
    """A backbone that stays in inference as a whole, and a head that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(0.5), nn.ReLU()))
        self.head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def train(self, mode: bool = True) -> FrozenBackbone:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class AlwaysRandom(nn.Sequential):
    """Dropout that is on in inference, for the spread of its answers."""

    def train(self, mode: bool = True) -> AlwaysRandom:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.Dropout):
                part.training = True
        return self


def under_no_grad(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = F.dropout(model.first(x).relu(), 0.3, model.training)
    return model.last(x)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "batch statistics always": lambda: with_norm(batch_norm(True)),
    "stored statistics always": lambda: with_norm(batch_norm(False)),
    "statistics by mode": lambda: with_norm(batch_norm(None)),
    "dropout always": lambda: between(lambda _, x: F.dropout(x, 0.5, training=True)),
    "dropout by default": lambda: between(lambda _, x: F.dropout(x.relu())),
    "dropout never": lambda: between(lambda _, x: F.dropout(x, 0.5, training=False)),
    "dropout by mode": lambda: between(lambda model, x: F.dropout(x, 0.5, model.training)),
    "channels by mode": lambda: between(lambda model, x: F.dropout2d(x, 0.5, model.training)),
    "alpha dropout by mode": lambda: between(lambda model, x: F.alpha_dropout(x, 0.5, model.training)),
    "rrelu by mode": lambda: between(lambda model, x: F.rrelu(x, training=model.training)),
    "in place": lambda: between(lambda model, x: F.dropout(x, 0.5, model.training, inplace=True) + 1),
    "layers of random operators": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.RReLU(), nn.Dropout2d(0.3), nn.AlphaDropout(0.2), nn.FeatureAlphaDropout(0.2)
    ),
    "norms": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4, track_running_stats=True),
        nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, momentum=0.3, affine=False),
    ),
    "frozen norm": lambda: FrozenNorm(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)),
    "frozen backbone": FrozenBackbone,
    "frozen backbone inside": lambda: nn.Sequential(FrozenBackbone(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)),
    "always random": lambda: AlwaysRandom(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4)),
    "under no_grad": lambda: Written(under_no_grad, first=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 2, 1)),
}  # fmt: skip


def attention(model: nn.Module, x: Tensor) -> Tensor:
    query, key, value = model.inner(x).chunk(3, -1)
    return model.outer(F.scaled_dot_product_attention(query, key, value, dropout_p=0.4 if model.training else 0.0))


def heads(model: nn.Module, x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    found, _ = F.multi_head_attention_forward(
        x, x, x, 8, 2, model.inner.weight, model.inner.bias, None, None, False, 0.3, model.outer.weight,
        model.outer.bias, training=model.training, need_weights=False,
    )  # fmt: skip
    return found


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cells, self.last = kind(8, 6, num_layers=2, dropout=0.5, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cells(x)[0])


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.last = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.heads(x, x, x, need_weights=False)[0])


SEQUENCES: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: Written(attention, inner=nn.Linear(8, 24), outer=nn.Linear(8, 2)),
    "heads": lambda: Written(heads, inner=nn.Linear(8, 24), outer=nn.Linear(8, 8)),
    "self attention": SelfAttention,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "encoder": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True),
}


def built(name: str) -> tuple[nn.Module, Tensor]:
    make, x = (NETWORKS[name], IMAGE) if name in NETWORKS else (SEQUENCES[name], WORDS)
    model = randomise(make()).double().eval()
    return model, x


@pytest.mark.parametrize("name", [*NETWORKS, *SEQUENCES])
def test_both_modes_are_the_models(name: str, tmp_path: Path) -> None:
    model, x = built(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        module = capture(model, (x,))
        save_program(module, (x,), tmp_path / "module.pt2")
        for again in (pickle.loads(pickle.dumps(module)), load_program(tmp_path / "module.pt2")[0], copy.copy(module)):
            assert_same_modes(model, copy.deepcopy(again), x)
        assert_same_modes(model, module, x)


@pytest.mark.parametrize("name", [*NETWORKS, *SEQUENCES])
def test_a_compacted_module_keeps_the_modes(name: str) -> None:
    model, x = built(name)
    module = compact(capture(model, (x,)), (x,)).module
    assert isinstance(module, CapturedModule)
    assert_same_modes(model, module, x)
