"""Fourier transforms and complex numbers, and from them back to real ones."""

from __future__ import annotations

from ..draft import Draft
from ..program import Ref
from .registry import recipe


def _operand(draft: Draft, least: int = 1) -> Ref:
    x = draft.operand(lambda value: value.dim() >= least)
    return draft.fed(x, draft.pick((1, draft.rank(x) - 1)), 50) if draft.rank(x) > 1 else x


def _complex(draft: Draft, least: int = 1) -> Ref:
    """A complex value: with an imaginary part of its own, with none, or a spectrum."""
    x = _operand(draft, least)
    kind = draft.integer(0, 3)
    if kind == 0:
        return draft.call("complex.default", x, draft.call("zeros_like.default", x))
    if kind == 1:
        return draft.call("complex.default", x, draft.call("mul.Tensor", x, draft.pick((0.5, 0.0))))
    if kind == 2:
        return draft.call(
            "add.Tensor", draft.call("fft_fft.default", x, None, draft.axis(x)), draft.pick((1j, 0.5, -2.0))
        )
    return draft.call("fft_rfft.default", x, None, draft.axis(x))


def _real(draft: Draft, z: Ref) -> Ref:
    """A real value made of a complex one, after a step between complex values."""
    if not draft.value(z).is_complex():
        return z
    step = draft.integer(0, 5)
    if step == 0:
        z = draft.call("mul.Tensor", z, draft.pick((2j, 0.5 + 1j, -1.0)))
    elif step == 1:
        z = draft.call("div.Tensor", z, draft.call("add.Tensor", draft.call("mul.Tensor", z, z), 2.0 + 1j))
    elif step == 2:
        z = draft.call("sgn.default", z)
    way = draft.integer(0, 3)
    if way == 3:
        return draft.call("select.int", draft.call("view_as_real.default", z), -1, draft.integer(0, 1))
    return draft.call(("abs.default", "real.default", "imag.default")[way], z)


@recipe("fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft", weight=6)
def along(draft: Draft, operator: str) -> Ref:
    real = operator in ("fft_rfft", "fft_ihfft")
    x = _operand(draft) if real or (operator in ("fft_fft", "fft_ifft") and draft.chance(50)) else _complex(draft)
    axis = draft.axis(x, 2)
    size = draft.pick((None, None, draft.integer(2, 6)))
    return _real(draft, draft.call(f"{operator}.default", x, size, axis, draft.pick((None, "ortho", "forward"))))


@recipe("fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn", weight=6)
def over(draft: Draft, operator: str) -> Ref:
    x = _operand(draft, 2) if operator.startswith("fft_r") else _complex(draft, 2)
    axes = draft.pick(((-2, -1), (0, -1), (-1, -2)))
    if operator.endswith("n") and draft.chance(40):
        return _real(draft, draft.call(f"{operator}.default", x, draft.pick((None, (4, 4))), None))
    return _real(draft, draft.call(f"{operator}.default", x, None, axes))


@recipe("fft_fftshift fft_ifftshift", weight=2)
def shifts(draft: Draft, operator: str) -> Ref:
    x = _complex(draft) if draft.chance(40) else _operand(draft)
    return _real(draft, draft.call(f"{operator}.default", x, draft.pick((None, (draft.axis(x),)))))


@recipe("stft istft", weight=2)
def short_time(draft: Draft, operator: str) -> Ref:
    x = _operand(draft, 2)
    rows = (
        draft.call("flatten.using_ints", x, 1, -1) if draft.chance(50) else draft.call("flatten.using_ints", x, 0, -2)
    )
    if operator == "stft":
        window = draft.optional(4)
        return _real(draft, draft.call("stft.default", rows, 4, 2, 4, window, draft.chance(50), None, True))
    found = draft.call("stft.default", rows, 4, 2, 4, None, False, None, True)
    return draft.call("istft.default", found, 4, 2, 4, None, False)


@recipe("real imag view_as_real angle sgn conj _conj conj_physical resolve_conj resolve_neg", weight=8)
def parts(draft: Draft, operator: str) -> Ref:
    z = _complex(draft)
    if operator == "angle":  # Away from the cut, where the sign of a zero decides.
        return draft.call(
            "angle.default", draft.call("complex.default", draft.call("exp.default", (y := _real(draft, z))), y)
        )
    if operator == "view_as_real":
        return draft.call("view_as_real.default", z)
    if operator == "resolve_neg":
        return draft.call("resolve_neg.default", draft.call("imag.default", draft.call("_conj.default", z)))
    return _real(draft, draft.call(f"{operator}.default", z))


@recipe("complex polar view_as_complex", weight=4)
def made(draft: Draft, operator: str) -> Ref:
    x = _operand(draft)
    y = draft.like(x)
    if operator == "view_as_complex":
        pairs = draft.call("stack.default", (x, draft.like(x, broadcast=False)), -1)
        return _real(draft, draft.call("view_as_complex.default", pairs))
    return _real(draft, draft.call(f"{operator}.default", x, y))
