"""``sign`` and ``--public-key``: who made a bundle or a portfolio."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.built import load_bundle
from reconvene.backends.bundles.signing import Signed, verify
from reconvene.backends.compile import compile
from reconvene.driver.cli.command_line import main
from reconvene.driver.portfolio.manifest import write_manifest
from reconvene.driver.verbs import signatures
from reconvene.frontend.base.errors import InputError
from tests.support.bundles import edit
from tests.support.portfolios import small_portfolio

pytest.importorskip("cryptography", reason="pip install '.[sign]'")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signatures") / "bundle"
    return compile(nn.Conv2d(3, 4, 3).eval(), (torch.randn(1, 3, 8, 8),)).export(folder)


@pytest.fixture
def bundle(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, "bundle")
    assert main(["sign", "--new-key", "key", "--json"]) == main(["sign", "--new-key", "other", "--json"]) == 0
    return "bundle"


def test_a_signed_bundle_runs_and_a_changed_one_does_not(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", bundle, "--json", "--public-key"]
    assert main([*run, "key.pub"]) == 2
    assert "so nobody says who made it" in capsys.readouterr().err
    assert main(["sign", bundle, "--secret-key", "key"]) == 0
    assert "signed with the key" in capsys.readouterr().out
    assert main([*run, "key.pub"]) == 0
    assert main([*run, Path("key.pub").read_text().splitlines()[1]]) == 0
    assert main(["bench", bundle, "--repeat", "1", "--json", "--public-key", "key.pub"]) == 0
    capsys.readouterr()
    assert main([*run, "other.pub"]) == 2
    assert "was signed with the key" in capsys.readouterr().err
    edit(Path(bundle), lambda manifest: manifest.update(threads=2))
    assert main(["run", bundle, "--json"]) == 0  # Whole, by its checksums, and by nobody that is known.
    assert main([*run, "key.pub"]) == 2
    assert "is not of what is there; do not use it" in capsys.readouterr().err


def test_a_manifest_that_is_not_what_was_signed(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sign", bundle, "--secret-key", "key", "--json"]) == 0
    edit(Path(bundle), lambda manifest: manifest.update(threads=2), "nothing")
    for line in (["run", bundle, "--public-key", "key.pub"], ["sign", bundle, "--secret-key", "key"]):
        assert main(line) == 2
        assert re.search("'manifest.json' in bundle 'bundle' does not have (its|the) checksum", capsys.readouterr().err)


def test_a_signature_of_a_bundle_is_none_of_a_portfolio_in_its_folder(
    bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the other way: it is of what it lists, and not of the folder."""
    small_portfolio(Path("portfolio"))
    for folder in (bundle, "portfolio"):
        assert main(["sign", folder, "--secret-key", "key", "--json"]) == 0
    shutil.copytree("portfolio", bundle, dirs_exist_ok=True, ignore=shutil.ignore_patterns("SHA256SUMS*"))
    capsys.readouterr()
    assert main(["serve", bundle, "--port", "0", "--public-key", "key.pub"]) == 2
    assert "what was signed in 'bundle' is no portfolio: it lists no portfolio.json" in capsys.readouterr().err
    assert main(["sign", bundle, "--secret-key", "key"]) == 2
    assert "'bundle' is both a bundle and a portfolio" in capsys.readouterr().err
    shutil.copy("bundle/manifest.json", "portfolio/")
    for verb in ("run", "bench"):
        assert main([verb, "portfolio", "--public-key", "key.pub"]) == 2
        assert "what was signed in 'portfolio' is no bundle: it lists no manifest.json" in capsys.readouterr().err


def test_what_is_opened_is_what_was_signed(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another manifest, with checksums that fit it, may be there by the time that the bundle is opened."""
    assert main(["sign", bundle, "--secret-key", "key", "--json"]) == 0

    def late(*arguments: object) -> Signed:
        found = verify(*arguments)  # type: ignore[arg-type]
        edit(Path(bundle), lambda manifest: manifest.update(threads=2))
        return found

    monkeypatch.setattr(signatures, "verify", late)
    assert main(["run", bundle, "--public-key", "key.pub"]) == 2
    with pytest.raises(InputError, match=r"does not have the checksum that was signed"):
        load_bundle(bundle, manifest_sha256="0" * 64)


def test_a_portfolio_that_is_not_what_was_signed(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    portfolio = small_portfolio(Path("portfolio"))
    assert main(["sign", "portfolio", "--secret-key", "key", "--json"]) == 0
    signature = Path("portfolio/SHA256SUMS").read_bytes()
    write_manifest(dataclasses.replace(portfolio, name="other"), "portfolio")
    line = ["serve", "portfolio", "--port", "0", "--public-key", "key.pub"]
    assert main(line) == 2
    assert "the signature of 'portfolio' is not of what is there" in capsys.readouterr().err
    Path("portfolio/SHA256SUMS").write_bytes(signature)
    for verb in (line, ["sign", "portfolio", "--secret-key", "key"]):
        assert main(verb) == 2
        assert "portfolio.json of 'portfolio' does not have the checksum that was signed" in capsys.readouterr().err


def test_nothing_is_signed_that_is_not_whole(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(bundle, "model.so").write_bytes(b"")
    assert main(["sign", bundle, "--secret-key", "key"]) == 2
    assert "'model.so' in bundle 'bundle' has 0 bytes" in capsys.readouterr().err
    Path(bundle, "SHA256SUMS").write_text("")
    assert main(["sign", bundle, "--secret-key", "key"]) == 2
    assert "SHA256SUMS of 'bundle' does not list manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "long", "words"])
def test_keys_that_are_none(bundle: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("odd")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("untrusted comment: \n" * (1 << 20 if kind == "long" else 1))
    for line in (["run", bundle, "--public-key", "odd"], ["sign", bundle, "--secret-key", "odd"]):
        assert main(line) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["sign"], "give a folder and --secret-key; --new-key FILE makes one"),
        (["sign", "bundle"], "give a folder and --secret-key"),
        (["sign", "bundle", "--new-key", "new"], "--new-key makes keys and signs nothing"),
        (["sign", "none", "--secret-key", "key"], "there is no folder 'none'"),
        (["sign", ".", "--secret-key", "key"], "is no bundle and no portfolio"),
        (["sign", "bundle", "--secret-key", "none"], "there is no 'none'"),
        (["sign", "--new-key", "key"], "there is a key 'key' already"),
        (["run", "model.pt2", "--public-key", "key.pub"], "--public-key has no meaning for a model"),
        (["bench", "model.pt2", "--public-key", "key.pub"], "--public-key has no meaning for a model"),
        (["serve", "none", "--public-key", "key.pub"], "is no bundle and no portfolio"),
        (["run", "bundle", "--public-key", "none"], "there is no 'none'"),
    ],
)
def test_what_makes_no_sense(bundle: str, line: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
