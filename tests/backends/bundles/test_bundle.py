"""Bundles: out and in again, and every fault by its name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.built import Built, load_bundle
from reconvene.backends.bundles.binding import note_of
from reconvene.backends.bundles.listed_files import read_listed
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.bundles.write import check_runtime
from reconvene.backends.compile import compile
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import sha256
from tests.support.bundles import edit

PAPERS = {"LICENSE", "NOTICE", "sbom.cdx.json"}
"""What says whose code is in a bundle."""

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
    assert (manifest["format"], manifest["runtime"]) == (6, "python")
    small = {place["file"] for place in manifest["weights"]}
    assert len(small) == 1 and set(manifest["files"]) == {"README.md", "model.so", *PAPERS, *small}
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


def test_what_was_loaded_runs_and_is_not_exported(bundle: Path, tmp_path: Path) -> None:
    loaded = load_bundle(bundle)
    assert (loaded.foreign, loaded.tuned) == ((), ())
    for runtime in ("python", "none", "static"):
        with pytest.raises(InputError, match="a model loaded from a bundle has nothing to link or to export"):
            loaded.export(tmp_path / "copy", runtime=runtime)  # type: ignore[arg-type]
    assert not (tmp_path / "copy").exists()


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


def spoil(bundle: Path) -> None:
    data = bytearray((bundle / "model.so").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.so").write_bytes(data)


def first(values: list, **changes: object) -> None:
    values[0].update(changes)


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda b: (b / "manifest.json").unlink(), "has no manifest.json"),
    (lambda b: (b / "manifest.json").write_text("{"), "cannot read manifest.json"),
    (lambda b: (b / "manifest.json").write_text("[" * 100_000), "cannot read manifest.json"),
    (lambda b: (b / "manifest.json").write_text('{"format": 5, "format": 5}'), "says 'format' twice"),
    (lambda b: (b / "manifest.json").write_text('{"format": NaN}'), "NaN is no number of JSON"),
    (lambda b: (b / "manifest.json").write_text("[]"), "has format None"),
    (lambda b: (b / "SHA256SUMS").unlink(), "has no SHA256SUMS"),
    (lambda b: (b / "SHA256SUMS").write_text("sums\n"), "cannot read SHA256SUMS .*line 1 is no checksum"),
    (lambda b: (b / "SHA256SUMS").write_text(""), "'manifest.json' .* does not have its checksum"),
    (lambda b: edit(b, lambda m: m.update(threads=2), "nothing"), "'manifest.json' .* does not have its checksum"),
    (lambda b: (b / "model.so").unlink(), "lacks 'model.so'"),
    (lambda b: (b / "model.so").write_bytes((b / "model.so").read_bytes()[:-7]), "bytes instead of"),
    (spoil, "does not have its checksum"),
    (lambda b: (b / "libm.so.6").write_bytes(b""), "the library 'libm.so.6', which it does not list"),
    (
        lambda b: (b / "glibc-hwcaps/x86-64-v2").mkdir(parents=True),
        "holds a folder 'glibc-hwcaps', and a bundle has none",
    ),
    (lambda b: (b / "tls").symlink_to("/tmp"), "holds a folder 'tls', and a bundle has none"),
    (lambda b: swap(b, lambda path: os.mkfifo(path)), "cannot read 'model.so'.*no regular file"),
    (lambda b: swap(b, lambda path: path.symlink_to("/dev/zero")), "cannot read 'model.so'.*leads out of"),
    (lambda b: swap(b, lambda path: path.symlink_to(b.parent.parent)), "cannot read 'model.so'.*leads out of"),
    (lambda b: edit(b, lambda m: m.update(threads=2), "sums"), "model.so .* was made for another manifest"),
    (lambda b: edit(b, lambda m: m["weights"].reverse(), "sums"), "was made for another manifest"),
    (lambda b: edit(b, lambda m: first(m["inputs"], name="image"), "sums"), "was made for another manifest"),
]


def swap(bundle: Path, make: Callable[[Path], object]) -> None:
    (bundle / "model.so").unlink()
    make(bundle / "model.so")


EDITS: list[tuple[Callable[[dict], object], str]] = [
    (lambda m: m.update(format=99), "has format 99, this version reads 6"),
    (lambda m: m.update(format=True), "has format True, this version reads 6"),
    (lambda m: m.update(runtime="own"), "runtime 'own' is none of static"),
    (lambda m: m.update(runtime="static"), "no 'run', which the runtime 'static' has"),
    (lambda m: m.update(extra=1), "unknown field 'extra'"),
    (lambda m: m.pop("inputs"), "it lacks 'inputs'"),
    (lambda m: m.update(inputs={}), "is no JSON array"),
    (lambda m: m.update(threads=0), "no threads"),
    (lambda m: m.update(threads="1"), "threads '1' is no whole number"),
    (lambda m: m.update(pipeline="own"), "pipeline 'own' is none of reconvene"),
    (lambda m: m.update(glibc="2.x"), "glibc '2.x' is no version"),
    (lambda m: m.update(certificate=[]), "is no JSON object"),
    (lambda m: m.update(data={"classes": ["a", "b"]}), "it lacks"),
    (
        lambda m: m.update(data={"classes": ["a", "a"], "mean": None, "std": None, "test_share": 0}),
        "of different names",
    ),
    (lambda m: m.update(versions={"torch": 2}), "a version 2 is no text"),
    (lambda m: m["files"].update({"../x": {"bytes": 0, "sha256": "0" * 64}}), "no checksum of a file"),
    (lambda m: m["files"].update({".hidden": {"bytes": 0, "sha256": "0" * 64}}), "'.hidden' is no name of a file"),
    (lambda m: m["files"].update({"new": {"bytes": 0, "sha256": "x"}}), "no checksum of a file"),
    (lambda m: m["files"]["README.md"].update(bytes=-1), "bytes of a file -1 is no whole number"),
    (lambda m: m["files"]["README.md"].update(mode=7), "unknown field 'mode'"),
    (lambda m: first(m["inputs"], dtype="float31"), "dtype 'float31' is none of float64"),
    (lambda m: first(m["inputs"], shape=[1, -3, 8, 8]), "extent -3 is no whole number"),
    (lambda m: first(m["inputs"], shape=[True]), "extent True is no whole number"),
    (lambda m: first(m["inputs"], shape=[1 << 32, 1 << 32]), "is of no tensor"),
    (lambda m: first(m["inputs"], name="other"), "a signature of another model"),
    (lambda m: m["outputs"].append(m["outputs"][0]), "two tensors of one name"),
    (lambda m: m["signature"].update(positional=9), "positional 9 is above 1"),
    (lambda m: m["signature"].update(result={"kind": "list", "entries": []}), "a signature of another model"),
    (lambda m: m["signature"].update(result={"kind": "tensor", "value": 1}), "unknown field 'value'"),
    (lambda m: m["signature"].update(result={"kind": "value", "float": "1"}), "'1' is none of nan"),
    (lambda m: m["signature"].update(result={"kind": "fields", "name": "a b", "entries": []}), "is not usable"),
    (lambda m: first(m["weights"], file="other.bin"), "weights in a file without a checksum"),
    (lambda m: first(m["weights"], file="README.md"), "weights in a file without a checksum"),
    (lambda m: first(m["weights"], offset=1 << 30), "too short for its weights"),
    (lambda m: first(m["weights"], offset=4), "at 4, which is no multiple of 64"),
    (lambda m: first(m["weights"], offset=64), "weights that overlap|too short"),
    (lambda m: first(m["weights"], shape=[1]), "memory for another plan"),
    (lambda m: m.update(weights=[]), "files of weights that none lies in"),
    (lambda m: m["arena"].update(bytes=8), "a value outside the arena|memory for another plan"),
    (lambda m: m["arena"].update(alignment=48), "alignment 48 is no power of two"),
    (lambda m: m.update(arena=None), "no plan of the memory"),
    (lambda m: m["memory"].update(arena_bytes=8), "memory for another plan"),
    (lambda m: m["memory"].update(state_bytes=8), "memory for another plan"),
    (lambda m: m["state"].append({"name": "s", "shape": [1], "dtype": "int8", "initial": "README.md"}), "first values"),
    (lambda m: m["target"].update(lanes=3), "lanes a power of two"),
    (lambda m: m["target"].update(features=[1]), "'features' must be a list"),
    (lambda m: m["target"].pop("name"), "target 'None' in it lacks 'name'"),
    (lambda m: m["target"].update(speed=1), "an unknown field 'speed'"),
    (lambda m: m["versions"].update({"apache-tvm": "0.1"}), "compiled with TVM 0.1"),
    (lambda m: m["target"].update(triple="riscv64-linux-gnu"), "not for the triple 'riscv64-linux-gnu'"),
    (lambda m: m["target"].update(lanes=64), "cannot run here"),
    (lambda m: m["target"].update(triple="armv7l-linux-gnueabihf"), "as its manifest says"),
]


@pytest.mark.parametrize(("change", "message"), EDITS, ids=[message for _, message in EDITS])
def test_what_a_manifest_must_not_say(bundle: Path, change: Callable[[dict], object], message: str) -> None:
    """Even where checksums, and what the code says, were made anew."""
    edit(bundle, change)
    with pytest.raises(InputError, match=message) as caught:
        load_bundle(bundle)
    assert str(bundle) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_code_without_a_note_is_of_no_manifest(bundle: Path) -> None:
    contents = (bundle / "model.so").read_bytes().replace(b".note.reconvene", b".note.reconvens")
    (bundle / "model.so").write_bytes(contents)
    assert note_of(bundle / "model.so") is None
    sums = {"bytes": len(contents), "sha256": sha256(bundle / "model.so")}
    edit(bundle, lambda m: m["files"].update({"model.so": sums}), "sums")
    with pytest.raises(InputError, match="was made for another manifest"):
        load_bundle(bundle)


def test_certificates_are_of_numbers_that_json_has(built: Built, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written as JSON"):
        built.export(tmp_path / "bundle", certificate={"max_relative": float("nan")})
    assert not list(tmp_path.iterdir())


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


def test_what_goes_to_a_board_is_what_was_opened(bundle: Path) -> None:
    """And not what lies there by then."""
    listed = open_bundle(bundle).files["model.so"]
    contents = (bundle / "model.so").read_bytes()
    assert read_listed(bundle, "model.so", listed) == contents
    (bundle / "model.so").unlink()
    changes: list[tuple[Callable[[Path], object], str]] = [
        (lambda path: path.write_bytes(contents[::-1]), "does not have its checksum"),
        (lambda path: os.mkfifo(path), "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "leads out of"),
        (lambda path: None, "No such file"),
    ]
    for make, message in changes:
        make(bundle / "model.so")
        with pytest.raises(InputError, match=message):
            read_listed(bundle, "model.so", listed)
        (bundle / "model.so").unlink(missing_ok=True)
