"""What is fetched for boards is used only if it is the file whose checksum is known."""

import os
import zipfile
from pathlib import Path

import pytest

from reconvene.backends.bundles import runtime_library, runtime_wheels
from reconvene.backends.bundles.runtime_wheels import wheel_runtime
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes wheels from, and nowhere else; and a cache of its own."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    return folder


def wheel(folder: Path, name: str, library: str) -> None:
    """A wheel for 64-bit ARM of the right name and version, with another library inside."""
    version = runtime_wheels.metadata.version(name)
    base = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{base}-py3-none-manylinux_2_28_aarch64.whl", "w") as archive:
        archive.writestr(library, b"another library")
        archive.writestr(f"{base}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{base}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
        archive.writestr(f"{base}.dist-info/RECORD", "")


def test_a_wheel_of_another_checksum_is_refused_and_nothing_of_it_is_kept(index, tmp_path):
    for name, library in runtime_wheels.WHEEL_LIBRARIES.items():
        wheel(index, name, library)
    with pytest.raises(InputError, match=r"does not have its checksum, and was not used"):
        wheel_runtime(find_target("rpi4"))
    assert not list((tmp_path / "cache").glob("wheel-*"))


def test_no_wheel_is_said_in_one_line(index):
    with pytest.raises(
        InputError, match=r"cannot download TVM's wheels for manylinux_2_28_aarch64: .*--runtime static"
    ):
        wheel_runtime(find_target("rpi4"))


def test_a_version_without_known_checksums_is_not_fetched(index, monkeypatch):
    monkeypatch.setattr(runtime_wheels.metadata, "version", lambda name: "0.99.0")
    with pytest.raises(InputError, match=r"no checksum of a wheel of apache-tvm 0\.99\.0 is known here"):
        wheel_runtime(find_target("rpi4"))


def test_what_is_kept_is_made_again_once_a_file_of_it_is_damaged_or_gone(index, monkeypatch):
    made = []

    def build(folder: Path) -> None:
        made.append(folder)
        (folder / "one").write_bytes(b"1")
        (folder / "two").write_bytes(b"2")

    place = runtime_library.made_once("parts", build)
    assert runtime_library.made_once("parts", build) == place and len(made) == 1
    (place / "two").write_bytes(b"3")
    assert (runtime_library.made_once("parts", build) / "two").read_bytes() == b"2" and len(made) == 2
    (place / "one").unlink()
    assert (runtime_library.made_once("parts", build) / "one").read_bytes() == b"1" and len(made) == 3
    (place / "SHA256SUMS").write_text("no list of checksums\n")
    runtime_library.made_once("parts", build)
    assert len(made) == 4 and not [path for path in place.parent.iterdir() if path.name.startswith(".parts-")]
    with monkeypatch.context() as patch:
        # As if somebody else had put it there.
        patch.setattr(os, "geteuid", lambda: 12345)
        runtime_library.made_once("parts", build)
    assert len(made) == 5
