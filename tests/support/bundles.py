"""Bundles that somebody edited: carelessly, with their checksums made anew, or with the code's note of its manifest too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from reconvene.backends.bundles.binding import bound_digest, is_data, note_of
from reconvene.frontend.base.files import sha256, sha256_of

__all__ = ["edit"]

Forged = Literal["nothing", "sums", "code"]


def edit(bundle: Path, change: Callable[[dict[str, Any]], object], forged: Forged = "code") -> None:
    """Lets `change` loose on the manifest of `bundle`, and makes what it is checked against anew, as far as `forged` says."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    if forged == "code":
        for name in ("run", "model.so"):
            if name in manifest["files"] and (bundle / name).exists():
                renote(bundle / name, manifest)
                manifest["files"][name] = {
                    "bytes": (bundle / name).stat().st_size,
                    "sha256": sha256(bundle / name),
                }
    text = json.dumps(manifest)
    (bundle / "manifest.json").write_text(text)
    if forged != "nothing":
        sums = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        sums["manifest.json"] = sha256_of(text.encode())
        (bundle / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def renote(code: Path, manifest: dict[str, Any]) -> None:
    note = note_of(code)
    assert note is not None
    data = {name: entry["sha256"] for name, entry in manifest["files"].items() if is_data(name)}
    try:
        digest = bound_digest(manifest, data)
    except KeyError:
        return  # Nothing that a note could be of.
    contents = code.read_bytes()
    assert contents.count(note) == 1
    code.unlink()  # It may be loaded.
    code.write_bytes(contents.replace(note, digest))
    code.chmod(0o755)
