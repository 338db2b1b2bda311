"""Profiling a model with synthetic inputs: parameters, multiply-accumulates, bytes, peak memory, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ...backends.measure import time_calls, torch_threads
from ...passes.canonicalize import canonicalize
from ...passes.dependency import dependency_view
from ...passes.outcome import Size
from ...passes.sizes import total_size
from .latency import batch_of, eager
from .report import Latency

__all__ = ["Profile", "peak_activation_bytes", "profile", "synthetic_inputs"]


@dataclass(frozen=True)
class Profile:
    """What a model costs."""

    size: Size
    """Parameters, multiply-accumulates of one call, bytes of parameters and buffers."""
    peak_bytes: int
    """Bytes of parameters and buffers, and the most that values of one call hold at any moment between two operators."""
    latency: Latency
    """Of PyTorch eager."""


def profile(
    models: Mapping[str, tuple[fx.GraphModule, Sequence[Any]]], *, threads: int = 1, repeat: int = 30, seed: int = 0
) -> dict[str, Profile]:
    """Profiles captured modules side by side, on random inputs of the shapes of those given.

    Args:
        models: by name, a module and example inputs.
        threads: of PyTorch's pool while latency is measured.
        repeat: calls that are timed, by turns; slow models are called less often, the latency says how often.
        seed: of the inputs.
    """
    inputs = {name: synthetic_inputs(given, seed) for name, (_, given) in models.items()}
    calls = {name: (lambda m=module, x=inputs[name]: eager(m, x)) for name, (module, _) in models.items()}
    with torch_threads(threads):
        timings = time_calls(calls, repeat, threads=threads, batch=batch_of(next(iter(inputs.values()))))
    found = {}
    for name, (module, _) in models.items():
        view = dependency_view(canonicalize(module))
        size, timing = total_size(view, module), timings[name]
        row = Latency(
            "eager", name, timing.median_ms, timing.p10_ms, timing.p90_ms, timing.repeats, threads, timing.batch
        )
        found[name] = Profile(size, size.bytes + peak_activation_bytes(module, inputs[name]), row)
    return found


def synthetic_inputs(inputs: Sequence[Any], seed: int = 0) -> tuple[Any, ...]:
    """Normally distributed numbers in the shapes of floating-point inputs; other inputs as they are."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator).to(value.dtype)
        return value

    result: tuple[Any, ...] = pytree.tree_map(drawn, tuple(inputs))
    return result


def peak_activation_bytes(module: fx.GraphModule, inputs: Sequence[Any]) -> int:
    """The most bytes that inputs and values of one call hold at once, each freed after its last reader.

    Views count with what they show; what an operator uses inside itself does not count.
    """
    watcher = _Watcher(module)
    with torch.inference_mode():
        watcher.run(*inputs)
    return watcher.peak


class _Watcher(fx.Interpreter):
    """Runs a graph and watches what its values hold."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        stored = [*module.parameters(), *module.buffers()]
        self._stored = {tensor.untyped_storage().data_ptr() for tensor in stored}
        self.peak = 0

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        storages: dict[int, int] = {}
        for tensor in pytree.tree_leaves([*self.env.values(), value]):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        self.peak = max(self.peak, sum(size for place, size in storages.items() if place not in self._stored))
        return value
