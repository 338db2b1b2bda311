"""What a stored graph says of its values is compared with what it computes, and with limits, before anything is computed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.limits import VARIABLE
from reconvene.frontend.program_file import load_program

HUGE = 10**12


class Making(nn.Module):
    """Values that are made, repeated, widened and split."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.zeros(77, 4)[0] + torch.arange(78)[:4] + torch.full((79, 4), 2.0).sum()
        many = x.unsqueeze(0).expand(80, 3, 4).sum() + x.repeat(81, 1).sum()
        parts = torch.split(torch.ones(6, 82), 2)
        first, *_ = torch.unbind(torch.ones(2, 83))
        return self.layer(x) + made + many + parts[0].sum() + first.sum()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "model.pt2"
    torch.export.save(torch.export.export(Making().eval(), (torch.randn(3, 4),)), path)
    return path


def changed(source: Path, target: Path, change: Callable[[str], str]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content.decode()) if name.endswith("models/model.json") else content)
    return target


def replaced(old: int, new: int, told: bool) -> Callable[[str], str]:
    """One number for another in all calls, and where the file tells it in the descriptions as well."""

    def edit(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: edit(value) if told or key != "tensor_values" else value for key, value in part.items()}
        if isinstance(part, list):
            return [edit(value) for value in part]
        return new if part == old and not isinstance(part, bool) else part

    return lambda text: json.dumps(edit(json.loads(text)))


@pytest.mark.parametrize("told", [True, False], ids=["said", "hidden"])
@pytest.mark.parametrize("size", [77, 78, 79, 80, 81], ids=["zeros", "arange", "full", "expand", "repeat"])
def test_values_larger_than_the_limit_are_refused_however_they_come(
    stored: Path, tmp_path: Path, size: int, told: bool
) -> None:
    path = changed(stored, tmp_path / "huge.pt2", replaced(size, HUGE, told))
    with pytest.raises(InputError, match=rf"its value '.*' claims .* TiB, .* set {VARIABLE}=value=\d+$"):
        load_program(path)


def test_limits_of_values_may_be_lowered_and_raised(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "value=1KiB")
    with pytest.raises(InputError, match=r"claims 1\.\d+ KiB, more than the limit of 1 KiB"):
        load_program(stored)
    monkeypatch.setenv(VARIABLE, "value=1MiB")
    module, inputs = load_program(stored)
    assert inputs is not None and module(*inputs).shape == (3, 4)


@pytest.mark.parametrize(("name", "of", "columns"), [("split", 6, 82), ("unbind", 2, 83)])
def test_a_call_that_makes_values_without_end_is_refused(
    stored: Path, tmp_path: Path, name: str, of: int, columns: int
) -> None:
    def more(text: str) -> str:
        text = text.replace(f'"as_ints": [{of}, {columns}]', f'"as_ints": [4000000, {columns}]')
        said = (f'[{{"as_int": {rows}}}, {{"as_int": {columns}}}]' for rows in (of, 4000000))
        return text.replace(*said)

    with pytest.raises(InputError, match=rf"its call '{name}' claims \d+ records, more than the limit of 100000"):
        load_program(changed(stored, tmp_path / "split.pt2", more))


CHANGES: dict[str, tuple[Callable[[str], str], str]] = {
    "another size than it computes": (
        lambda text: text.replace(*(f'"linear": {{"dtype": 7, "sizes": [{{"as_int": {size}}}' for size in (3, 2))),
        "it says that 'linear' is float32 2x4, and it is float32 3x4",
    ),
    "another type than it computes": (
        lambda text: text.replace('"linear": {"dtype": 7,', '"linear": {"dtype": 8,'),
        "it says that 'linear' is float64 3x4, and it is float32 3x4",
    ),
    "another input than the example": (
        lambda text: text.replace(*(f'"x": {{"dtype": 7, "sizes": [{{"as_int": {size}}}' for size in (3, 5))),
        "it says that 'x' is float32 5x4, and it is float32 3x4",
    ),
    "a call that cannot be": (replaced(0, 9, False), "its call '.*' of aten.* cannot be made|makes no sense|cannot read"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_descriptions_that_are_not_true_are_refused(
    stored: Path, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_program(changed(stored, tmp_path / "false.pt2", change))


def test_what_depends_on_numbers_and_sizes_that_vary_are_read(tmp_path: Path) -> None:
    class Depending(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kept = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
            with torch.no_grad():
                kept = kept * 2
            return kept.reshape(-1, 2) + x.shape[0]

    x = torch.randn(3, 4)
    program = torch.export.export(Depending(), (x,), dynamic_shapes=({0: Dim("n")},))
    torch.export.save(program, tmp_path / "depending.pt2")
    module, _ = load_program(tmp_path / "depending.pt2")
    other = torch.randn(5, 4)
    torch.testing.assert_close(module(other), Depending()(other))
