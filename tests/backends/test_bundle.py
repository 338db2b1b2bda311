"""Bundles: out and in again, and every fault by its name."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.built import Built
from reconvene.backends.bundle import check_runtime, load_bundle, open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.targets import find_target
from reconvene.frontend.errors import InputError

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def built() -> Built:
    torch.manual_seed(0)
    return compile(nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 7, 1)).eval(), (X,))


@pytest.fixture(scope="module")
def original(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built.export(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def test_round_trip(built: Built, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert torch.equal(loaded.run(X), built.run(X))
    assert (loaded.inputs, loaded.outputs, loaded.target) == (built.inputs, built.outputs, built.target)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["format"], manifest["runtime"]) == (4, "python")
    small = {place["file"] for place in manifest["weights"]}
    assert len(small) == 1 and set(manifest["files"]) == {"README.md", "model.so", *small}
    assert loaded.memory == built.memory == open_bundle(bundle).memory
    assert {"apache-tvm", "torch"} <= set(manifest["versions"])


def test_a_model_goes_with_its_last_reference(bundle: Path) -> None:
    def mapped() -> bool:
        return str(bundle / "model.so") in Path("/proc/self/maps").read_text()

    loaded = load_bundle(bundle)
    answer = loaded.run(X)
    assert mapped()
    del loaded
    assert not mapped()
    assert bool(answer.isfinite().all())


def test_a_shell_can_check_the_sums(bundle: Path) -> None:
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=bundle, capture_output=True, check=False).returncode == 0
    spoil(bundle)
    assert subprocess.run(check, cwd=bundle, capture_output=True, check=False).returncode != 0


def test_a_certificate_travels_along(built: Built, tmp_path: Path) -> None:
    built.export(tmp_path / "bundle", certificate={"largest_relative": 1e-16})
    assert open_bundle(tmp_path / "bundle").certificate == {"largest_relative": 1e-16}


def test_a_full_disk_is_seen_before_llvm_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uncached = compile(nn.Conv2d(3, 10, 3).eval(), (X,), cache=False)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
    with pytest.raises(InputError, match=r"no space left in .* need 16 MiB and there are 5"):
        uncached.export(tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("rpi4", {"runtime": "fast"}, "unknown runtime 'fast'; choose from static, wheel, none, python"),
        ("rpi4", {"runtime": "static", "link": False}, "'static' cannot be left unlinked"),
        ("cortex-m7", {"runtime": "static"}, "no operating system to run TVM's runtime on; use --runtime none"),
    ],
)
def test_runtimes_that_cannot_be(target: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_runtime(find_target(target), options["runtime"], options.get("link", True))


def test_export_says_nothing(built: Built, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    built.export(tmp_path / "bundle")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_export_replaces_a_bundle_only(built: Built, bundle: Path, tmp_path: Path) -> None:
    built.export(bundle)
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("keep me")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        built.export(other)
    with pytest.raises(InputError, match="cannot write"):
        built.export(tmp_path / "missing" / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "other"]


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def spoil(bundle: Path) -> None:
    data = bytearray((bundle / "model.so").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.so").write_bytes(data)


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda b: (b / "manifest.json").unlink(), "has no manifest.json"),
    (lambda b: (b / "manifest.json").write_text("{"), "cannot read manifest.json"),
    (lambda b: (b / "manifest.json").write_text("[]"), "has format None"),
    (lambda b: edit(b, lambda m: m.update(format=99)), "has format 99, this version reads 4"),
    (lambda b: edit(b, lambda m: m.update(runtime="own")), "is not usable .runtime 'own'"),
    (lambda b: edit(b, lambda m: m.pop("inputs")), "is not usable"),
    (lambda b: (b / "model.so").unlink(), "lacks 'model.so'"),
    (lambda b: (b / "model.so").write_bytes((b / "model.so").read_bytes()[:-7]), "bytes instead of"),
    (spoil, "does not have its checksum"),
    (lambda b: edit(b, lambda m: m["files"].update({"../x": {"bytes": 0, "sha256": ""}})), "outside itself"),
    (lambda b: edit(b, lambda m: m["weights"][0].update(file="other.bin")), "is not usable .weights in a file without"),
    (lambda b: edit(b, lambda m: m["weights"][0].update(offset=1 << 30)), "too short for its weights"),
    (lambda b: edit(b, lambda m: m["arena"].update(bytes=8)), "is not usable .a value outside the arena"),
    (lambda b: edit(b, lambda m: m["versions"].update({"apache-tvm": "0.1"})), "compiled with TVM 0.1"),
    (lambda b: edit(b, lambda m: m["target"].update(triple="riscv64-linux-gnu")), "cannot run here"),
    (
        lambda b: edit(b, lambda m: m["target"].update(triple="armv7l-linux")),
        "as its manifest says",
    ),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_faults_are_refused_by_name(bundle: Path, fault: Callable[[Path], object], message: str) -> None:
    fault(bundle)
    with pytest.raises(InputError, match=message) as caught:
        load_bundle(bundle)
    assert str(bundle) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no bundle"):
        load_bundle(tmp_path / "none")


def test_objects_are_not_loaded(built: Built, tmp_path: Path) -> None:
    built.export(tmp_path / "bundle", link=False)
    with pytest.raises(InputError, match="holds objects that are not linked"):
        load_bundle(tmp_path / "bundle")
