"""What is wrong of a command line is told before torch and TVM are imported, and what is right is left to the verbs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconvene.backends.machines import host
from reconvene.driver.cli.early import check_early
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.networks.names import NAMES, SHORT
from reconvene.frontend.networks.papers import NETWORKS, SHORT_NAMES

LINES = (
    ["--version"],
    ["targets"],
    ["cache"],
    ["prune", "nofile.pt2"],
    ["prune", "resnet21-cifar"],
    ["capture", "nofile.py:net", "--input", "1x3x8x8"],
    ["compile", "resnet20-cifar", "--target", "rpi44"],
    ["compile", "resnet20-cifar", "--target", "my.toml"],
    ["prune", "resnet20-cifar", "--sparsity", "1.5"],
    ["prune", "resnet20-cifar", "--weights", "no.pth"],
    ["compact", "resnet20-cifar", "--masks", "no.safetensors"],
    ["capture", "resnet20-cifar", "-o", "nowhere/net.pt2"],
    ["run", "nobundle", "x.npy"],
    ["run", "resnet20-cifar", "image=x.npy"],
    ["estimate", "nobundle"],
)


def test_none_of_these_lines_imports_torch_or_tvm(tmp_path: Path) -> None:
    code = f"""
import json, sys
from importlib.metadata import version
from reconvene.backends.machines import host
names = "name description triple cpu lanes registers cores channel_multiple l1_bytes l2_bytes".split()
here = dict.fromkeys(names[:4], "host") | dict.fromkeys(names[4:], 8)
host.host_fields = lambda: here | {{"features": (), "float_abi": None, "link": ("g++",)}}  # TVM tells these, once.
from reconvene.driver.cli.command_line import main
ends = [main(line) for line in {LINES!r}]
print(json.dumps([ends, sorted({{"torch", "tvm", "numpy"}} & set(sys.modules))]))
"""
    environment = {"RECONVENE_CACHE": str(tmp_path / "cache"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == f"[[{', '.join(['0'] * 3 + ['2'] * 12)}], []]", done.stderr
    told = done.stderr.splitlines()
    assert len(told) == 12 and all(line.startswith("error: ") for line in told)
    assert told[0] == "error: no such file: 'nofile.pt2'; give the path of a .pt2 file written by torch.export.save"
    assert told[3] == "error: unknown target 'rpi44'; did you mean rpi4 or rpi5 or rpi3?"
    assert told[-2] == "error: no such file: 'x.npy'"


def test_names_of_networks_are_those_there_are() -> None:
    assert tuple(NETWORKS) == NAMES and tuple(SHORT_NAMES) == SHORT


def test_what_may_be_right_is_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    for file in ("net.pt2", "a=b.npy", "x.npy", "my.toml"):
        (tmp_path / file).touch()
    check_early("run", {"model": "bundle", "files": ["a=b.npy", "x.npy", "image=x.npy"], "target": ["host", "my.toml"]})
    check_early("train", {"model": "vgg16", "dataset": None, "teacher": "net.pt2", "output": Path("new/run")})
    check_early("prune", {"model": "torch.nn:Identity", "sparsity": 0.0, "report": Path("r.html"), "target": None})
    with pytest.raises(InputError, match="no model 'vgg16'"):
        check_early("capture", {"model": "vgg16"})


def test_a_host_that_was_found_once_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path))
    real, calls = host.host_fields(), []
    monkeypatch.setattr(host, "host_fields", lambda: calls.append(1) or real)
    assert host.remembered_host() == host.remembered_host() == real and len(calls) == 1
    (kept,) = tmp_path.iterdir()
    for broken in ("{", "[]", kept.read_text().replace('"cores": ', '"cores": "x", "c": ')):
        kept.write_text(broken)
        assert host.remembered_host() == real
    assert len(calls) == 4
