"""Images through `run`: prepared as the model's file says, in PyTorch's words, from a model and from its bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import reconvene
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.tensor_spec import CodeScale, TensorSpec
from reconvene.driver.cli.command_line import main
from reconvene.driver.pictures import Pictures, labels_of
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data.facts import Colours, DataFacts
from reconvene.frontend.data.image_files import read_fitted
from reconvene.frontend.quantized_operators import load_quantized_operators

NAMES = ("blue", "green", "red")
MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.25, 1.0)


class Colour(nn.Module):
    """The mean of each colour, the last one first."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)).flip(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says its classes, one that does not, the bundle of the first, and an image that is mostly green."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    image = torch.zeros(1, 3, 8, 8)
    reconvene.save(Colour(), image, folder / "named.pt2", classes=NAMES, mean=MEAN, std=STD)
    reconvene.save(Colour(), image, folder / "plain.pt2")
    reconvene.compile(str(folder / "named.pt2")).save(folder / "bundle")
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., 1], pixels[:, 10:20, 0] = 250, 90
    Image.fromarray(pixels).save(folder / "leaf.png")
    return folder


def run(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, Any]:
    code = main(["run", *line, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if code == 0 else said.err


def expected(image: Path) -> Tensor:
    pixels = torch.from_numpy(read_fitted(image, 8, 8)).double()[None] / 255
    return Colour()((pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))


@pytest.mark.parametrize("what", ["named.pt2", "bundle"])
def test_an_image_is_told_by_name(what: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = place / "leaf.png"
    code, found = run(capsys, str(place / what), str(image), "-o", str(tmp_path / "y.npy"))
    assert code == 0
    torch.testing.assert_close(
        torch.from_numpy(np.load(tmp_path / "y.npy")).double(), expected(image), rtol=1e-5, atol=1e-5
    )
    (label,) = found["labels"]
    shares = expected(image).softmax(1)[0]
    assert label["file"] == str(image) and [entry["name"] for entry in label["classes"]] == ["green", "blue", "red"]
    assert [entry["share"] for entry in label["classes"]] == pytest.approx(
        [float(shares[n]) for n in (1, 0, 2)], abs=1e-5
    )


def test_bundles_keep_what_the_model_says(place: Path) -> None:
    assert open_bundle(place / "bundle").data == DataFacts(NAMES, Colours(MEAN, STD))
    assert reconvene.Built.open(place / "bundle").data == DataFacts(NAMES, Colours(MEAN, STD))


def test_colours_may_be_said(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, image = str(place / "plain.pt2"), str(place / "leaf.png")
    code, said = run(capsys, plain, image)
    assert code == 2 and "does not say what images are normalised with; give --mean and --std" in said
    colours = ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
    code, found = run(capsys, plain, image, *colours, "-o", str(tmp_path / "y.npz"))
    assert code == 0 and found["labels"] == []
    torch.testing.assert_close(
        torch.from_numpy(np.load(tmp_path / "y.npz")["output_0"]).double(),
        expected(place / "leaf.png"),
        rtol=1e-5,
        atol=1e-5,
    )


def test_capture_records_classes(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "names.txt"
    names.write_text("blue\ngreen\n\nred\n")
    line = ["capture", str(place / "plain.pt2"), "--classes", str(names), "-o", str(tmp_path / "new.pt2")]
    assert main([*line, "--mean", "0.5,0.25,0.125", "--std", "0.5,0.25,1"]) == 0
    assert reconvene.load(tmp_path / "new.pt2").data == DataFacts(NAMES, Colours(MEAN, STD))
    names.write_text("blue\ngreen\n")
    assert main(line) == 2
    names.write_text("blue\nred\nred\n")
    assert main(line) == 2
    told = capsys.readouterr().err.splitlines()
    assert "names 2 classes, and the model gives 3" in told[0] and "name each class once" in told[1]


def test_what_cannot_be_is_one_line(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, bundle = str(place / "leaf.png"), str(place / "bundle")
    (tmp_path / "no.jpg").write_bytes(b"no image")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 8, 8), np.float32))
    lines = {
        (bundle, image, image): "the model takes 1 images a call, and 2 were given",
        (bundle, str(tmp_path / "no.jpg")): "is no image, or is damaged",
        (bundle, str(tmp_path / "none.jpg")): "no such file",
        (bundle, image, str(tmp_path / "x.npy")): "is an image and",
        (bundle, str(tmp_path / "x.npy"), "--mean", "0,0,0", "--std", "1,1,1"): "none was given",
    }
    for line, message in lines.items():
        code, said = run(capsys, *line)
        assert code == 2 and message in said and len(said.splitlines()) == 1


def test_bytes_are_given_as_bytes(place: Path) -> None:
    files = (place / "leaf.png",)
    pixels = torch.from_numpy(read_fitted(files[0], 8, 8))[None]
    spec = reconvene.compile(str(place / "plain.pt2")).inputs[0]
    last = type(spec)("image", (1, 8, 8, 3), "uint8")
    first = type(spec)("image", (1, 3, 8, 8), "uint8")
    assert torch.equal(Pictures(files).inputs((last,), None)[0], pixels.permute(0, 2, 3, 1))
    assert torch.equal(Pictures(files).inputs((first,), None)[0], pixels)
    for shape, dtype in (((1, 1, 8, 8), "float32"), ((1, 3, 8), "float32"), ((1, 3, 8, 8), "int64")):
        with pytest.raises(InputError, match="no images of three colours; give arrays"):
            Pictures(files).inputs((type(spec)("x", shape, dtype),), None)


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 128), ("int8", -7)])
def test_codes_are_those_of_the_normalised_image(place: Path, dtype: str, zero: int) -> None:
    files = (place / "leaf.png",)
    spec = TensorSpec("image", (1, 3, 8, 8), dtype, CodeScale(0.0125, zero))
    (found,) = Pictures(files).inputs((spec,), DataFacts(NAMES, Colours(MEAN, STD)))
    (floats,) = Pictures(files).inputs(
        (TensorSpec("image", (1, 3, 8, 8), "float32"),), DataFacts(NAMES, Colours(MEAN, STD))
    )
    limits = np.iinfo(dtype)
    wanted = np.clip(np.rint(floats.double().numpy() / 0.0125) + zero, limits.min, limits.max)
    assert str(found.dtype) == f"torch.{dtype}" and np.abs(found.numpy() - wanted).max() <= 1
    assert (found.numpy() == wanted).mean() > 0.9 and len(np.unique(wanted)) > 2
    with pytest.raises(InputError, match="does not say what images are normalised with"):
        Pictures(files).inputs((spec,), None)


