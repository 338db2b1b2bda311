"""Values between kernels in one block: what shares it, what is not in it, and how large it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.lowering.arena import Arena
from reconvene.frontend.networks.papers import resnet20_cifar


def apart(arena: Arena) -> bool:
    return all(s.offset % arena.alignment == 0 and s.offset + s.size <= arena.bytes for s in arena.slots)


def test_a_chain_takes_two_images() -> None:
    """Five images of 16 channels, 8x8 with a halo of 1; one is read while the next is written."""
    layers = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(6)]
    built = compile(nn.Sequential(*layers).eval(), (torch.zeros(1, 16, 8, 8),), winograd="off")
    image = 16 * 10 * 10 * 4
    images = [slot for slot in built.arena.slots if slot.size == image]
    assert len(images) >= 5
    assert built.memory.arena_bytes == built.memory.live_bytes
    assert 2 * image <= built.memory.arena_bytes < 2.2 * image


def test_it_is_as_small_as_it_can_be() -> None:
    built = compile(resnet20_cifar(), (torch.zeros(1, 3, 32, 32),))
    memory = built.memory
    assert apart(built.arena)
    assert memory.live_bytes <= memory.arena_bytes <= 1.05 * memory.live_bytes
    assert memory.arena_bytes < sum(slot.size for slot in built.arena.slots) / 4


class Views(nn.Module):
    """Outputs that are seen in several shapes, one that is an input, one made of another that is still needed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.second = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.relu(self.linear(x))
        z = self.second(y)
        return y, z.reshape(3, 4), x, torch.sort(z)[0], torch.cat([z, y], 1).reshape(-1)


@pytest.mark.parametrize("pipeline", ["reconvene", "tvm-default"])
def test_what_leaves_is_not_in_it(pipeline: str) -> None:
    torch.manual_seed(0)
    model, x, other = Views().eval(), torch.randn(1, 12), torch.randn(1, 12)
    built = compile(model, (x,), pipeline=pipeline)  # type: ignore[arg-type]
    first = built.run(x)
    copies = [value.clone() for value in first]
    second = built.run(other)
    for got, kept, expected in zip(first, copies, model(x), strict=True):
        assert torch.equal(got, kept)  # the second run wrote elsewhere
        torch.testing.assert_close(got, expected.detach())
    for got, expected in zip(second, model(other), strict=True):
        torch.testing.assert_close(got, expected.detach())


def test_integers_and_python_numbers() -> None:
    class Arithmetic(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x * 3, (x + 1).float() * 2, x - 2**40

    x = torch.arange(6).reshape(2, 3)
    for got, expected in zip(compile(Arithmetic(), (x,)).run(x), Arithmetic()(x), strict=True):
        assert torch.equal(got, expected)
