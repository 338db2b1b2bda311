"""Copies in sealed memory: what was checked is what is used, whatever becomes of the files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.built import load_bundle
from reconvene.backends.bundles.listed_files import FileSum
from reconvene.backends.bundles.private_copy import private_copies
from reconvene.backends.compile import compile
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import sha256_of

CONTENTS = bytes(range(256)) * 9000
SUM = FileSum(len(CONTENTS), sha256_of(CONTENTS))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "bundle" / "weights-1.bin"
    found.parent.mkdir()
    found.write_bytes(CONTENTS)
    return found


def test_copies_are_sealed_and_leave_nothing(file: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with private_copies(file.parent, {file.name: SUM}) as folder:
        copy = folder / file.name
        file.write_bytes(b"other")
        assert copy.read_bytes() == CONTENTS
        with copy.open("r+b", buffering=0) as stream:
            for change in (lambda: stream.write(b"x"), lambda: stream.truncate(1), lambda: stream.truncate(1 << 24)):
                with pytest.raises(PermissionError):
                    change()
    assert not folder.exists() and len(os.listdir("/proc/self/fd")) == before


def test_the_copy_is_what_is_compared(file: Path, tmp_path: Path) -> None:
    """Whoever changes a file after it was checked is found out."""
    for contents in (CONTENTS[:-1], CONTENTS + b"x", CONTENTS[:-1] + b"x", b""):
        file.write_bytes(contents)
        with (
            pytest.raises(InputError, match="is not what its checksum says"),
            private_copies(file.parent, {file.name: SUM}),
        ):
            pass
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match="it is no regular file"), private_copies(file.parent, {file.name: SUM}):
        pass
    file.unlink()
    (tmp_path / "elsewhere").write_bytes(CONTENTS)
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of"), private_copies(file.parent, {file.name: SUM}):
        pass


def test_systems_without(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(os, "memfd_create")
        with pytest.raises(InputError, match="no memory that can be sealed"), private_copies(file.parent, {}):
            pass

    class Full:
        def read(self, size: int) -> bytes:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr("reconvene.backends.bundles.private_copy.open_regular", lambda path, within: Full())
    with pytest.raises(MemoryError, match="no memory for a copy"), private_copies(file.parent, {file.name: SUM}):
        pass


def test_a_model_goes_on_without_its_files(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 3)).eval(), torch.randn(2, 96)
    folder = compile(model, (x,)).export(tmp_path / "bundle")
    built = load_bundle(folder, private=True)
    for path in folder.iterdir():
        path.write_bytes(b"")  # In place: a mapped one would end this process.
    assert torch.allclose(torch.as_tensor(built.run(x)), model(x), atol=1e-5)
