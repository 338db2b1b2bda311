"""Copies, pickles and files of torch.save come back as captured modules: graph, mode, layers, metadata; here and elsewhere."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule, changed_layer
from reconvene.passes.compaction import compact

from ..support.models import assert_same_outputs, randomise

X = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """Named outputs, shared weights, a constant, dropout, normalisation, and a branch that an operator calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, momentum=None), nn.Dropout(0.5)
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.drop(self.norm(self.conv(x))).mean((2, 3)) + torch.tensor([0.5], dtype=x.dtype)
        x = torch.cond(x.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (x,))
        return {"scores": self.last(self.first(x).relu())}


@pytest.fixture(scope="module")
def fresh() -> CapturedModule:
    module = compact(capture(randomise(Network()).double(), (X,)), (X,)).module
    assert isinstance(module, CapturedModule)
    return module


@pytest.fixture
def module(fresh: CapturedModule) -> CapturedModule:
    return copy.deepcopy(fresh)


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.save": saved, "pickle": lambda module: pickle.loads(pickle.dumps(module)), "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy, "pickle of a pickle": lambda module: saved(saved(module)),
}  # fmt: skip


def outputs(module: nn.Module, x: Tensor = X) -> list[Tensor]:
    found = []
    for seed, mode in enumerate((True, False)):
        torch.manual_seed(seed)
        found.append(module.train(mode)(x)["scores"])
    return [*found, *(buffer.double() for _, buffer in module.named_buffers())]


def train(module: nn.Module) -> None:
    optimiser = torch.optim.SGD(module.train().parameters(), 0.1)
    for seed in range(2):
        torch.manual_seed(seed)
        optimiser.zero_grad()
        module(X + seed)["scores"].square().sum().backward()
        optimiser.step()


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_what_it_was_in_both_modes_and_trains_on(module: CapturedModule, name: str, mode: bool) -> None:
    train(module)
    twin = COPIES[name](module.train(mode))
    assert isinstance(twin, CapturedModule) and twin.training is mode
    assert twin.meta.keys() == module.meta.keys() and torch.equal(twin.meta["example_inputs"][0], X)
    assert [str(node.target) for node in twin.graph.nodes] == [str(node.target) for node in module.graph.nodes]
    assert list(twin.state_dict()) == list(module.state_dict())
    apart = copy.deepcopy(module)
    train(twin)
    if name == "copy.copy":
        assert twin.get_parameter("conv.weight") is module.get_parameter("conv.weight")
        return
    train(apart)
    for expected, found in zip(outputs(apart), outputs(twin), strict=True):
        assert torch.equal(expected, found)


def test_a_copy_has_a_mode_and_a_graph_of_its_own(module: CapturedModule) -> None:
    twin = copy.copy(module)
    twin.train()
    assert not module.training and not module.get_submodule("drop").training
    assert twin.graph is not module.graph and twin.get_submodule("drop").training


@pytest.mark.parametrize("name", COPIES)
def test_what_was_changed_on_layers_goes_along(module: CapturedModule, name: str) -> None:
    if name != "copy.deepcopy":  # PyTorch copies no weights that were computed.
        prune.l1_unstructured(module.get_submodule("first"), "weight", 0.5)
    setattr(module, "drop", nn.Dropout2d(0.1))  # noqa: B010
    setattr(module, "conv", nn.Sequential(module.get_submodule("conv"), nn.Tanh()))  # noqa: B010
    twin = COPIES[name](module.eval())
    assert isinstance(twin, CapturedModule)
    assert changed_layer(twin) is not None and changed_layer(module) is not None
    assert_same_outputs(module(X)["scores"], twin(X)["scores"], 0)
    assert twin(X)["scores"].shape == (4, 6)


def test_a_copy_is_compacted_as_the_module_is(module: CapturedModule) -> None:
    masks = {"conv.weight": torch.arange(6) % 2 == 0}
    for twin in (saved(module), copy.copy(module)):
        expected, found = (compact(capture(each), (X,), masks) for each in (module, twin))
        assert expected.after == found.after
        assert_same_outputs(expected.module(X)["scores"], found.module(X)["scores"], 0)


def test_another_process_reads_it(module: CapturedModule, tmp_path: Path) -> None:
    train(module)
    torch.save(module, tmp_path / "module.pt")
    torch.save((X, *outputs(copy.deepcopy(module))[:2]), tmp_path / "values.pt")
    program = (
        "import torch; m = torch.load('module.pt', weights_only=False); x, *want = torch.load('values.pt')\n"
        "for seed, mode, value in zip((0, 1), (True, False), want):\n"
        "    torch.manual_seed(seed); assert torch.allclose(m.train(mode)(x)['scores'], value), mode\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)


def test_the_state_dict_is_plain_and_fits_again(module: CapturedModule, tmp_path: Path) -> None:
    other = copy.deepcopy(module)
    train(module)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for expected, found in zip(outputs(module), outputs(other), strict=True):
        assert torch.equal(expected, found)


def test_a_graph_that_cannot_be_stored_is_refused_with_its_node(module: CapturedModule) -> None:
    node = next(node for node in module.graph.nodes if node.name == "relu")
    node.target = lambda x: x.relu()
    with pytest.raises(InputError, match=r"cannot be pickled: its node 'relu' holds something that cannot be stored"):
        pickle.dumps(module)


def test_what_is_stored_can_be_read_where_dill_is_not(module: CapturedModule) -> None:
    assert b"dill" not in pickle.dumps(module)
