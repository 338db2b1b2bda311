"""``sign`` and ``--public-key``: who made a bundle or a portfolio."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.driver.command_line import main
from tests.support.bundles import edit

pytest.importorskip("cryptography", reason="pip install 'reconvene[sign]'")


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
        assert "'manifest.json' in 'bundle' does not have its checksum" in capsys.readouterr().err


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
