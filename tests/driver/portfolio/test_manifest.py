"""A portfolio's folder: out and in again, and every fault by its name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconvene.backends.built import load_bundle
from reconvene.driver.portfolio.manifest import (
    Portfolio,
    Variant,
    check_variant,
    file_sums,
    listed_bundle,
    open_portfolio,
    write_manifest,
)
from reconvene.frontend.base.errors import InputError
from tests.support.portfolios import INPUTS, WIDTHS, network, small_portfolio

HOST_FILES = ("LICENSE", "NOTICE", "README.md", "SHA256SUMS", "manifest.json", "model.so", "sbom.cdx.json")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Portfolio:
    return small_portfolio(tmp_path_factory.mktemp("portfolios") / "tiny")


@pytest.fixture
def folder(original: Portfolio, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original.folder, tmp_path / "tiny"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "portfolio.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_round_trip(original: Portfolio, folder: Path) -> None:
    found = open_portfolio(folder)
    assert found == dataclasses.replace(original, folder=folder)
    assert [variant.name for variant in found.variants] == list(WIDTHS)
    assert found.variant("small").targets == ("host",)
    files = set(found.variant("small").files)
    (weights,) = (name for name in files if Path(name).name.startswith("weights-"))
    assert files - {weights} == {
        "variants/small/model.pt2",
        *(f"variants/small/host/{name}" for name in HOST_FILES),
    }
    manifest = json.loads((folder / "portfolio.json").read_text())
    assert manifest["format"] == 1
    assert manifest["inputs"] == [{"name": original.inputs[0].name, "shape": [1, 3, 8, 8], "dtype": "float32"}]
    assert set(manifest["variants"][0]) == {field.name for field in dataclasses.fields(Variant)}


def test_a_listed_bundle_is_the_variant(original: Portfolio) -> None:
    built = load_bundle(listed_bundle(original, original.variant("middle"), "host"))
    expected = network(WIDTHS["middle"])(*INPUTS).detach()
    assert float((built.run(*INPUTS) - expected).abs().max()) < 1e-5


def test_unknown_names(original: Portfolio) -> None:
    with pytest.raises(InputError, match=r"no variant '../small'; there are large, middle, small"):
        original.variant("../small")
    with pytest.raises(InputError, match="built for host, not for 'rpi4'"):
        listed_bundle(original, original.variant("small"), "rpi4")


def of_variant(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A fault in the entry of the second variant."""
    return lambda folder: edit(folder, lambda manifest: change(manifest["variants"][1]))