def test_codes_of_halves_are_even(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (0, 255, 0)).save(tmp_path / "green.png")
    spec = TensorSpec("image", (1, 3, 8, 8), "int8", CodeScale(0.25, 0))
    colours = Colours((0.125, 0.375, 0.5), (1.0, 1.0, 0.0009765625))
    (found,) = Pictures((tmp_path / "green.png",), colours).inputs((spec,), None)
    assert [int(found[0, colour].unique()) for colour in range(3)] == [0, 2, -128]  # Of -0.5, 2.5 and -2048.


def test_a_quantised_model_on_codes_takes_the_codes_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    load_quantized_operators()
    rounding = torch.ops.quantized_decomposed

    class Rounded(Colour):
        def forward(self, images: Tensor) -> Tensor:
            codes = rounding.quantize_per_tensor(images, 0.02, 128, 0, 255, torch.uint8)
            return super().forward(rounding.dequantize_per_tensor(codes, 0.02, 128, 0, 255, torch.uint8))

    model, image = str(tmp_path / "rounded.pt2"), str(place / "leaf.png")
    reconvene.save(Rounded(), torch.zeros(1, 3, 8, 8), model, classes=NAMES, mean=MEAN, std=STD)
    built = reconvene.compile(model, codes="inputs")
    assert built.inputs[0].dtype == "uint8" and built.inputs[0].codes is not None
    built.save(tmp_path / "bundle")
    answers = []
    for what in (model, str(tmp_path / "bundle")):
        assert run(capsys, what, image, "-o", str(tmp_path / "y.npy"))[0] == 0
        answers.append(np.load(tmp_path / "y.npy"))
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-6)
    for name in NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / f"{number}.png")
    line = ["evaluate", str(tmp_path / "bundle"), "--data", str(tmp_path / "photos"), "--test-share", "0.5"]
    assert main(line) == 2 and "takes codes, and these are images" in capsys.readouterr().err


