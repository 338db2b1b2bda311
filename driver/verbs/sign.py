"""``reconvene sign``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...backends.bundles.listed_files import MANIFEST as BUNDLE
from ...backends.bundles.read import open_bundle
from ...backends.bundles.signing import SIGNATURE, sign, write_keys
from ...frontend.base.errors import InputError
from ...frontend.base.files import SUMS, read_sums
from ..answer import Answer, files_line, says
from ..portfolio.manifest import MANIFEST as PORTFOLIO
from ..portfolio.manifest import open_portfolio

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene sign`` is told; see its help."""

    folder: str | None = None
    secret_key: Path | None = None
    new_key: Path | None = None


def run(request: Request) -> Answer:
    """Signs a bundle or portfolio, or makes a pair of keys to do so."""
    folder, secret_key, new_key = request.folder, request.secret_key, request.new_key
    if new_key is not None:
        if folder is not None or secret_key is not None:
            raise InputError("--new-key makes keys and signs nothing; sign afterwards, with --secret-key")
        made = write_keys(new_key)
        files = {"secret key": str(new_key), "public key": f"{new_key}.pub"}
        line = f"key {made}: keep {new_key} to yourself, and give {new_key}.pub to whoever runs your bundles"
        return Answer({"key": str(made), "files": files}, says(line, files_line(files)))
    if folder is None or secret_key is None:
        raise InputError("give a folder and --secret-key; --new-key FILE makes one")
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"there is no folder '{folder}'; give a bundle or a portfolio")
    _check(path)
    key = sign(path, secret_key)
    files = {"signature": str(path / SIGNATURE)}
    return Answer({"key": str(key), "files": files}, says(f"signed with the key {key}", files_line(files)))


def _check(folder: Path) -> None:
    """Raises InputError unless `folder` is a bundle or a portfolio that is whole: a signature is of all of it."""
    found = [name for name in (BUNDLE, PORTFOLIO) if (folder / name).exists()]
    if len(found) != 1:
        what = "both a bundle and a portfolio" if found else "no bundle and no portfolio"
        raise InputError(f"'{folder}' is {what}; give the folder that was written")
    try:
        listed = read_sums(folder)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the checksums of '{folder}': {reason}; write it again") from None
    if found[0] not in listed:
        raise InputError(f"{SUMS} of '{folder}' does not list {found[0]}; write it again")
    if found == [BUNDLE]:
        open_bundle(folder)
    else:
        open_portfolio(folder, manifest_sha256=listed[PORTFOLIO])
