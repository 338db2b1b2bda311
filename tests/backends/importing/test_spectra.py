"""Fourier transforms and complex values between real inputs and outputs are PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn import functional as F

import reconvene
from reconvene.backends.compile import compile
from reconvene.frontend.base.errors import CaptureError

from ...support.together import differences


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


IMAGE, SOUND = numbers(2, 3, 8, 10), numbers(2, 64)
real, pair = torch.view_as_real, torch.view_as_complex


def window(x: Tensor) -> Tensor:
    return torch.hann_window(16).to(x.dtype)


def spectrum(x: Tensor, **given: Any) -> Tensor:
    return torch.stft(x, 16, 4, window=window(x), return_complex=True, **given)


def roundtrip(length: int) -> Callable[[Tensor], Tensor]:
    """A transform, its inverse, and half of one, at a length."""

    def call(x: Tensor) -> Tensor:
        x = x.repeat(1, -(-length // 64))[:, :length]
        whole = torch.fft.ifft(torch.fft.fft(x) * torch.fft.fft(x.flip(-1)))
        return torch.cat(
            [real(torch.fft.rfft(x)).flatten(1), whole.real, torch.fft.irfft(torch.fft.rfft(x), n=length)], 1
        )

    return call


TRANSFORMS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "rfft": (lambda x: real(torch.fft.rfft(x)), (IMAGE,)),
    "rfft of more": (lambda x: real(torch.fft.rfft(x, n=16, norm="ortho")), (IMAGE,)),
    "rfft of less": (lambda x: real(torch.fft.rfft(x, n=7, dim=1, norm="forward")), (IMAGE,)),
    "irfft": (lambda x: torch.fft.irfft(pair(x)), (numbers(3, 9, 2),)),
    "irfft of an odd length": (lambda x: torch.fft.irfft(pair(x), n=15, norm="ortho"), (numbers(3, 9, 2),)),
    "fft": (lambda x: real(torch.fft.fft(pair(x), n=12, dim=0)), (numbers(3, 9, 2),)),
    "ifft": (lambda x: real(torch.fft.ifft(pair(x), norm="forward")), (numbers(3, 9, 2),)),
    "rfft2 and back": (lambda x: torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * 2, norm="ortho"), (IMAGE,)),
    "rfft2": (lambda x: real(torch.fft.rfft2(x)), (IMAGE,)),
    "fftn": (lambda x: real(torch.fft.fftn(x, dim=(1, 2, 3))), (IMAGE,)),
    "rfftn": (lambda x: real(torch.fft.rfftn(x, dim=(0, 2))), (IMAGE,)),
    "hfft": (lambda x: torch.fft.hfft(pair(x)), (numbers(3, 9, 2),)),
    "fftshift": (lambda x: real(torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))), (IMAGE,)),
    "fftfreq": (lambda x: x * torch.fft.fftfreq(10, 0.5).to(x.dtype), (IMAGE,)),
    "low frequencies": (
        lambda x: torch.fft.irfft2(F.pad(torch.fft.rfft2(x)[..., :3, :4] * 1j, (0, 2, 0, 5)), s=(8, 10)), (IMAGE,)
    ),
    **{f"length {length}": (roundtrip(length), (SOUND,)) for length in (127, 131, 256, 360)},
    "spectrogram": (lambda x: spectrum(x).abs(), (SOUND,)),
    "power of unpadded frames": (lambda x: spectrum(x, center=False, normalized=True).abs() ** 2, (SOUND,)),
    "phases": (lambda x: spectrum(x, pad_mode="constant").angle().cos(), (SOUND,)),
    "all frequencies": (lambda x: real(spectrum(x, onesided=False)), (SOUND,)),
    "istft": (lambda x: torch.istft(spectrum(x) * 0.5, 16, 4, window=window(x), length=64), (SOUND,)),
    "masked spectrogram": (
        lambda x: torch.istft(spectrum(x) * spectrum(x).abs().sigmoid(), 16, 4, window=window(x)), (SOUND,)
    ),
}  # fmt: skip


def complexly(call: Callable[[Tensor, Tensor], Tensor]) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    def paired(x: Tensor, y: Tensor) -> Tensor:
        found = call(pair(x), pair(y))
        return real(found.resolve_conj()) if found.is_complex() else found

    return paired, (numbers(2, 3, 4, 2), 0.3 - numbers(2, 3, 4, 2).flip(0))


def written(x: Tensor, y: Tensor) -> Tensor:
    out = torch.zeros(2, 5, 6, dtype=x.dtype)
    out[:, :3, :3] = x @ y.mT
    return out


ARITHMETIC = {
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / b,
    "sums": lambda a, b: a - 2 * b + 1j,
    "by a real one": lambda a, b: a.real * b / b.imag,
    "conjugate": lambda a, b: (a * a.conj()).real + b.imag,
    "exponential": lambda a, b: a.exp() / a.log(),
    "size and angle": lambda a, b: torch.polar(a.abs(), b.angle()) + a.sgn(),
    "powers": lambda a, b: a**2 + b.sqrt() + 1 / a + b.square(),
    "complex": lambda a, b: torch.complex(a.real, b.imag),
    "matrices": lambda a, b: a @ b.mH,
    "einsum": lambda a, b: torch.einsum("bij,bkj->bik", a, b),
    "einsum of a Fourier layer": lambda a, b: torch.einsum("bix,iox->box", a, b.reshape(3, 2, 4)),
    "linear": lambda a, b: F.linear(a, b[0], b[0, :, 0]),
    "vector": lambda a, b: a @ b[0, 0],
    "joined": lambda a, b: torch.stack([torch.cat([a, b], 1), torch.cat([b, a], 1)], -1),
    "parts": lambda a, b: torch.cat(a.chunk(2, -1)[::-1], -1).unbind(1)[0],
    "slices": lambda a, b: a[:, 1:, ::2].permute(2, 0, 1).reshape(2, -1).unsqueeze(-1),
    "indices": lambda a, b: a[:, tensor([0, -1]), tensor([1, 2])],
    "sum and mean": lambda a, b: a.sum((0, -1)) + b.mean(),
    "chosen": lambda a, b: torch.where(a.real > 0, a, b) + torch.where(b.real > 0, b, 0),
    "masked": lambda a, b: a.masked_fill(a.real > 0, 0).flip(-1).roll(1, 1).tril(),
    "written": written,
    "norm": lambda a, b: torch.linalg.vector_norm(a, dim=-1),
    "equal": lambda a, b: (a == a.clone()) & (a != b),
}


def test_transforms_are_those_of_pytorch() -> None:
    assert not differences(TRANSFORMS)


def test_complex_arithmetic_is_that_of_pytorch() -> None:
    assert not differences({name: complexly(call) for name, call in ARITHMETIC.items()})


def test_sizes_beyond_the_square_root_of_the_greatest_number_are_found() -> None:
    class Sizes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return pair(x).abs()

    x = tensor([[3e30, 4e30], [3e-30, 4e-30], [0.0, 0.0], [float("inf"), 1.0]])
    found = compile(Sizes(), (x,)).run(x)
    assert torch.allclose(found, tensor([5e30, 5e-30, 0.0, float("inf")]), rtol=1e-6)


class FourierLayer(nn.Module):
    """Weights for the lowest frequencies of each pair of channels (Li et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5, 4, 3, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x)
        out = torch.zeros(x.shape[0], 5, *spectrum.shape[2:], dtype=spectrum.dtype)
        out[:, :, :4, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :4, :3], self.weight)
        return torch.fft.irfft2(out, s=x.shape[-2:])


def test_a_fourier_layer_with_complex_weights_is_compiled() -> None:
    torch.manual_seed(0)
    model = FourierLayer().eval()
    found = reconvene.compile(model, (IMAGE,)).run(IMAGE)
    assert torch.allclose(found, model(IMAGE), atol=1e-5)


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x)


class Determinant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).prod(-1).abs()


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 0.5).abs()


@pytest.mark.parametrize(
    ("model", "x", "named"),
    [
        (Spectrum(), IMAGE, "aten.fft_rfft' at .*view_as_real"),
        (Determinant(), IMAGE, "aten.prod' at "),
        (Halved(), torch.complex(IMAGE, IMAGE), "input 'x' is complex.*view_as_real"),
    ],
    ids=["an output", "an operator", "an input"],
)
def test_what_stays_complex_is_refused_by_name(model: nn.Module, x: Tensor, named: str) -> None:
    with pytest.raises(CaptureError, match=named) as caught:
        compile(model, (x,))
    assert "\n" not in str(caught.value)
