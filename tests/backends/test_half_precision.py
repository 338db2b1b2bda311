"""Networks of float32 that are computed in float16: what they lose, which parts are not, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reconvene
from reconvene.backends.built import Built
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.half_range import outside_half
from reconvene.backends.machines.targets import Target, find_target, targets
from reconvene.frontend.base.errors import CheckError, InputError
from tests.support.tools import needs

IMAGE = torch.randn(2, 3, 20, 21, generator=torch.Generator().manual_seed(0))


class Everything(nn.Module):
    """All operations with kernels of ours, activations that round once and others, and operators of TVM's between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.pointwise, self.again = nn.Conv2d(24, 40, 1), nn.Conv2d(40, 40, 3, padding=1)
        self.grouped, self.down = nn.Conv2d(40, 40, 3, padding=1, groups=4), nn.Conv2d(80, 300, 1, stride=2)
        self.gate, self.last = nn.Linear(300, 300), nn.Linear(300, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu6(self.depthwise(torch.relu(self.first(x))))
        x = F.silu(self.pointwise(x))
        x = x + self.again(x)
        x = self.down(torch.cat([x, self.grouped(x)], 1))
        x = F.avg_pool2d(F.max_pool2d(x, 3, 1, 1), 3, 2, 1) * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        added = torch.cumsum(x, 1)
        return self.last(x.mean((2, 3))).softmax(-1), added, F.gelu(added[:, 4:20])


def made() -> nn.Module:
    torch.manual_seed(0)
    return Everything().eval()


def agree(got: Any, expected: Any, share: float = 4e-3) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=share * float(theirs.abs().max()))


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine computes in float16, by instructions for it or one by one."""
    monkeypatch.setattr(Target, "has_half_floats", property(lambda target: target.isa.half_floats is not None))


def types_of(built: Built) -> set[str]:
    return {str(weight.dtype) for weight in built.artifact.weights if weight.numpy().size > 1000}


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("winograd", ["off", "2x2", "4x4"])
def test_what_is_lost(winograd: Any) -> None:
    module = made()
    built = reconvene.compile(module, (IMAGE,), winograd=winograd, dtype="float16")
    assert [str(spec.dtype) for spec in (*built.inputs, *built.outputs)] == ["float32"] * 4
    # What Winograd's transforms make is larger than the image, and float32.
    assert types_of(built) == ({"float16"} if winograd == "off" else {"float16", "float32"})
    with torch.no_grad():
        agree(built.run(IMAGE), module(IMAGE))


def test_weights_take_half_the_bytes() -> None:
    whole, half = (
        reconvene.compile(made(), (IMAGE,), "rpi5", winograd="off", dtype=dtype, check=False).memory.weights_bytes
        for dtype in ("float32", "float16")
    )
    assert half < 0.55 * whole


@pytest.mark.usefixtures("emulated")
def test_long_sums_are_of_float32() -> None:
    """4,096 products of one sign, which float16 would round to 2,048 at most, where it counts in twos."""
    layer = nn.Conv2d(4096, 4, 1, bias=False).eval()
    nn.init.constant_(layer.weight, 1.0)
    image = torch.ones(1, 4096, 3, 3)
    built = reconvene.compile(layer, (image,), dtype="float16")
    assert torch.equal(built.run(image), layer(image).detach())


@pytest.mark.usefixtures("emulated")
def test_what_the_model_has_in_float16_itself_stays_so() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            whole, half = values["whole"], values["half"]
            return self.layer(whole + half.float()), torch.cumsum(half.reshape(2, 4), 1)

    torch.manual_seed(0)
    module, given = Mixed().eval(), {"whole": torch.randn(1, 8), "half": torch.randn(1, 8).half()}
    built = reconvene.compile(module, (given,), dtype="float16")
    assert [str(spec.dtype) for spec in built.outputs] == ["float32", "float16"]
    with torch.no_grad():
        agree(built.run(given), module(given))


@pytest.mark.usefixtures("emulated")
def test_state_is_kept_in_float32() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self.register_buffer("seen", torch.zeros(1, 8))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = 0.5 * self.seen + self.layer(x)
            return self.seen.clone()

    torch.manual_seed(0)
    module, x = Counting().eval(), torch.randn(1, 8)
    built = reconvene.compile(module, (x,), dtype="float16")
    with torch.no_grad():
        for _ in range(3):
            agree([built.run(x)], [module(x)])


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
@pytest.mark.parametrize("runtime", ["static", "none"])
def test_on_a_board(runtime: Any, tmp_path: Path) -> None:
    module = made()
    built = reconvene.compile(module, (IMAGE,), "rpi5", dtype="float16", check=runtime == "static")
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime=runtime))
    with torch.no_grad():
        agree(run_bundle(bundle, (IMAGE,), bundle_emulator(bundle)), module(IMAGE))


def test_which_machines_compute_so() -> None:
    able = {preset.name for preset in targets() if preset.has_half_floats}
    assert {"rpi5", "jetson-orin", "graviton2"} <= able
    assert able.isdisjoint({"rpi2", "rpi3", "rpi4", "cortex-m7"})


@pytest.mark.parametrize(
    ("target", "dtype", "message"),
    [
        ("rpi4", "float16", r"'rpi4' \(cortex-a72\) does not compute in float16; .*choose a target that does: .*rpi5"),
        ("cortex-m7", "float16", r"'cortex-m7' \(cortex-m7\) does not compute in float16"),
        ("rpi5", "bfloat16", "a model cannot be computed in 'bfloat16'; choose float32, float16 or int8"),
    ],
)
def test_what_is_refused(target: str, dtype: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reconvene.compile(made(), (IMAGE,), target, dtype=dtype)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        nn.init.constant_(self.one.weight, factor)
        nn.init.constant_(self.two.weight, 1.0)
        nn.init.zeros_(self.one.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.two(self.one(x))
        return y


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (
            5e4,
            r"cannot be computed in float16: 'linear' at .*test_half_precision.py:\d+ gives 2e\+05, and .* 65504; leave out",
        ),
        (1e5, r"its weight 'one.weight' has a value of 1e\+05, and float16 ends at 65504"),
        (1e-5, r"'linear' at .* gives at most 4e-05, and below 6e-05 float16 loses digits"),
    ],
)
def test_values_that_are_outside(factor: float, message: str) -> None:
    x = torch.ones(1, 4)
    with pytest.raises(CheckError, match=message):
        reconvene.compile(Scaled(factor).eval(), (x,), "rpi5", dtype="float16")


def test_inputs_to_check_on_of_another_shape_are_told_first() -> None:
    with pytest.raises(InputError, match="x"):
        reconvene.compile(
            Scaled(1.0).eval(), (torch.ones(1, 4),), "rpi5", dtype="float16", check_inputs=[(torch.ones(1, 5),)]
        )


def test_infinite_and_masking_numbers_are_no_matter() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x.masked_fill(x < 0, float("-inf")) + (x < 1) * torch.finfo(x.dtype).min, -1)

    x = torch.randn(2, 5)
    assert outside_half(torch.export.export(Masked(), (x,)), (x,)) is None


def test_the_target_is_asked_before_anything_is_compiled() -> None:
    assert not find_target("rpi4").has_half_floats
    with pytest.raises(InputError, match="does not compute in float16"):
        reconvene.compile(nn.Linear(3, 3), (torch.ones(1, 3),), "rpi4", dtype="float16", check=False)
