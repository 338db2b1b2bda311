"""The command line end to end on small networks: results, files, and one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reconvene.driver.cli import command_line
from reconvene.driver.cli.command_line import main
from reconvene.driver.cli.renamed import RENAMED
from reconvene.driver.verbs import capture, compact, prune, targets
from reconvene.frontend.base.errors import CheckError
from reconvene.frontend.program_file import load_program

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.b = nn.Conv2d(16, 8, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.bn(self.a(x)))
        return self.fc(torch.relu(self.b(x)).mean((2, 3)))

def net():
    torch.manual_seed(3)
    return Net().eval()

def spoilt():
    model = net()
    with torch.no_grad():
        model.a.weight[0, 0, 0, 0] = float("nan")
    return model

def loud():
    print("this is not JSON")
    return net()
"""
MODEL = ["net.py:net", "--input", "1x3x8x8"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Runs with --json and gives what came out."""
    code = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Runs, expects exit code `code`, one line on stderr and nothing on stdout; gives the line."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    return err.strip()


def test_capture_writes_beside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = answered(capsys, "capture", *MODEL)
    assert data["files"] == {"model": "net.pt2"} and data["inputs"] == [[1, 3, 8, 8]]
    module, inputs = load_program(folder / "net.pt2")
    assert inputs is not None and module(*inputs).shape == (1, 5)


def test_prune_writes_model_plan_and_reports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", *MODEL]) == 0
    outputs = ["-o", "small.pt2", "--report", "report.html", "--plan", "plan.json"]
    capsys.readouterr()
    data = answered(capsys, "prune", "net.pt2", "--sparsity", "0.5", *outputs)
    report = data["report"]
    assert report["title"] == "net"
    assert report["after"]["parameters"] < 0.6 * report["before"]["parameters"]
    assert {layer["name"]: layer["channels_after"] for layer in report["layers"]}["a"] == 8
    assert report["certificate"]["max_relative"] <= report["certificate"]["tolerance"]
    assert data["files"] == {"model": "small.pt2", "plan": "plan.json", "report": "report.html"}
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    small, inputs = load_program(folder / "small.pt2")
    assert inputs is not None and small(*inputs).shape == (1, 5)
    assert sum(value.numel() for value in small.parameters()) == report["after"]["parameters"]


def test_prune_options_reach_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--method", "random", "--seed", "4", "--channel-multiple", "8", "--ignore", "b.*"]
    report = answered(capsys, "prune", *MODEL, "--sparsity", "0.4", *options)["report"]
    widths = {layer["name"]: (layer["channels_before"], layer["channels_after"]) for layer in report["layers"]}
    assert widths["a"][1] % 8 == 0 and widths["b"] == (8, 8)
    assert report["options"]["seed"] == 4 and report["options"]["ignore"] == ["b.*"]


def test_compact_removes_what_masks_zero(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = torch.ones(16, 3, 3, 3, dtype=torch.bool)
    mask[4:8] = False
    save_file({"a.weight": mask}, folder / "masks.safetensors")
    report = answered(capsys, "compact", *MODEL, "--masks", "masks.safetensors")["report"]
    widths = {layer["name"]: layer["channels_after"] for layer in report["layers"]}
    # A carrier of the constants that the four dead channels leave may stay.
    assert widths["a"] in (12, 13)
    assert (folder / "net-compact.pt2").is_file()


def test_explain_writes_every_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = answered(capsys, "explain", *MODEL, "--html", "e.html", "--dot", "e.dot", "--graphml", "e.graphml")
    assert any(group["prunable"] and group["channels"] == 16 for group in data["groups"])
    assert all((folder / name).stat().st_size > 100 for name in ("e.html", "e.dot", "e.graphml"))
    assert main(["explain", *MODEL]) == 0
    assert "channels" in capsys.readouterr().out


def test_a_person_gets_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", *MODEL, "--report", "report.json"]) == 0
    out, err = capsys.readouterr()
    assert "parameters" in out and "report report.json" in out and err == ""


def test_targets_lists_presets(capsys: pytest.CaptureFixture[str]) -> None:
    names = [entry["name"] for entry in answered(capsys, "targets")["targets"]]
    assert "host" in names
    assert main(["targets"]) == 0
    assert "host" in capsys.readouterr().out


def test_compile_run_and_bench(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = answered(capsys, "compile", *MODEL, "--threads", "1", "--no-cache", "-o", "bundle")
    bundle, memory = compiled["files"]["bundle"], compiled["memory"]
    assert compiled["tuned"] == []
    assert 0 < memory["live_bytes"] <= memory["arena_bytes"] and memory["weights_bytes"] > 0
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)
    np.save(folder / "image.npy", image)
    ran = answered(capsys, "run", bundle, "--data", "image.npy", "-o", "out.npz")
    assert ran["outputs"][0]["shape"] == [1, 5]
    assert main(["capture", *MODEL]) == 0
    module, _ = load_program(folder / "net.pt2")
    expected = module(torch.from_numpy(image)).detach().numpy()
    np.testing.assert_allclose(np.load(folder / "out.npz")["output_0"], expected, rtol=1e-4, atol=1e-5)
    capsys.readouterr()
    rows = answered(
        capsys,
        "bench",
        "net.pt2",
        "--against",
        "net.pt2",
        "--repeat",
        "3",
        "--engine",
        "reconvene",
        "--engine",
        "eager",
    )["latency"]
    assert [(row["variant"], row["engine"]) for row in rows] == [
        (variant, engine) for engine in ("reconvene", "eager") for variant in ("dense", "compacted")
    ]
    assert all(row["median_ms"] > 0 and row["threads"] == 1 for row in rows)


def test_a_bundle_can_be_left_unlinked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answered(capsys, "compile", *MODEL, "--target", "rpi4", "--no-link")
    assert (folder / "net-rpi4" / "manifest.json").is_file()
    assert "rpi4" in refused(capsys, "bench", *MODEL, "--target", "rpi4", "--engine", "reconvene")


def test_what_a_model_prints_does_not_spoil_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", "net.py:loud", "--input", "1x3x8x8", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"] == "loud" and "this is not JSON" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compact"], "Missing argument 'MODEL'; see"),
        (["prune", "missing.pt2"], "missing.pt2"),
        (["prune", "net.py"], "not a .pt2"),
        (["prune", "alexnet"], "vgg16-cifar"),
        (["prune", "net.py:net"], "--input"),
        (["prune", *MODEL, "--sparsity", "1.5"], "sparsity 1.5"),
        (["prune", *MODEL, "--sparsity", "-0.1"], "sparsity -0.1"),
        (["prune", *MODEL, "--sparsity", "nan"], "sparsity nan"),
        (["prune", *MODEL, "--sparsity", "half"], "--sparsity"),
        (["prune", *MODEL, "--method", "astrology"], "astrology"),
        (["prune", *MODEL, "--scope", "galaxy"], "galaxy"),
        (["prune", *MODEL, "--target", "toaster"], "toaster"),
        (["prune", *MODEL, "-o", "none/small.pt2"], "none"),
        (["prune", *MODEL, "-o", "/proc/small.pt2"], "/proc/small.pt2"),
        (["prune", *MODEL, "--report", "report.pdf"], "report.pdf"),
        (["prune", *MODEL, "--report", "none/report.html"], "none/report.html"),
        (["prune", "net.py:spoilt", "--input", "1x3x8x8"], "a.weight"),
        (["prune", "net.py:net", "--input", "1x4x8x8"], "1x4x8x8"),
        (["prune", "net.py:net", "--input", "1xx8"], "1xx8"),
        (["compact", *MODEL, "--masks", "missing.safetensors"], "missing.safetensors"),
        (["compact", *MODEL, "--masks", "net.py"], "net.py"),
        (["compact", *MODEL, "--apply", "missing.json"], "missing.json"),
        (["compact", *MODEL, "--apply", "net.py"], "net.py"),
        (["compact", *MODEL, "--masks", "wrong-name.safetensors"], "c.weight"),
        (["compact", *MODEL, "--masks", "wrong-shape.safetensors"], "a.weight"),
        (["compact", *MODEL, "--masks", "all.safetensors"], "a"),
        (["compile", *MODEL, "--target", "toaster"], "toaster"),
        (["compile", *MODEL, "-o", "/proc/bundle"], "/proc/bundle"),
        (["compile", *MODEL, "--target", "rpi4", "--tune", "4"], "'rpi4'"),
        (["run", "missing"], "missing"),
        (["run", ".", "--data", "net.py"], "net.py"),
        (["run", "."], "."),
        (["cache", "--clear", "steam"], "no kind 'steam'; choose from libraries"),
        (["bench", *MODEL, "--engine", "steam"], "steam"),
        (["bench", *MODEL, "--repeat", "0"], "--repeat"),
        (["explain", *MODEL, "--html", "none/e.html"], "none/e.html"),
        (["fly"], "fly"),
        (["prune"], "MODEL"),
        (["prune", *MODEL, "-m", "iterative"], "the method iterative is none that removes channels"),
        (["prune", *MODEL, "-m", "reconvene", "--scope", "global"], "'allocation'"),
        (["prune", *MODEL, "-m", "reconvene", "--set", "score=synflow", "--synthetic"], "no meaning for synflow"),
        (["prune", *MODEL, "--latency", "0.5"], "a latency goal needs a target"),
        (["prune", *MODEL, "--target", "rpi4", "--latency", "1.5"], "latency 1.5 is outside"),
        (["prune", *MODEL, "--nonsense"], "--nonsense"),
        (["demo", "--out", "net.py"], "net.py"),
        (["explain", *MODEL, "--html", "e.html", "--dot", "./e.html"], "e.html"),
        (["capture", *MODEL, "-o", "m.pt2", "--onnx", "m.pt2"], "m.pt2"),
        (["prune", *MODEL, "--report", "r.json", "--plan", "r.json"], "r.json"),
        (["explain", "net.py", "--html", "net.py"], "is the model itself"),
        (["bench", "net.py:net", "--input", "99999x99999x99999"], "16 is the most"),
        (["bench", *MODEL, "--batch", "65536", "--input", "1x3x999x999"], "16 is the most"),
        (["explain", "net.py:net", "--input", "1x3x8x8,bits8"], "bits8"),
        (["explain", "net.py:net", "--input", "1x3x8x8,quint8"], "quint8"),
        (["explain", ":net", "--input", "1x3x8x8"], "':net' names no callable"),
        (["explain", "net.py:", "--input", "1x3x8x8"], "'net.py:' names no callable"),
        (["train", *MODEL, "--set", "epochs=inf"], "'inf' is no value of epochs"),
        (["train", "vgg16-cifar", "--width", "inf"], "--width inf"),
        (["serve", ".", "--policy", "queue", "--dwell", "nan"], "--dwell nan"),
        (["serve", ".", "--state", "."], "it is a folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"c.weight": torch.ones(1, dtype=torch.bool)}, folder / "wrong-name.safetensors")
    save_file({"a.weight": torch.ones(3, dtype=torch.bool)}, folder / "wrong-shape.safetensors")
    save_file({"a.weight": torch.zeros(16, 3, 3, 3, dtype=torch.bool)}, folder / "all.safetensors")
    before = sorted(path for path in folder.rglob("*") if "__pycache__" not in str(path))
    line = refused(capsys, *arguments)
    assert line.startswith("error: ") and message in line
    assert sorted(path for path in folder.rglob("*") if "__pycache__" not in str(path)) == before


NEEDED = {
    "prune": [],
    "targets": [],
    "cache": [],
    "demo": [],
    "sign": [],
    "board-server": ["-t", "rpi4", "-o", "server"],
}
"""What a verb needs beside one argument."""


def counts() -> list[tuple[str, str]]:
    """The verbs, and their options that take whole numbers."""
    found = []
    for command in command_line.app.registered_commands:
        assert command.callback is not None
        verb = command.name or command.callback.__name__
        for name, kind in get_type_hints(command.callback, include_extras=True).items():
            if name == "return" or int not in (kind.__origin__, *get_args(kind.__origin__)):
                continue
            spelled = [word for word in kind.__metadata__[0].param_decls or () if word.startswith("--")]
            found.append((verb, spelled[0] if spelled else f"--{name.replace('_', '-')}"))
    return found


def test_counts_beyond_all_use_are_refused_for_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever an option counts, there is a number above which nobody would live to see the answer."""
    assert len(counts()) > 30
    for verb, option in counts():
        for number in (10**12, -1):
            assert option in refused(capsys, verb, *NEEDED.get(verb, ["x"]), option, str(number))


def test_outputs_are_checked_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb, file in (("prune", prune), ("compact", compact), ("capture", capture)):
        monkeypatch.setattr(file, "load_model", None)
        assert "none" in refused(capsys, verb, *MODEL, "-o", "none/small.pt2")


def test_a_plan_is_done_again_to_a_fresh_copy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = answered(capsys, "prune", *MODEL, "-o", "small.pt2", "--plan", "plan.json")
    again = answered(capsys, "compact", *MODEL, "--apply", "plan.json", "-o", "again.pt2")
    assert again["report"]["after"] == pruned["report"]["after"]
    first, second = (dict(load_program(folder / name)[0].named_parameters()) for name in ("small.pt2", "again.pt2"))
    assert first.keys() == second.keys()
    assert all(first[name].shape == second[name].shape for name in first)


def raising(error: BaseException) -> Any:
    def verb(*_: object) -> None:
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CheckError("the graphs differ\nat relu"), 1, "error: the graphs differ at relu"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (KeyError("x"), 70, "internal error: KeyError: 'x'; please report it, --debug shows the traceback"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "run", raising(error))
    assert refused(capsys, "targets", code=code) == line


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "run", raising(KeyError("x")))
    assert main(["targets", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(folder: Path) -> None:
    code = "import sys; from reconvene.driver.cli.command_line import main; sys.exit(main(['targets', '--json']))"
    line = f'{sys.executable} -c "{code}" | head -c 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_names_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in ("capture", "prune", "compact", "compile", "run", "bench", "explain", "targets"))
    assert command_line.app.info.name == "reconvene"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_names_of_verbs_work_and_tell_the_new(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([new, "--help"]) == 0
    told = capsys.readouterr()
    assert main([old, "--help"]) == 0
    also = capsys.readouterr()
    assert (told.err, also.err) == ("", f"note: 'reconvene {old}' is now called 'reconvene {new}'\n")
    assert also.out == told.out and new in told.out
    assert main([old, *NEEDED.get(new, ["x"]), "--no-such-option"]) == 2
    assert "--no-such-option" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert f"\n  {old} " not in capsys.readouterr().out
