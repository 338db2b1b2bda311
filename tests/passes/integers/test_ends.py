"""Networks that take and give codes: what stands for what, and which ends have none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.integers.ends import Scale, on_codes
from reconvene.passes.integers.lowering import with_integers

Q = torch.ops.quantized_decomposed
IN, OUT = Scale(0.5, 3, -128, 127, torch.int8), Scale(0.25, -7, -128, 127, torch.int8)
UNSIGNED = Scale(0.5, 131, 0, 255, torch.uint8)
X = torch.tensor([[-100.0, -1.5, 0.0, 2.25, 30.0, 1e9]])


class Rounded(nn.Module):
    """A function of a quantised value, which is quantised again."""

    def __init__(self, scale: Scale = IN, given: Scale | None = OUT) -> None:
        super().__init__()
        self.scale, self.given = scale, given

    def inside(self, x: Tensor) -> Tensor:
        return x.relu()

    def forward(self, x: Tensor) -> Any:
        value = self.inside(self.scale.values(self.scale.codes(x)))
        return value if self.given is None else self.given.values(self.given.codes(value))


class Moved(Rounded):
    """What goes in and comes out is laid out anew."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        given: Tensor = super().forward(x.permute(1, 0).reshape(2, 3))
        return {"flat": given.flatten(), "sizes": torch.tensor([2, 3])}


class Twice(Rounded):
    """The input is read in float, too."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) + x.abs().sum()


def test_both_ends() -> None:
    module = capture(Rounded(), (X,))
    ends = on_codes(module, "both")
    assert (ends.inputs, ends.outputs) == ((IN,), (OUT,))
    (codes,) = ends.coded((X,))
    assert codes.tolist() == [
        [-128, 0, 3, 7, 63, 127]
    ]  # -1.5 is three steps below zero, and 2.25 four and a half above.
    found = ends.module(codes)
    assert found.dtype == torch.int8 and found.tolist() == [[-7, -7, -7, 1, 113, 127]]
    torch.testing.assert_close(OUT.values(found), module(X), rtol=0, atol=0)
    # The network that it was made of is as it was.
    assert module(X).dtype == torch.float32


def test_one_end() -> None:
    module = capture(Rounded(), (X,))
    inputs, outputs = on_codes(module, "inputs"), on_codes(module, "outputs")
    assert (inputs.inputs, inputs.outputs, outputs.inputs, outputs.outputs) == ((IN,), (None,), (None,), (OUT,))
    assert torch.equal(inputs.module(*inputs.coded((X,))), module(X))
    assert torch.equal(OUT.values(outputs.module(*outputs.coded((X,)))), module(X))


def test_through_what_only_moves_numbers() -> None:
    module = capture(Moved(), (X,))
    ends = on_codes(module, "both")
    assert (ends.inputs, ends.outputs) == ((IN,), (OUT, None))
    found = ends.module(*ends.coded((X,)))
    assert torch.equal(OUT.values(found["flat"]), module(X)["flat"]) and found["sizes"].tolist() == [2, 3]


def test_bytes_without_a_sign_go_in_and_all_is_computed_on_codes() -> None:
    ends = on_codes(capture(Rounded(UNSIGNED), (X,)), "both")
    assert ends.inputs == (UNSIGNED,)
    given = ends.coded((X,))
    assert given[0].dtype == torch.uint8
    wanted = ends.module(*given)
    program = with_integers(ends.module)
    assert program.floats == () and torch.equal(program.module(*given), wanted)


def test_what_is_no_codes() -> None:
    cases = [
        (Rounded(given=None), "outputs", r"output 0 cannot be codes: 'relu' at .*test_ends.py:\d+ gives its numbers"),
        (
            Rounded(given=UNSIGNED),
            "outputs",
            "output 0 cannot be codes: .* reads uint8, and codes that come out are int8",
        ),
        (
            Twice(),
            "inputs",
            r"input 'x' cannot be codes: 'abs.*' at .*test_ends.py:\d+ reads its numbers; leave inputs out",
        ),
        (nn.ReLU(), "inputs", r"input 'input' cannot be codes: 'relu'.* reads its numbers"),
        (Rounded(), "all", "codes cannot be at 'all'; choose inputs, outputs or both"),
    ]
    for module, ends, message in cases:
        with pytest.raises(InputError, match=message) as raised:
            on_codes(capture(module.eval(), (X,)), ends)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
