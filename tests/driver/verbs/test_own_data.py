"""`train` and `evaluate` with data of a person's own, by the command line: what is written, told, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_kills import write_images

from reconvene.driver.cli.command_line import main
from reconvene.driver.models import load_model
from reconvene.driver.own_data import Taker, Wanted, open_data
from reconvene.frontend.data.facts import Colours, DataFacts
from reconvene.frontend.program_file import read_program, save_program
from tests.support.pictures import write_pictures

NET = """
import torch
from torch import nn

def net(classes=2, inputs=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(inputs, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, classes),
    )

def three(): return net(3)
def ten(): return net(10)
def grey(): return net(inputs=1)
def rows(): return nn.Linear(6, 2)
"""
DATA = """
import torch
from torch.utils.data import TensorDataset

def rows(count=32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())

def pair(): return rows(), rows(16)
def named(): return {"training": rows(), "test": rows(16), "classes": ["no", "yes"]}
def metric(): return {"training": rows(), "test": rows(16), "metric": spread}
def spread(outputs, targets): return outputs.std()
def wrong(): return rows()
def failing(): raise ValueError("the disk is at home")
number = 5
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    Path("net.py").write_text(NET)
    Path("data.py").write_text(DATA)
    return tmp_path


FEW = ["--set", "epochs=1", "--set", "batch=4", "--threads", "1"]
IMAGES = ["net.py:net", "--input", "2x3x16x16", "--data", "photos"]


