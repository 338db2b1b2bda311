"""Names are those of the plain model, whatever wraps it or its parts, and the wrappers stay on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from reconvene.frontend.capture import capture
from reconvene.frontend.unwrapping import unwrapped

from ..support.untouched import untouched

IMAGE = torch.randn(2, 3, 8, 8)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 4, 3))).eval()


def within(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def inside(model: nn.Module) -> nn.Module:
        assert isinstance(model, nn.Sequential)
        model[2] = wrap(model[2])
        return model

    return inside


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "checkpointed": checkpoint_wrapper,
    "compiled and parallel": lambda model: torch.compile(nn.DataParallel(model)),
    "a compiled part": within(torch.compile),
    "a parallel part": within(nn.DataParallel),
    "a checkpointed part": within(checkpoint_wrapper),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_names_have_nothing_before_them(name: str) -> None:
    model = net()
    expected, names = model(IMAGE), list(model.state_dict())
    wrapped = WRAPPERS[name](copy.deepcopy(model))
    with untouched(wrapped):
        module = capture(wrapped, (IMAGE,))
    assert sorted(module.state_dict()) == sorted(names)
    torch.testing.assert_close(module(IMAGE), expected)
    model.load_state_dict(module.state_dict())


def test_distributed_models_are_unwrapped(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = net()
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert unwrapped(wrapped) is model
        assert sorted(capture(wrapped, (IMAGE,)).state_dict()) == sorted(model.state_dict())
    finally:
        distributed.destroy_process_group()


def test_a_model_of_ones_own_that_holds_a_module_is_none() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x) * 2

    model = Scaled()
    assert unwrapped(model) is model
    assert "module.weight" in capture(model, (IMAGE,)).state_dict()


def test_a_wrapper_with_a_hook_stays() -> None:
    wrapped = nn.DataParallel(net())
    wrapped.register_forward_hook(lambda module, args, result: result * 2)
    torch.testing.assert_close(capture(wrapped, (IMAGE,))(IMAGE), wrapped(IMAGE))
