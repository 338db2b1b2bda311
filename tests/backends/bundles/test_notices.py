"""Whose code is in a bundle: the notices, the licences, and the bill of materials."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reconvene.backends.built import Built
from reconvene.backends.bundles import materials
from reconvene.backends.bundles.materials import Contents, bundle_contents, server_contents
from reconvene.backends.bundles.notices import write_notices
from reconvene.backends.bundles.sbom import sbom
from reconvene.backends.compile import compile
from reconvene.backends.machines.linkers import find_linker
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError
from tests.support.cyclonedx import problems
from tests.support.tools import needs

X = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
PAPERS = {"LICENSE", "NOTICE", "sbom.cdx.json"}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def built() -> Built:
    return compile(network(0), (X,))


def names(contents: Contents) -> list[str]:
    return [material.name for material in contents.materials]


def written(contents: Contents, folder: Path) -> dict[str, str]:
    folder.mkdir()
    write_notices(contents, folder, "a model")
    return {path.name: path.read_text() for path in folder.iterdir()}


TVM = ["apache-tvm", "apache-tvm-ffi"]


def test_what_has_no_runtime_has_only_our_code(tmp_path: Path) -> None:
    board, host = find_target("rpi4"), find_target("host")
    for contents in (
        bundle_contents(host, "python", linked=True, program=False),
        bundle_contents(host, "python", linked=False, program=False),
        bundle_contents(board, "none", linked=True, program=False),
    ):
        assert names(contents) == ["reconvene"]
    files = written(contents, tmp_path / "files")
    assert set(files) == {"LICENSE", "NOTICE"}
    assert "Apache License" in files["LICENSE"] and "2026 The reconvene founders" in files["LICENSE"]


def test_a_program_with_everything_inside_names_the_runtime_and_the_libraries_of_its_compiler(tmp_path: Path) -> None:
    contents = bundle_contents(find_target("host"), "static", linked=True, program=True)
    assert names(contents) == ["reconvene", *TVM, "libgcc", "libstdc++", "glibc"]
    files = written(contents, tmp_path / "files")
    notice, texts = files["NOTICE"], files["LICENSES.txt"]
    assert max(map(len, notice.splitlines())) <= 128 and notice.startswith("This folder holds a model.\n")
    assert "NOTICE of apache-tvm:" in notice and "NOTICE of apache-tvm-ffi:" in notice
    assert notice.count("The Apache Software Foundation") >= 2
    # What static linking with glibc asks for.
    assert "linked with glibc statically" in notice and "section 6" in notice
    assert "GNU LESSER GENERAL PUBLIC LICENSE" in texts
    assert "distributed with\nbinary distributions of the code" in texts
    assert "3rdparty/dlpack" in texts


def test_wheels_bring_what_is_inside_of_them(tmp_path: Path) -> None:
    contents = bundle_contents(find_target("host"), "wheel", linked=True, program=True)
    assert names(contents) == ["reconvene", *TVM, "libbacktrace", "libgcc"]
    texts = written(contents, tmp_path / "files")["LICENSES.txt"]
    assert "Written by Ian Lance Taylor" in texts and "LLVM Exceptions" in texts
    assert "in binary form must reproduce the above copyright" in " ".join(texts.split())
    # The C library is the machine's own, and is not passed on.
    assert not contents.relinkable and "LESSER" not in texts


def test_a_server_has_the_runtime_in_it_or_beside_it() -> None:
    linker = find_linker(find_target("host"), "program")
    assert names(server_contents(linker, wheel=True)) == ["reconvene", *TVM, "libbacktrace", "libgcc"]
    assert names(server_contents(linker, wheel=False)) == ["reconvene", *TVM, "libgcc", "libstdc++"]


@needs("ziglang")
def test_what_ziglang_links_is_of_llvm_and_musl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    target = find_target("rpi4")
    static = bundle_contents(target, "static", linked=True, program=True)
    llvm = ["libc++", "libc++abi", "libunwind"]
    assert names(static) == ["reconvene", *TVM, "zig-compiler-rt", *llvm, "musl"]
    assert not static.relinkable and static.compiler is not None and static.compiler.name == "ziglang"
    texts = written(static, tmp_path / "files")["LICENSES.txt"]
    # One text for the three.
    assert "\nlibc++, libc++abi, libunwind\n" in texts and "Rich Felker" in texts
    assert names(bundle_contents(target, "none", linked=True, program=True)) == ["reconvene", "zig-compiler-rt", "musl"]


@needs("arm-none-eabi-g++")
def test_a_program_without_a_system_has_newlib(tmp_path: Path) -> None:
    contents = bundle_contents(find_target("cortex-m7"), "none", linked=True, program=True)
    assert names(contents) == ["reconvene", "libgcc", "newlib"] and contents.materials[2].version is not None
    assert "collection of software" in written(contents, tmp_path / "files")["LICENSES.txt"]


def test_a_c_library_that_says_no_name_is_left_to_its_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materials, "_macros", lambda linker: "#define __STDC__ 1\n")
    (library,) = bundle_contents(find_target("host"), "static", linked=True, program=True).materials[-1:]
    assert (library.name, library.license, library.texts) == ("libc", None, ())


def test_a_distribution_without_its_licence_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        def read_text(self, name: str) -> None:
            return None

        def locate_file(self, path: str) -> Path:
            return Path("/nonexistent") / path

    monkeypatch.setattr(materials.metadata, "distribution", lambda name: Bare())
    with pytest.raises(InputError, match=r"the installed apache-tvm lacks 'tvm/LICENSE', which must go with"):
        bundle_contents(find_target("host"), "static", linked=True, program=True)


def bill(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "sbom.cdx.json").read_text())
    assert problems(found) == []
    return found


def test_a_bill_follows_the_schema_and_is_the_same_for_the_same_bundle(built: Built, tmp_path: Path) -> None:
    one, two = (built.export(tmp_path / name) for name in ("one", "two"))
    found = bill(one)
    assert (one / "sbom.cdx.json").read_bytes() == (two / "sbom.cdx.json").read_bytes()
    assert "timestamp" not in found["metadata"]
    assert [entry["name"] for entry in found["metadata"]["tools"]["components"]][-1] == "gcc"
    (model,) = (entry for entry in found["components"] if entry["type"] == "machine-learning-model")
    assert len(model["hashes"][0]["content"]) == 64
    properties = {entry["name"]: entry["value"] for entry in found["metadata"]["component"]["properties"]}
    assert properties["reconvene:target"] == "host" and properties["reconvene:runtime"] == "python"


def test_a_bill_has_the_checksum_of_each_file_that_was_there_before_it(built: Built, tmp_path: Path) -> None:
    folder = built.export(tmp_path / "bundle")
    listed = {
        entry["name"]: entry["hashes"][0]["content"] for entry in bill(folder)["components"] if entry["type"] == "file"
    }
    rest = {path.name for path in folder.iterdir()} - set(listed)
    assert rest == {"sbom.cdx.json", "manifest.json", "SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    manifest, text = json.loads((folder / "manifest.json").read_text()), (folder / "README.md").read_text()
    assert all(f"`{name}`" in text for name in PAPERS)
    assert set(manifest["files"]) >= PAPERS and "sbom.cdx.json" in (folder / "SHA256SUMS").read_text()


def test_other_weights_are_another_model_with_another_number(built: Built, tmp_path: Path) -> None:
    one, two = (
        bill(found.export(tmp_path / name)) for name, found in (("one", built), ("two", compile(network(1), (X,))))
    )
    models = [
        next(entry for entry in found["components"] if entry["bom-ref"] == "model")["hashes"] for found in (one, two)
    ]
    assert models[0] != models[1] and one["serialNumber"] != two["serialNumber"]


@pytest.mark.parametrize("runtime", ["static", "wheel", "none"])
def test_every_kind_has_a_bill_that_follows_the_schema(built: Built, runtime: str, tmp_path: Path) -> None:
    contents = bundle_contents(find_target("host"), runtime, linked=True, program=True)
    found = sbom(built, contents, runtime, tmp_path)
    assert problems(found) == []
    assert {entry["name"] for entry in found["components"]} == {*names(contents), "model"}
    assert found["dependencies"][0]["dependsOn"] == [*names(contents), "model"]


def test_the_schema_is_one_that_can_fail(built: Built) -> None:
    contents = bundle_contents(find_target("host"), "python", linked=True, program=False)
    found = sbom(built, contents, "python", Path(__file__).parents[1] / "boards")
    found["components"][0]["licenses"] = [{"license": {"id": "no licence"}}]
    found["metadata"]["component"]["type"] = "a bundle"
    assert len(problems(found)) == 2


def test_metadata_without_licences_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As building in place leaves it in a checkout."""
    (tmp_path / "reconvene.egg-info").mkdir()
    (tmp_path / "reconvene.egg-info" / "PKG-INFO").write_text(
        "Metadata-Version: 2.1\nName: reconvene\nVersion: 0.1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "Apache License" in materials.own_license()
