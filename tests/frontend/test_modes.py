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
from torchvision.ops import StochasticDepth

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


# What a model does in training and its graph does not


class Deep(nn.Module):
    """Skips its layer for some images in training, as stochastic depth does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Conv2d(3, 3, 1), StochasticDepth(0.5, "row")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.layer(x))


class Auxiliary(nn.Module):
    """A second head in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.dropout(self.body(x))
        return (self.head(x), self.second(x)) if self.training else self.head(x)


class Detector(nn.Module):
    """Needs targets in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if self.training:
            assert targets is not None, "targets are needed in training"
        return self.body(x)


class Weighed(nn.Module):
    """Attention whose weights are asked for: they are dropped out by an operator that inference lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(3, 1, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        return self.heads(x, x, x)[0]


class OtherWay(nn.Module):
    """The same operators, differently joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.first(x), self.second(x)
        return (second if self.training else first).relu()


DIFFERENT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "stochastic depth": (Deep, r"bernoulli_ \(.*stochastic_depth\.py:\d+\)"),
    "auxiliary head": (Auxiliary, r"conv2d \(.*test_modes\.py:\d+\)"),
    "targets": (Detector, "cannot be captured in training .*targets are needed"),
    "weights of attention": (Weighed, r"dropout \(.*test_modes\.py:\d+\)"),
    "other way": (OtherWay, r"other operands of relu"),
    "spectral norm": (lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 1)), r"mv \(|normalize|vector_norm"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_the_graph_does_not_do_in_training_is_named(name: str, tmp_path: Path) -> None:
    make, words = DIFFERENT[name]
    model = make().double().eval()
    module = capture(model, (IMAGE,))
    assert_same_outputs(model(IMAGE), module(IMAGE), 1e-12)
    save_program(module, (IMAGE,), tmp_path / "module.pt2")
    copies = (module, compact(module, (IMAGE,)).module, load_program(tmp_path / "module.pt2")[0], copy.deepcopy(module))
    for each in copies:
        with pytest.warns(UserWarning, match=f"in training the model does what this module does not: .*{words}"):
            each.train()
    assert not any(part.training for part in model.modules())


def test_the_layers_of_a_model_that_needs_targets_train_nevertheless() -> None:
    module = capture(Detector().double(), (IMAGE,))
    with pytest.warns(UserWarning):
        module.train()
    before = module.get_buffer("body.1.running_mean").clone()
    assert not torch.equal(module(IMAGE), module(IMAGE))
    assert not torch.equal(before, module.get_buffer("body.1.running_mean"))


# Parts in a mode of their own, and programs from elsewhere


def test_a_part_is_put_in_inference_alone() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.norm(self.conv(x)), 0.5, self.training)

    model = randomise(nn.Sequential(Block(), Block())).double()
    module = capture(model, (IMAGE,))
    for each in (model, module):
        each.train()
        each.get_submodule("0").eval()
    torch.manual_seed(5)
    expected = model(IMAGE)
    torch.manual_seed(5)
    assert_same_outputs(expected, module(IMAGE), 1e-12)
    for name, buffer in model.named_buffers():
        assert_same_outputs(buffer.double(), module.get_buffer(name).double(), 1e-12)


@pytest.mark.parametrize("mode", [False, True])
def test_a_program_of_one_mode_follows_both_as_far_as_it_tells(mode: bool) -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(model.norm(model.first(x)), 0.5, model.training)

    model = with_norm(forward).double()
    program = torch.export.export(randomise(model).train(mode), (IMAGE,), strict=False)
    assert_same_modes(model, capture(program), IMAGE)


def test_a_flag_that_is_on_where_layers_are_off_was_written_so() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.BatchNorm2d(4), Always())).double()
    program = torch.export.export(model, (IMAGE,), strict=False)
    assert_same_modes(model, capture(program), IMAGE)


class Always(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.25, training=True)


def test_frozen_statistics_of_a_program_are_named() -> None:
    program = torch.export.export(with_norm(batch_norm(False)).double().eval(), (IMAGE,), strict=False)
    module = capture(program)
    with pytest.warns(
        UserWarning, match=r"statistics of the batch, which the file does not tell: batch_norm \(.*py:\d+"
    ):
        module.train()


def test_a_layer_that_drops_weights_drops_them_in_training() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, F.dropout(self.layer.weight, 0.5, self.training), self.layer.bias)

    model = randomise(Dropped()).double()
    assert_same_modes(model, compact(capture(model, (WORDS,)), (WORDS,)).module, WORDS)


def test_models_that_only_torch_tells_the_mode_are_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    export = torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *a, **k: (calls.append("export"), export(*a, **k))[1])
    capture(built("norms")[0], (IMAGE,), "fixed")
    assert len(calls) == 1
    capture(built("frozen norm")[0], (IMAGE,), "fixed")
    assert len(calls) == 3