def listing(path: str) -> Callable[[Path], None]:
    """A fault: `path` is listed as a file of the second variant."""
    return of_variant(lambda variant: variant["files"].update({path: {"bytes": 0, "sha256": "0" * 64}}))


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: (f / "portfolio.json").unlink(), "has no portfolio.json"),
    (lambda f: (f / "portfolio.json").write_text("{"), "cannot read portfolio.json"),
    (lambda f: (f / "portfolio.json").write_text("[" * 100_000), "cannot read portfolio.json"),
    (lambda f: (f / "portfolio.json").write_bytes(b"\xff\xfe"), "cannot read portfolio.json"),
    (lambda f: (f / "portfolio.json").write_text("[]"), "has format None"),
    (lambda f: edit(f, lambda m: m.update(format=2)), "has format 2, this version reads 1"),
    (lambda f: edit(f, lambda m: m.update(format=True)), "has format True"),
    (lambda f: edit(f, lambda m: m.pop("inputs")), "lacks 'inputs'"),
    (lambda f: edit(f, lambda m: m.update(inputs=[{"name": "x", "shape": [-1], "dtype": "int8"}])), "extent -1"),
    (lambda f: edit(f, lambda m: m.update(name="a/b")), "'a/b' is no name"),
    (lambda f: edit(f, lambda m: m.update(variants=[])), "no variants"),
    (lambda f: edit(f, lambda m: m.update(variants={})), "is no JSON array"),
    (lambda f: edit(f, lambda m: m["variants"].reverse()), "the largest comes first"),
    (of_variant(lambda v: v.update(name="large")), "is not one of the variant 'large'"),
    (of_variant(lambda v: v.update(name="large", files={})), "two variants are called 'large'"),
    (of_variant(lambda v: v.update(name="..")), "'..' is no name"),
    (of_variant(lambda v: v.update(name="a\n")), "is no name"),
    (of_variant(lambda v: v.update(name=7)), "7 is no name"),
    (of_variant(lambda v: v.update(accuracy=1.5)), "accuracy 1.5 is no number from 0 to 1"),
    (of_variant(lambda v: v.update(accuracy=float("nan"))), "NaN is no number of JSON"),
    (of_variant(lambda v: v.update(macs="9")), "macs '9' is no whole number"),
    (of_variant(lambda v: v.update(bytes=True)), "bytes True is no whole number"),
    (of_variant(lambda v: v.update(latency_ms={"host": 1e999})), "Infinity is no number of JSON"),
    (of_variant(lambda v: v.update(certificate=3)), "3 is no JSON object"),
    (of_variant(lambda v: v.pop("files")), "lacks 'files'"),
    (listing("/etc/passwd"), "not a path below"),
    (listing("../../etc/passwd"), "not a path below"),
    (listing("variants/../../x"), "not a path below"),
    (listing("variants\\x"), "not a path below"),
    (listing("C:/x"), "not a path below"),
    (listing("x\0y"), "not a path below"),
    (listing("variants//x"), "not a path below"),
    (of_variant(lambda v: v["files"]["variants/middle/model.pt2"].update(sha256="x")), "'x' is no SHA-256"),
    (listing("variants/middle/none"), "lacks 'variants/middle/none'"),
    (lambda f: shutil.rmtree(f / "variants"), "lacks 'variants/large/"),
    (lambda f: (f / "variants/small/host/model.so").unlink(), "lacks 'variants/small/host/model.so'"),
    (lambda f: (f / "variants/small/model.pt2").write_bytes(b""), "has 0 bytes instead of"),
    (lambda f: spoil(f / "variants/small/host/model.so"), "does not have its checksum"),
    (lambda f: outside(f / "variants/small/model.pt2"), "leads out of"),
    (lambda f: loop(f / "variants/small/model.pt2"), "cannot read"),
    (lambda f: edit(f, lambda m: m["inputs"][0].update(shape=[1, 3, 9, 9])), "has the inputs .*1x3x8x8.*1x3x9x9"),
    (lambda f: edit(f, lambda m: m["outputs"][0].update(dtype="float16")), "has the outputs"),
]


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def outside(path: Path) -> None:
    """The same bytes, but of a file that is not in the portfolio."""
    moved = path.parents[3] / "moved"
    path.rename(moved)
    path.symlink_to(moved)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_faults_are_refused_by_name(folder: Path, fault: Callable[[Path], object], message: str) -> None:
    fault(folder)
    with pytest.raises(InputError, match=message) as caught:
        open_portfolio(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no portfolio"):
        open_portfolio(tmp_path / "none")


def test_a_fault_of_one_variant_leaves_the_others(folder: Path) -> None:
    (folder / "variants/small/host/model.so").unlink()
    portfolio = open_portfolio(folder, files=False)
    check_variant(portfolio, portfolio.variant("large"))
    with pytest.raises(InputError, match="lacks"):
        check_variant(portfolio, portfolio.variant("small"))


def test_a_bundle_of_another_build_is_refused(folder: Path, original: Portfolio) -> None:
    """Its own checksums are right, but they are not those that the portfolio lists."""
    shutil.rmtree(folder / "variants/small/host")
    shutil.copytree(original.folder / "variants/large/host", folder / "variants/small/host")
    portfolio = open_portfolio(folder, files=False)
    with pytest.raises(InputError, match=r"bytes instead of|does not have its checksum"):
        listed_bundle(portfolio, portfolio.variant("small"), "host")
    # A manifest that is listed, of a model that is not.
    sums = {
        **file_sums(folder, "small"),
        "variants/small/host/model.so": original.variant("small").files["variants/small/host/model.so"],
    }
    mixed = dataclasses.replace(portfolio.variant("small"), files=sums)
    with pytest.raises(InputError, match=r"'model.so' .* is not the file that portfolio.json lists"):
        listed_bundle(portfolio, mixed, "host")


def test_what_a_reader_would_refuse_is_not_written(original: Portfolio, folder: Path) -> None:
    before = (folder / "portfolio.json").read_bytes()
    for wrong in (
        dataclasses.replace(original, name=""),
        dataclasses.replace(original, variants=original.variants[::-1]),
        dataclasses.replace(original, variants=(dataclasses.replace(original.variants[0], source={"x": {1, 2}}),)),
        dataclasses.replace(original, variants=(dataclasses.replace(original.variants[0], accuracy=float("nan")),)),
    ):
        with pytest.raises(InputError):
            write_manifest(wrong, folder)
    assert (folder / "portfolio.json").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name not in ("portfolio.json", "SHA256SUMS", "variants")]
