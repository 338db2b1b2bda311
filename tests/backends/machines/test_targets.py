"""Presets, the host, users' own files, and objects for other machines."""

from __future__ import annotations

import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.machines.targets import Target, find_target, targets
from reconvene.frontend.base.errors import InputError

OWN = """
description = "A board of mine"
triple = "aarch64-linux-gnu"
cpu = "cortex-a55"
lanes = 4
registers = 32
cores = 2
channel_multiple = 4
l1_bytes = 32768
l2_bytes = 65536
"""


def test_presets_are_complete() -> None:
    names = {target.name for target in targets()}
    assert {"host", "rpi2", "rpi3", "rpi4", "rpi5", "rpi-zero2", "jetson-nano", "jetson-orin"} <= names
    assert {"graviton2", "graviton3", "generic-aarch64", "generic-armv7"} <= names
    assert len(names) == len(targets())


def test_the_host_is_described() -> None:
    host = find_target("host")
    assert host.runs_here
    assert host.lanes in (4, 8, 16)
    assert host.cores >= 1


def test_armv7_says_hard_floats() -> None:
    assert find_target("rpi2").llvm()["mfloat-abi"] == "hard"
    assert "mfloat-abi" not in find_target("rpi4").llvm()


def test_a_target_is_its_own_name() -> None:
    target = find_target("rpi4")
    assert find_target(target) is target
    assert not target.runs_here or find_target("host").architecture == "aarch64"


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"unknown target 'rpi44'; did you mean .*rpi4"):
        find_target("rpi44")
    with pytest.raises(InputError, match=r"unknown target 'zzz'; choose from host, "):
        find_target("zzz")


def test_own_file(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(OWN)
    target = find_target(str(path))
    assert (target.name, target.cpu, target.features, target.link) == ("board", "cortex-a55", (), ())
    assert asdict(target)["l2_bytes"] == 65536


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.replace("lanes = 4", ""), "lacks 'lanes'"),
        (OWN + "speed = 3", "unknown field 'speed'"),
        (OWN.replace("lanes = 4", "lanes = 0"), "'lanes' must be a positive whole number up to 64, got 0"),
        (OWN.replace("lanes = 4", "lanes = 128"), "'lanes' must be a positive whole number up to 64, got 128"),
        (OWN + "memory_mb_s = " + "9" * 5000, "is not TOML: Exceeds"),
        (OWN + "l1_ways = 1000000000", "'l1_ways' must be a positive whole number up to 1024"),
        (OWN + f"last_cache_bytes = {1 << 70}", "up to 1099511627776, got 1180591620717411303424"),
        (OWN + 'name = "../../x"', "'name' must be a name that a file can have, got '../../x'"),
        (OWN + 'name = "\\u001b[2J"', "must be a name that a file can have"),
        (OWN + 'name = ".hidden"', "must be a name that a file can have"),
        (OWN + 'name = "host"', "'host' is the name of this machine"),
        (OWN + 'features = ["neon"]', r"'features' must be a list of words such as \"\+neon\", got 'neon'"),
        (OWN + 'features = ["+a\\u0000b"]', "must be a list of words"),
        (OWN + "features = [1]", "must be a list of words"),
        (
            OWN.replace("cortex-a55", "cortex-a555"),
            "LLVM knows no cpu 'cortex-a555' of aarch64-linux-gnu; did you mean .*cortex-a55",
        ),
        (OWN.replace("cortex-a55", "?" * 5000), "LLVM knows no cpu .*generic is the least"),
        *[
            (OWN.replace("aarch64-linux-gnu", triple), "code is made for x86_64, aarch64 and arm")
            for triple in (
                "",
                "aarch64",
                "wasm32-unknown-unknown",
                "x86_64-pc-windows-msvc",
                "aarch64-linux-gnu\\n-x",
                "a" * 5000,
            )
        ],
        ("x = " + "[" * 5000, "is nested too deeply"),
        (OWN + "# " + "x" * 20000, "a target takes 16384 at most"),
        (OWN.replace("lanes = 4", "lanes = 6"), "lanes a power of two"),
        (OWN.replace('"cortex-a55"', "55"), "'cpu' must be a text in quotes, got 55"),
        (OWN + 'link = "g++"', r"'link' must be a list of texts, got 'g\+\+'"),
        (OWN + 'float_abi = "firm"', "'float_abi' must be hard or soft, or left out, got 'firm'"),
        ("[mine]\n" + OWN, "has an unknown field 'mine'"),
        ("lanes = ", "is not TOML"),
    ],
)
def test_faults_in_own_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "board.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        find_target(str(path))


def test_missing_file() -> None:
    with pytest.raises(InputError, match=r"cannot read target file 'nowhere\.toml'"):
        find_target("nowhere.toml")


@pytest.mark.parametrize(("name", "machine"), [("rpi4", 183), ("rpi2", 40)])
def test_objects_for_other_machines(tmp_path: Path, name: str, machine: int) -> None:
    """Cross-compiled objects carry the target's ELF machine number, and do not run here."""
    module = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(10, 7, 1)).eval()
    x = torch.randn(1, 3, 8, 8)
    built = compile(module, (x,), name)
    if not built.target.runs_here:
        with pytest.raises(InputError, match=f"compiled for '{name}'"):
            built.run(x)
    built.export(tmp_path / "bundle", link=False)
    with tarfile.open(tmp_path / "bundle" / "model.tar") as archive:
        headers = [archive.extractfile(member).read(20) for member in archive.getmembers()]  # type: ignore[union-attr]
    objects = [header for header in headers if header[:4] == b"\x7fELF"]
    assert objects
    assert {int.from_bytes(header[18:20], "little") for header in objects} == {machine}


def test_narrow_vectors_compute_the_same() -> None:
    """The host as if it had 4 lanes and 16 registers runs what a small board would."""
    host = find_target("host")
    narrow = Target(**{**asdict(host), "lanes": 4, "registers": 16, "name": "narrow"})
    module = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 9, 3, 2, groups=1)).eval()
    x = torch.randn(1, 3, 9, 9)
    torch.testing.assert_close(compile(module, (x,), narrow).run(x), module(x).detach(), rtol=0, atol=1e-5)
