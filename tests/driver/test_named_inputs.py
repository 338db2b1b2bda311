"""Names of inputs and outputs on the command line, and options that have no meaning for what they are given."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reconvene.driver.cli.command_line import main
from reconvene.driver.example_inputs import arranged, shaped
from reconvene.frontend.base.errors import InputError

CODE = """
import collections
import torch
from torch import nn

Boxes = collections.namedtuple("Boxes", "box label")


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, batch, pair, mask=None):
        y = self.layer(batch["image"]) * batch["scale"] - pair[0] + 2 * pair[1]
        return {"logits": y, "boxes": Boxes(y + 1, [y.sum(1)]), "none": None, "count": 2, "top": float("inf")}


class One(nn.Module):
    def forward(self, image, scale):
        return image * scale


class Nan(nn.Module):
    def forward(self, x):
        return x / x.sum()


def pair():
    torch.manual_seed(0)
    return Pair().eval()
"""
SHAPES = "--input batch.scale=2x1 --input pair.0=2x4 --input batch.image=2x8 --input pair.1=2x4"
FILES = "pair.1=b.npy batch.image=image.npy batch.scale=scale.npy pair.0=a.npy"


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {"image": (2, 8), "scale": (2, 1), "a": (2, 4), "b": (2, 4)}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]) -> Path:
    """A folder with models, inputs, and bundles of two of them."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "names.py").write_text(CODE)
    for name, array in arrays.items():
        # As images come: backwards in memory, or by columns, or of other byte order.
        np.save(folder / f"{name}.npy", np.asfortranarray(array) if name == "image" else array.astype(">f4"))
    named = {"pair.1": "b", "batch.scale": "scale", "pair.0": "a", "batch.image": "image"}
    np.savez(folder / "all.npz", **{name: arrays[array] for name, array in named.items()})
    np.savez(folder / "some.npz", **{"batch.image": arrays["image"], "c": arrays["a"]})
    np.savez(folder / "unnamed.npz", arrays["a"], arrays["b"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(shlex.split(f"compile names.py:pair {SHAPES} -o pair")) == 0
        assert main(shlex.split("compile names.py:One --input 2x4 --input 2x4 -o one")) == 0
    return folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def answered(capsys: pytest.CaptureFixture[str], line: str) -> Any:
    capsys.readouterr()
    assert main([*shlex.split(line), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def expected(place: Path, arrays: dict[str, np.ndarray]) -> Any:
    space: dict[str, Any] = {}
    exec((place / "names.py").read_text(), space)
    image, scale, a, b = (torch.from_numpy(array) for array in arrays.values())
    return space["pair"]()({"image": image, "scale": scale}, [a, b])


@pytest.mark.parametrize("model", ["pair", "names.py:pair"])
@pytest.mark.parametrize("given", [FILES, "--data all.npz"])
def test_inputs_and_outputs_by_name(
    model: str, given: str, place: Path, arrays: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = answered(capsys, f"run {model} {given} -o out.npz")
    assert [output["name"] for output in ran["outputs"]] == ["logits", "boxes.box", "boxes.label.0"]
    assert ran["constants"] == {"none": None, "count": 2, "top": "inf"}
    wanted = expected(place, arrays)
    found = np.load("out.npz")
    np.testing.assert_allclose(found["logits"], wanted["logits"].detach(), atol=1e-5)
    np.testing.assert_allclose(found["boxes.box"], wanted["boxes"].box.detach(), atol=1e-5)
    np.testing.assert_allclose(found["boxes.label.0"], wanted["boxes"].label[0].detach(), atol=1e-5)


def test_people_are_told_names_and_constants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "pair", "--data", "all.npz"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("logits: float32 2x4, from ")
    assert lines[-3:] == ["none: None, whatever the inputs are", "count: 2, whatever the inputs are", "top: inf, whatever the inputs are"]  # fmt: skip  # noqa: E501
    assert main(["run", "one", "a.npy", "b.npy"]) == 0
    assert capsys.readouterr().out.startswith("output 0: float32 2x4, from ")


def test_arrays_without_names_go_by_their_order(arrays: dict[str, np.ndarray]) -> None:
    for given in ("a.npy b.npy", "--data unnamed.npz", "scale=b.npy image=a.npy"):
        assert main(shlex.split(f"run one {given} -o y.npz")) == 0
        np.testing.assert_allclose(np.load("y.npz")["output_0"], arrays["a"] * arrays["b"], rtol=1e-6)


def test_one_output_as_npy(arrays: dict[str, np.ndarray]) -> None:
    for model in ("one", "names.py:One"):
        assert main(["run", model, "a.npy", "b.npy", "-o", "y.npy"]) == 0
        found = np.load("y.npy")
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, arrays["a"] * arrays["b"], rtol=1e-6)


def test_numbers_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("zeros.npy", np.zeros(3, np.float32))
    ran = answered(capsys, "run names.py:Nan zeros.npy")
    assert ran["outputs"][0]["mean"] == "nan"


REFUSED = {
    "run pair --data some.npz": "'some.npz' holds 'c', and other inputs go by name; the model takes batch.scale, b",
    "run one image=a.npy": "input 'scale' was not given",
    "run one image=a.npy b.npy": "'b.npy' holds an array without a name",
    "run one image=a.npy image=b.npy": "input 'image' was given twice",
    "run one picture=a.npy": "the model has no input 'picture'; it takes image, scale",
    "run pair --data all.npz -o y.npy": "'y.npy' is for one array, and the model gives 3; name a .npz file",
    "run one a.npy b.npy -o y.txt": "outputs are written as .npy or .npz, not as 'y.txt'; name it y.npz",
    "run one --input x.npy": "--input has no meaning for a bundle",
    "run one a.npy b.npy --input 2x4": "--input has no meaning for a bundle",
    "run one a.npy b.npy --seed 3": "--seed has no meaning for a bundle and given arrays",
    "run one --timeout 5": "--timeout has no meaning without a board on the network",
    "run names.py:One --on qemu": "--on has no meaning for a model",
    "run names.py:One --input a.npy": "input 'a.npy' is a file, and --input gives shapes",
    "run names.py:One a.npy b.npy --input 2x4": "inputs were given as arrays and as shapes",
    "bench one --input 2x4": "--input has no meaning for a bundle",
    "bench one --target host": "--target has no meaning for a bundle",
    "bench one --batch 2": "--batch has no meaning for a bundle",
    "bench one --against one": "--against has no meaning for a bundle",
    "bench one --engine eager": "--engine has no meaning for a bundle",
    "bench names.py:One --timeout 5": "--timeout has no meaning without a board",
    "capture x.pt2 --dynamic batch": "--dynamic has no meaning for a .pt2 file",
    "prune names.py:pair --synthetic": "--synthetic has no meaning for magnitude",
    "prune names.py:pair --data .": "--data has no meaning for magnitude",
    "prune names.py:pair --dataset cifar10": "--dataset has no meaning for magnitude of a model that is there already",
    "prune names.py:pair --method snip --data .": "--data has no meaning without --dataset",
    "prune names.py:pair --method snip --synthetic --data .": "--data has no meaning with --synthetic",
    "prune names.py:pair --width 0.5": "--width has no meaning for a model that is there already",
    "prune names.py:pair -s 0.5 --latency 0.5 --target host": "--sparsity has no meaning with --latency",
    "prune names.py:pair --channel-multiple 4 --target host": "--target has no meaning with --channel-multiple",
    "train names.py:pair --width 0.5": "--width has no meaning for a model that is there already",
    "train-levels names.py:pair --method magnitude --rewind 5it": "--rewind has no meaning for masks that are found before",
    "compile names.py:pair --no-check --check-input all.npz": "--check-input has no meaning with --no-check",
    "compile names.py:pair --target cortex-m7 --threads 2": "--threads has no meaning for 'cortex-m7'",
    "portfolio a.pt2 b.pt2 --method random": "--method has no meaning without --sparsity",
    "portfolio a.pt2 b.pt2 --test-images 5": "--test-images has no meaning without --dataset",
    "portfolio a.pt2 b.pt2 --estimate": "--estimate has no meaning for the host alone",
    "portfolio a.pt2 b.pt2 --target rpi4 --repeat 3": "--repeat has no meaning without the target host",
    "serve p --dwell 5": "--dwell has no meaning where variants are switched by hand",
    "serve p --policy queue --reserve-mib 5": "--reserve-mib has no meaning without --policy memory",
    "serve p --queue-high 5 --policy memory": "--queue-high has no meaning without --policy queue",
    "serve p --unix s --host 0.0.0.0": "--host has no meaning for a Unix socket",
    "serve p --unix s --control-token t": "--control-token has no meaning for a Unix socket",
    "serve p --no-control --allow-host pi": "--allow-host has no meaning with --no-control",
    "estimate one --all --json": "--all has no meaning with --json",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items())
def test_what_has_no_meaning_is_refused(
    line: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.iterdir())
    assert main(shlex.split(line)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said, said
    assert sorted(place.iterdir()) == before


class Arguments(torch.nn.Module):
    def forward(self, x, pair, scale=2.0, *, y=None):  # type: ignore[no-untyped-def]
        return x


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x=1", "2"], "some inputs were given by name and others without"),
        (["x=1", "z=2"], "the model has no input 'z'; it takes x, pair, scale, y"),
        (["z=1"], "the model has no input 'z'"),
        (["pair=1"], "input 'x' was not given; name it as well"),
        (["x=1", "x=2"], "an input was given twice, among x, x"),
        (["x=1", "pair=1", "pair.0=1"], "lies within an input that was given as a whole|as a whole and in parts"),
    ],
)
def test_names_that_are_no_call(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        arranged(shaped(texts, 0), Arguments())


def test_names_become_arguments() -> None:
    x, pair, scale, y = arranged(shaped(["y.a=5", "pair.1=2", "pair.0=3", "x=4,int64"], 0), Arguments())
    assert (x.shape, x.dtype, scale) == ((4,), torch.int64, 2.0)
    assert [tensor.shape for tensor in pair] == [(3,), (2,)]
    assert y["a"].shape == (5,)
    stored = (torch.ones(1), [torch.ones(2), torch.ones(3)], None)
    assert arranged(shaped(["x=1", "pair.0=2", "pair.1=3"], 0), Arguments(), stored)[2] is None
    filled = arranged(shaped(["1", "2", "3"], 0), Arguments(), stored)
    assert len(filled) == 3 and filled[1][1].shape == (3,)
