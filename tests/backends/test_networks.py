"""Whole small networks, at full and at odd widths, and what `compile` promises about them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.machines.threads import available_threads
from reconvene.backends.measure import Timing
from reconvene.frontend.base.errors import CaptureError, InputError


class Residual(nn.Module):
    """A residual network in small, of `width` channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU6())
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu_(self.body(x).add_(x))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(self.down(x), 1), 1))


def trained(module: nn.Module) -> nn.Module:
    """`module` in eval mode with statistics that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
    return module.eval()


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("width", [16, 11, 37])
def test_network(width: int) -> None:
    torch.manual_seed(0)
    module, x = trained(Residual(width)), torch.randn(1, 3, 16, 16)
    built = compile(module, (x,))
    close(built.run(x), module(x).detach())
    close(built.run(x.numpy()), module(x).detach())


def test_all_threads_compute_the_same() -> None:
    module, x = trained(Residual(24)), torch.randn(1, 3, 16, 16)
    close(compile(module, (x,), threads=available_threads()).run(x), module(x).detach())


@pytest.mark.parametrize("winograd", ["off", "2x2", "4x4"])
def test_results_are_the_same_bits_every_time(winograd: Any) -> None:
    """With several threads, where edges are not multiples of a tile; and however many threads there are."""
    module, x = trained(Residual(24)), torch.randn(2, 3, 15, 13)
    built = compile(module, (x,), threads=available_threads(), winograd=winograd, choose="default")
    first = built.run(x)
    assert all(torch.equal(built.run(x), first) for _ in range(20))
    assert torch.equal(compile(module, (x,), threads=1, winograd=winograd, choose="default").run(x), first)


def test_an_exported_graph_module_compiles() -> None:
    module, x = trained(Residual(8)), torch.randn(1, 3, 8, 8)
    graph = torch.export.export(module, (x,)).module()
    close(compile(graph, (x,)).run(x), module(x).detach())


def test_compiling_leaves_the_module_as_it_was() -> None:
    module, x = Residual(8).train(), torch.randn(2, 3, 8, 8)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    compile(module, (x,))
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_both_pipelines_agree() -> None:
    module, x = trained(Residual(8)), torch.randn(1, 3, 8, 8)
    close(compile(module, (x,), pipeline="tvm-default").run(x), module(x).detach())


def test_equal_layers_share_a_kernel() -> None:
    """What is compiled grows with the distinct layers, not with the depth."""
    import tvm

    from reconvene.backends.importing.importer import import_module
    from reconvene.backends.machines.targets import find_target
    from reconvene.backends.pipeline import scheduled_module

    module = nn.Sequential(*[nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()) for _ in range(6)]).eval()
    host = find_target("host")
    imported = import_module(module, (torch.randn(1, 16, 8, 8),)).module
    scheduled = scheduled_module(imported, host.machine, tvm.target.Target(host.llvm()))
    kernels = [name.name_hint for name, _ in scheduled.module.functions_items() if "convolution" in name.name_hint]
    assert len(kernels) <= 2


def test_inputs_are_checked() -> None:
    built = compile(Residual(4).eval(), (torch.randn(1, 3, 8, 8),))
    with pytest.raises(InputError, match="takes 1 inputs by position, got 2"):
        built.run(torch.randn(1, 3, 8, 8), torch.randn(1))
    with pytest.raises(InputError, match="input 'x' must be float32 1x3x8x8, got float32 1x3x9x9"):
        built.run(torch.randn(1, 3, 9, 9))
    with pytest.raises(InputError, match="got float64 1x3x8x8"):
        built.run(np.zeros((1, 3, 8, 8)))
    with pytest.raises(InputError, match="torch tensor or numpy array, got list"):
        built.run([1.0])


def test_unaligned_and_strided_inputs() -> None:
    module = trained(Residual(4))
    x = torch.randn(1, 3, 8, 8)
    built = compile(module, (x,))
    shifted = torch.empty(x.numel() + 1)[1:].view_as(x).copy_(x)
    strided = x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    for same in (shifted, strided):
        close(built.run(same), module(x).detach())


def test_results_of_one_run_survive_the_next() -> None:
    module = trained(Residual(4))
    x, y = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    built = compile(module, (x,))
    first = built.run(x)
    kept = first.clone()
    built.run(y)
    assert torch.equal(first, kept)


def test_bad_requests_are_refused() -> None:
    x = (torch.randn(1, 3, 8, 8),)
    with pytest.raises(InputError, match="unknown pipeline 'fast'"):
        compile(nn.ReLU(), x, pipeline="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads must be between 1 and"):
        compile(nn.ReLU(), x, threads=0)

    class Dependent(nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value if float(value.sum()) > 0 else -value

    with pytest.raises(CaptureError, match="cannot compile Dependent"):
        compile(Dependent(), x)


def test_benchmark() -> None:
    module, x = trained(Residual(4)), torch.randn(2, 3, 8, 8)
    threads = torch.get_num_threads()
    timing = compile(module, (x,)).benchmark(repeat=4, warmup=1)
    assert isinstance(timing, Timing)
    assert (timing.repeats, timing.threads, timing.batch) == (4, 1, 2)
    assert timing.minimum_ms <= timing.p10_ms <= timing.median_ms <= timing.p90_ms
    assert torch.get_num_threads() == threads


def test_layers_whose_weights_are_computed_from_weights_compile() -> None:
    """Constants come in every form: their absolute values, over norms, under functions of one value."""
    weight_norm, spectral_norm = nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm
    torch.manual_seed(0)
    model = nn.Sequential(
        weight_norm(nn.Linear(8, 8)), nn.utils.weight_norm(nn.Linear(8, 8)), spectral_norm(nn.Linear(8, 8))
    )

    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.weight = model, nn.Parameter(torch.randn(8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x) @ self.weight.clamp(-1, 1).tanh() + self.weight.abs()[0]

    module, x = Squashed().eval(), torch.randn(3, 8)
    close(compile(module, (x,)).run(x), module(x).detach())