def told(capsys: pytest.CaptureFixture[str], *line: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*line, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_folder_is_trained_on_evaluated_and_trained_on_again(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(Path("photos"), 10)
    done = told(capsys, "train", *IMAGES, "--test-share", "0.3", *FEW, "-o", "run")
    assert done["classes"] == ["ripe", "unripe"] and done["preset"] == "fine-tune" and done["data"] == "photos"
    facts = read_program("run/model.pt2").data
    assert facts is not None and facts.test_share == 0.3 and facts.colours is not None
    found = told(capsys, "evaluate", "run/model.pt2", "--data", "photos")
    assert found["items"] == 6 and found["agreement"] == 1.0 and found["largest_difference"] < 1e-4
    assert found["pytorch"]["metric"] == found["compiled"]["metric"] == done["rows"][-1]["test_accuracy"]
    assert found["pytorch"]["top5"] is None and abs(found["pytorch"]["loss"] - done["rows"][-1]["test_loss"]) < 1e-4
    again = told(capsys, "train", "run/model.pt2", "--teacher", "run/model.pt2", "--data", "photos", *FEW, "-o", "more")
    assert read_program("more/model.pt2").data == facts and again["classes"] == done["classes"]
    # The same line goes on with what is done; other images are another training.
    assert main(["train", *IMAGES, "--test-share", "0.3", *FEW, "-o", "run"]) == 0
    write_pictures(Path("photos", "more"), 1, ("ripe",))
    Path("photos/more/ripe/0000.jpg").rename("photos/ripe/9999.jpg")
    for path in (Path("photos/more/ripe"), Path("photos/more")):
        path.rmdir()
    assert main(["train", *IMAGES, "--test-share", "0.3", *FEW, "-o", "run"]) == 2
    assert "another training" in capsys.readouterr().err


def test_a_bundle_is_evaluated_beside_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(Path("photos/train"), 4)
    write_pictures(Path("photos/test"), 3, first=4)
    assert main(["train", *IMAGES, *FEW, "-o", "run"]) == 0
    assert main(["compile", "run/model.pt2", "-o", "bundle"]) == 0
    both = told(capsys, "evaluate", "bundle", "--against", "run/model.pt2", "--data", "photos", "--test-images", "5")
    assert both["items"] == 5 and both["agreement"] == 1.0
    assert both["pytorch"]["metric"] == both["compiled"]["metric"]
    facts = read_program("run/model.pt2").data
    assert facts is not None and isinstance(facts.colours, Colours)
    known = [word for name, three in (("--mean", facts.colours.mean), ("--std", facts.colours.std))
             for word in (name, ",".join(map(str, three)))]  # fmt: skip
    alone = told(capsys, "evaluate", "bundle", "--data", "photos", *known)
    assert alone["pytorch"] is None and alone["agreement"] is None and alone["items"] == 6
    assert told(capsys, "evaluate", "bundle", "--data", "photos") == alone  # The bundle knows them, too.
    assert main(["evaluate", "bundle", "--against", "run/model.pt2", "--data", "photos"]) == 0
    shown = capsys.readouterr().out
    assert "PyTorch" in shown and "both give the same class to 100.0%" in shown


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["--dataset", "letters"], "no data set is called 'letters'"),
        (["--dataset", "cifar10", "--data", "nowhere"], "no CIFAR-10 in 'nowhere'"),
        (["--data", "nowhere"], "'nowhere'"),
        (["--data", "data.py:nothing"], "'data.py' has no 'nothing'"),
        (["--data", "photos"], "does not say what the images"),
    ],
)
def test_data_are_looked_for_before_anything_is_compiled(
    data: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(Path("photos/train"), 1)
    write_pictures(Path("photos/test"), 1)
    monkeypatch.setattr("reconvene.driver.api.compile", None)
    assert main(["evaluate", "net.py:net", "--input", "2x3x16x16", *data]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("data", [["--dataset", "cifar10"], ["--data", "photos", "--test-share", "0.5"]])
@pytest.mark.parametrize("verb", ["evaluate", "train"])
def test_models_on_bytes_take_no_images_that_were_normalised(
    verb: str, data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(Path("photos"), 2)
    asked = ["--image-bytes", "NCHW", "--mean", "0,0,0", "--std", "1,1,1", "-o", "bytes.pt2"]
    assert main(["capture", "net.py:net", "--input", "2x3x16x16", *asked]) == 0
    capsys.readouterr()
    assert main([verb, "bytes.pt2", *data]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: 'bytes' takes bytes, and these are images that were normalised; give the model as it"
    )
    assert error.count("\n") == 1


def test_the_five_likeliest_of_more_than_ten_classes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("many.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n"
        "def eye(): return nn.Identity()\n"
        "def data():\n"
        "    # The right class is the likeliest, the third, the fifth, and the sixth.\n"
        "    scores = torch.arange(12.0).flip(0).repeat(4, 1)\n"
        "    rows = TensorDataset(scores, torch.tensor([0, 2, 4, 5]))\n"
        "    return rows, rows\n"
    )
    found = told(capsys, "evaluate", "many.py:eye", "--input", "3x12", "--data", "many.py:data")
    assert found["pytorch"]["metric"] == found["compiled"]["metric"] == 0.25
    assert found["pytorch"]["top5"] == found["compiled"]["top5"] == 0.75 and found["agreement"] == 1.0


def test_a_function_s_data_and_metric(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["net.py:rows", "--input", "2x6"]
    done = told(capsys, "train", *line, "--data", "data.py:named", *FEW, "-o", "run", "--workers", "1")
    assert done["classes"] == ["no", "yes"] and done["data"] == "TensorDataset"
    facts = read_program("run/model.pt2").data
    assert facts is not None and facts.colours is None
    found = told(capsys, "evaluate", "run/model.pt2", "--data", "data.py:pair")
    assert found["items"] == 16 and found["metric"] == "accuracy" and found["agreement"] == 1.0
    assert found["pytorch"]["metric"] == done["rows"][-1]["test_accuracy"]
    assert main(["train", *line, "--data", "data.py:metric", *FEW, "-o", "other"]) == 0
    assert "spread" in capsys.readouterr().out
    other = told(capsys, "evaluate", "other/model.pt2", "--data", "data.py:metric")
    assert other["metric"] == "spread" and other["agreement"] is None and other["largest_difference"] < 1e-4
    assert (
        main(["train-levels", *line, "--data", "data.py:named", *FEW, "--levels", "1", "-m", "snip", "-o", "levels"])
        == 0
    )
    assert read_program("levels/level-01/model.pt2").data == facts


def test_a_network_by_name_is_fitted_to_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(Path("photos"), 4, ("ripe", "unripe", "rotten"))
    line = ["train", "resnet20", "--width", "0.25", "--data", "photos", "--test-share", "0.25", "-o", "run"]
    assert main(line) == 2
    assert "say of which, such as --input 1x3x64x64" in capsys.readouterr().err
    data = open_data(Wanted(None, "photos", 0.25))
    loaded = load_model("resnet20", ["2x3x32x32"], dataset=data.fit(["2x3x32x32"]), width=0.25)
    assert loaded.module(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert len(data.load("train", Taker.of(loaded))) == 9  # type: ignore[arg-type]


def test_data_sets_by_name_are_found_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(Path("data"), count=8)
    line = ["train", "net.py:ten", "--input", "2x3x32x32", "--data", "data", "--preset", "smoke", *FEW]
    line += ["--set", "train_images=8", "--set", "test_images=8", "-o", "run"]
    assert told(capsys, *line)["data"] == "CIFAR-10"
    assert read_program("run/model.pt2").data is None
    found = told(capsys, "evaluate", "run/model.pt2", "--data", "data", "--test-images", "8")
    assert found["data"] == "CIFAR-10" and found["items"] == 8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["train", *IMAGES], "say --test-share 0.2"),
        (["train", *IMAGES, "--data", "nowhere"], "there is no folder 'nowhere'"),
        (["train", "net.py:three", *IMAGES[1:], "--test-share", "0.3"], "gives 3 classes, and there are images of 2: ripe"),
        (["train", "net.py:grey", "--input", "2x1x16x16", *IMAGES[3:], "--test-share", "0.3"], "takes 2x1x16x16, not images"),
        (["train", *IMAGES, "--test-share", "0.3", "--mean", "1,2"], "--mean and --std go together"),
        (["train", *IMAGES, "--test-share", "0.3", "--mean", "1,2", "--std", "1,1,1"], "is not three numbers"),
        (["train", *IMAGES, "--test-share", "0.3", "--mean", "0,0,0", "--std", "1,0,1"], "is out of range"),
        (["train", *IMAGES, "--test-share", "0.3", "--workers", "2"], "--workers has no meaning for images"),
        (["train", "net.py:net", "--test-share", "0.3"], "--test-share has no meaning without --data"),
        (["train", "net.py:rows", "--data", "data.py:pair", "--mean", "0,0,0"], "--mean has no meaning for a function"),
        (["train", "net.py:rows", "--input", "2x6", "--data", "data.py:nothing"], "'data.py' has no 'nothing'"),
        (["train", "net.py:rows", "--input", "2x6", "--data", "data.py:number"], "'data.py:number' does not load: TypeError"),
        (["train", "net.py:rows", "--input", "2x6", "--data", "nowhere.py:f"], "no such file: 'nowhere.py'"),
        (["train", "net.py:rows", "--input", "2x6", "--data", "data.py:failing"], "the disk is at home at "),
        (["train", "net.py:rows", "--input", "2x6", "--data", "data.py:wrong"], "it has to give (training, test)"),
        (["evaluate", "net.py:net", "--input", "2x3x16x16", "--data", "photos", "--test-share", "0.3"], "give --mean and"),
        (["evaluate", "net.py:net", "--on", "qemu"], "--on has no meaning for a model"),
        (["evaluate", "net.py:net", "--against", "x"], "--against has no meaning for a model"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(
    line: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(Path("photos"), 4)
    output = [] if line[0] == "evaluate" else ["-o", "run"]
    assert main([*line, *output]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not Path("run").exists()


def test_another_s_classes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(Path("others"), 4, ("ripe", "rotten"))
    loaded = load_model("net.py:net", ["2x3x16x16"])
    save_program(loaded.module, loaded.example_inputs, "model.pt2", data=DataFacts(("ripe", "unripe"), None, 0.25))
    assert main(["train", "model.pt2", "--data", "others"]) == 2
    error = capsys.readouterr().err.strip()
    assert "was trained on ripe, unripe, and these are images of ripe, rotten" in error and "\n" not in error
    write_pictures(Path("photos"), 4)
    assert main(["train", "model.pt2", "--data", "photos"]) == 2
    assert "does not say what the images" in capsys.readouterr().err