def test_a_model_on_bytes_tells_labels_and_normalises_itself(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, image, model = tmp_path / "names.txt", str(place / "leaf.png"), str(tmp_path / "bytes.pt2")
    names.write_text("\N{ZERO WIDTH NO-BREAK SPACE}blue\r\ngreen\r\nred\r\n", encoding="utf-8")
    colours = ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
    line = ["capture", str(place / "plain.pt2"), "--classes", str(names), *colours]
    assert main([*line, "--image-bytes", "NHWC", "-o", model]) == 0
    assert reconvene.load(model).data == DataFacts(NAMES, None)
    capsys.readouterr()
    code, found = run(capsys, model, image)
    (mine,), (theirs,) = (each["labels"] for each in (found, run(capsys, str(place / "named.pt2"), image)[1]))
    assert code == 0 and [entry["name"] for entry in mine["classes"]] == ["green", "blue", "red"]
    for one, other in zip(mine["classes"], theirs["classes"], strict=True):
        assert one["share"] == pytest.approx(other["share"], abs=1e-6)
    again = ["capture", model, "--classes", str(names), *colours, "-o", str(tmp_path / "again.pt2")]
    for wrong in (["run", model, image, *colours], again):
        assert main(wrong) == 2
        said = capsys.readouterr().err
        assert "the model takes bytes and normalises them itself; leave out" in said and said.count("\n") == 1


def test_classes_of_grey_images_go_with_their_bytes(place: Path, tmp_path: Path) -> None:
    class Grey(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 3))

    (tmp_path / "names.txt").write_text("high\nlow\n")
    reconvene.save(Grey(), torch.zeros(1, 1, 2, 8), tmp_path / "grey.pt2")
    line = ["capture", str(tmp_path / "grey.pt2"), "--classes", str(tmp_path / "names.txt"), "--image-bytes", "NCHW"]
    assert main([*line, "--mean", "0.5", "--std", "0.25", "-o", str(tmp_path / "bytes.pt2")]) == 0
    assert reconvene.load(tmp_path / "bytes.pt2").data == DataFacts(("high", "low"), None)


def test_names_in_another_encoding_are_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, encoding in (("bl\xe5\ngreen\nred\n", "latin-1"), ("blue\ngreen\nred\n", "utf-16")):
        (tmp_path / "names.txt").write_text(text, encoding=encoding)
        line = ["capture", str(place / "plain.pt2"), "--classes", str(tmp_path / "names.txt")]
        assert main([*line, "-o", str(tmp_path / "new.pt2")]) == 2
        said = capsys.readouterr().err
        assert "is no text in UTF-8" in said and said.count("\n") == 1


def test_an_image_may_be_for_an_input_by_name(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("leaf.tif", "leaf.GIF"):
        Image.new("L", (2, 2)).save(tmp_path / name)
    image, model = str(place / "leaf.png"), str(place / "named.pt2")
    assert run(capsys, model, f"images={image}") == run(capsys, model, image)
    lines = {
        (f"image={image}",): "the model has no input 'image'; it takes images",
        (f"images={image}", image): "one for 'images' and one without a name; give them alike",
        (str(tmp_path / "leaf.tif"),): "leaf.tif' is of a format that is not read; make it one of .jpg",
        (f"images={tmp_path / 'leaf.GIF'}",): "leaf.GIF' is of a format that is not read",
    }
    for line, message in lines.items():
        code, said = run(capsys, model, *line)
        assert code == 2 and message in said and len(said.splitlines()) == 1


def test_a_softmax_of_the_models_own_is_left_alone() -> None:
    facts = DataFacts(NAMES, None)
    (found,) = labels_of([Path("a.png")], [torch.tensor([[0.25, 0.5, 0.25]])], facts)
    assert found["classes"][0] == {"name": "green", "share": 0.5}
    assert labels_of([Path("a.png")], [torch.zeros(1, 4)], facts) == []
    assert labels_of([Path("a.png")], [torch.zeros(1, 3)], None) == []
