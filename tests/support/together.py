"""Several functions compiled as one model, since a compilation takes a second, and compared with PyTorch one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from reconvene.backends.agreement import disagreement
from reconvene.backends.compile import compile

__all__ = ["Together", "compared", "differences"]


class Together(nn.Module):
    """Several networks, each with inputs of its own, as one: they are exported and compiled at once."""

    def __init__(self, networks: list[Any], counts: list[int]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(network for network in networks if isinstance(network, nn.Module))
        self.calls = networks
        self.counts = counts

    def forward(self, *inputs: Any) -> list[Any]:
        rest = iter(inputs)
        return [call(*[next(rest) for _ in range(count)]) for call, count in zip(self.calls, self.counts, strict=True)]


def compared(networks: list[Any], examples: list[tuple[Any, ...]]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Outputs of PyTorch and of the compiled code, network by network."""
    together = Together(networks, [len(example) for example in examples]).eval()
    inputs = tuple(value for example in examples for value in example)
    with torch.no_grad():
        # A copy, because what a call remembers is where the compiled code begins.
        expected = [tree_leaves(output) for output in copy.deepcopy(together)(*inputs)]
    built = compile(together, inputs, choose="default", check=False)
    found = iter(tree_leaves(built.run(*inputs)))
    for wanted in expected:
        yield wanted, [next(found) for _ in wanted]


def differences(cases: Mapping[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]) -> dict[str, str]:
    """What is wrong with compiled functions on their example inputs, beside PyTorch in float64, by their names.

    Numbers may differ by 1e-5 of the largest one; where they are not finite, and what is no floating-point number, is equal.
    """
    examples = [inputs for _, inputs in cases.values()]
    found = compared([call for call, _ in cases.values()], examples)
    wrong = {}
    for (name, (call, inputs)), (single, got) in zip(cases.items(), found, strict=True):
        with torch.no_grad():
            exact = tree_leaves(call(*[x.double() if x.is_floating_point() else x for x in inputs]))
        rounded = [a.to(b.dtype) if b.is_floating_point() else a for a, b in zip(exact, single, strict=True)]
        reason = disagreement(rounded, got, 1e-5)
        if reason:
            wrong[name] = reason
    return wrong
