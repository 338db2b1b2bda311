"""``--public-key`` of the verbs that run what somebody else may have made."""

from __future__ import annotations

from pathlib import Path

from ...backends.bundles.listed_files import MANIFEST as BUNDLE
from ...backends.bundles.signing import read_public_key, verify
from ...frontend.base.errors import InputError
from ..portfolio.manifest import MANIFEST as PORTFOLIO

__all__ = ["signed_bundle", "signed_portfolio"]


def signed_bundle(folder: str, public_key: str | None) -> str | None:
    """The SHA-256 that the manifest of the bundle in `folder` was signed with; None without a key.

    Raises:
        InputError: the folder is no bundle, or was not signed with this key.
    """
    return _signed(folder, public_key, BUNDLE, "bundle")


def signed_portfolio(folder: str, public_key: str | None) -> str | None:
    """The same of `portfolio.json`. A folder that was signed as a bundle is no signed portfolio, whatever lies in it."""
    return _signed(folder, public_key, PORTFOLIO, "portfolio")


def _signed(folder: str, public_key: str | None, manifest: str, kind: str) -> str | None:
    if public_key is None:
        return None
    key, path = read_public_key(public_key), Path(folder)
    if not path.is_dir():
        raise InputError(f"'{folder}' is no bundle and no portfolio, which are what is signed; leave out --public-key")
    listed = verify(path, key).sums
    if manifest not in listed:
        raise InputError(f"what was signed in '{folder}' is no {kind}: it lists no {manifest}; do not use it")
    return listed[manifest]
