"""What may be written for MODEL and --input; every mistake is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.driver.example_inputs import parse_input
from reconvene.driver.models import load_model
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import save_program

NET = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

class Zoo:
    small = net()

number = 7
def broken():
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(NET)
    return tmp_path


@pytest.mark.parametrize("model", ["mynet.py:net", "mynet:net", "mynet.py:Zoo.small"])
def test_code_is_captured_with_the_given_input(model: str, code: Path) -> None:
    loaded = load_model(model, ["2x3x8x8"])
    assert loaded.module(*loaded.example_inputs).shape == (2, 2)
    assert loaded.name == model.rpartition(":")[2]
    assert loaded.beside == Path(loaded.name)


def test_a_file_brings_its_own_inputs_and_place(code: Path) -> None:
    model = load_model("mynet.py:net", ["1x3x8x8"])
    save_program(model.module, model.example_inputs, code / "net.v1.pt2")
    loaded = load_model(str(code / "net.v1.pt2"))
    assert (loaded.name, loaded.beside) == ("net.v1", code / "net.v1")
    assert [tuple(value.shape) for value in loaded.example_inputs] == [(1, 3, 8, 8)]


def test_a_network_by_name_has_seeded_weights() -> None:
    first, again, other = (load_model("resnet20-cifar", seed=seed).module.state_dict() for seed in (1, 1, 2))
    assert torch.equal(first["conv.weight"], again["conv.weight"])
    assert not torch.equal(first["conv.weight"], other["conv.weight"])


def test_batch_replaces_the_first_axis() -> None:
    assert load_model("resnet20-cifar", batch=3).example_inputs[0].shape == (3, 3, 32, 32)
    with pytest.raises(InputError, match="batch 0"):
        load_model("resnet20-cifar", batch=0)


def test_dynamic_sizes_stay_dynamic(code: Path) -> None:
    loaded = load_model("mynet.py:net", ["1x3x8x8"], dynamic=["batch", "size"])
    assert loaded.module(torch.zeros(5, 3, 10, 12)).shape == (5, 2)
    with pytest.raises(InputError, match="'depth'"):
        load_model("mynet.py:net", ["1x3x8x8"], dynamic=["depth"])


def test_one_image_is_enough_for_any_batch_also_through_a_file(code: Path) -> None:
    loaded = load_model("mynet.py:net", ["1x3x8x8"])
    assert loaded.module(torch.zeros(5, 3, 8, 8)).shape == (5, 2)
    save_program(loaded.module, loaded.example_inputs, code / "net.pt2")
    again = load_model("net.pt2", dynamic=["batch"], batch=4)
    assert again.module(*again.example_inputs).shape == (4, 2)
    with pytest.raises(InputError, match=r"the size of 'net\.pt2' is fixed"):
        load_model("net.pt2", dynamic=["size"])


def test_a_file_of_one_size_says_so_before_work_begins(code: Path) -> None:
    torch.export.save(torch.export.export(nn.Conv2d(3, 2, 1), (torch.zeros(1, 3, 8, 8),)), "fixed.pt2")
    for options in ({"dynamic": ["batch"]}, {"batch": 2}, {"inputs": ["2x3x8x8"]}):
        with pytest.raises(InputError, match=r"the batch of 'fixed\.pt2' is fixed|axis 0, and needs 1 there"):
            load_model("fixed.pt2", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        ("nothing.pt2", [], "no such file"),
        ("alexnet", [], r"no model 'alexnet'.*vgg16-cifar"),
        ("mynet.py:net", [], "--input"),
        ("mynet.py:nett", ["1x3x8x8"], "has no 'nett'"),
        ("mynet.py:number", ["1x3x8x8"], "gives a int"),
        ("mynet.py:broken", ["1x3x8x8"], r"RuntimeError: no weights here at .*mynet\.py:13"),
        ("missing.py:net", ["1x3x8x8"], "no such file"),
        ("missing:net", ["1x3x8x8"], "no Python module 'missing'"),
        ("spoilt.py:net", ["1x3x8x8"], r"SyntaxError"),
        ("mynet.py:net", ["1x5x8x8"], "does not run on the example input"),
        ("mynet.py:net", ["1x3x8"], "does not run on the example input"),
        ("notes.txt", [], "not a .pt2"),
    ],
)
def test_mistakes_are_one_line(model: str, inputs: list[str], message: str, code: Path) -> None:
    (code / "spoilt.py").write_text("def net(:\n")
    (code / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=message) as caught:
        load_model(model, inputs)
    assert "\n" not in str(caught.value)


def test_inputs_have_shapes_dtypes_and_a_seed() -> None:
    assert parse_input("2x3").shape == (2, 3)
    assert torch.equal(parse_input("2x3", 1), parse_input("2x3", 1))
    assert not torch.equal(parse_input("2x3", 1), parse_input("2x3", 2))
    assert parse_input("4,int64").tolist() == [0, 0, 0, 0]
    assert parse_input("1X2, float64").dtype == torch.float64


@pytest.mark.parametrize("text", ["", "1x", "1x0x3", "-1x3", "axb", "1x3,float33", "1x3,nn"])
def test_inputs_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match=f"input '{text}'"):
        parse_input(text)


def test_loading_code_leaves_the_search_path_as_it_was(code: Path) -> None:
    import sys

    before = list(sys.path)
    load_model("mynet.py:net", ["1x3x8x8"])
    load_model("mynet:net", ["1x3x8x8"])
    assert sys.path == before


def test_models_are_captured_already(code: Path) -> None:
    loaded = load_model("mynet.py:net", ["1x3x8x8"])
    assert capture(loaded.module, loaded.example_inputs) is loaded.module


def test_weights_are_put_into_what_code_builds(code: Path) -> None:
    trained = load_model("mynet.py:net", ["1x3x8x8"], seed=5).module.state_dict()
    torch.save({"ema": trained, "model": {name: value + 1 for name, value in trained.items()}}, "net.pth")
    loaded = load_model("mynet.py:net", ["1x3x8x8"], weights="net.pth:ema")
    assert all(torch.equal(loaded.module.state_dict()[name], value) for name, value in trained.items())


def test_weights_alone_are_no_model_and_a_program_takes_none(code: Path) -> None:
    torch.save({}, "net.pth")
    with pytest.raises(InputError, match=r"weights without a model; name the code that builds it, file\.py:callable"):
        load_model("net.pth")
    model = load_model("mynet.py:net", ["1x3x8x8"])
    save_program(model.module, model.example_inputs, "net.pt2")
    with pytest.raises(InputError, match="has its weights in it"):
        load_model("net.pt2", weights="net.pth")
