"""What a portfolio's folder holds, read and written.

=============================  =============================================================================
``portfolio.json``             names, figures and checksums of all variants, from the largest to the smallest
``SHA256SUMS``                 the checksum of ``portfolio.json``, for a signature
``variants/NAME/TARGET/``      the variant compiled for a target, as a bundle
``variants/NAME/model.pt2``    the variant as a program
=============================  =============================================================================

All variants take the same inputs and give the same outputs, so that one can take the place of another.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from ...backends.bundles.listed_files import MANIFEST as BUNDLE_MANIFEST
from ...backends.bundles.listed_files import FileSum, check_file, file_sum
from ...backends.bundles.manifest import tensor_specs
from ...backends.bundles.read import read_manifest
from ...backends.signature import TensorSpec
from ...frontend.base.errors import InputError
from ...frontend.base.files import SUMS, read_regular, sha256, sha256_of, write_text
from ...frontend.base.json_text import json_array, json_count, json_number, json_object, parse_json, shortened
from ...frontend.base.shown_text import shown

__all__ = [
    "FORMAT",
    "MANIFEST",
    "VARIANTS",
    "FileSum",
    "Portfolio",
    "Variant",
    "check_variant",
    "file_sums",
    "listed_bundle",
    "open_portfolio",
    "write_manifest",
]

FORMAT = 1
"""Version of the folder's layout; a reader refuses any other."""

MANIFEST = "portfolio.json"
VARIANTS = "variants"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", re.ASCII)
_FIELDS = ("format", "name", "inputs", "outputs", "variants")
_VARIANT = "name accuracy parameters nonzero bytes macs latency_ms peak_memory_bytes files certificate source".split()


@dataclass(frozen=True)
class Variant:
    """One network of a portfolio, and its figures.

    Attributes:
        name: letters, digits, ``-``, ``_`` and ``.``, not first; never a path.
        accuracy: share of the test images that it classifies rightly, 0..1; None if nobody measured it.
        parameters, nonzero: how many weights it stores, and how many of them are not zero.
        bytes: of its weights.
        macs: multiply-accumulates of one call.
        latency_ms: by target's name, the median of one call on the example's batch with one thread.
        peak_memory_bytes: of its weights as its kernels read them, without zeros that they skip, for the target where that is
            most; and the most that values of one call hold at once. The runtime comes on top.
        certificate: of the compaction it came from.
        source: where it came from; free facts.
        files: by path from the portfolio's folder, with ``/`` between the parts.
    """

    name: str
    accuracy: float | None
    parameters: int
    nonzero: int
    bytes: int
    macs: int
    latency_ms: Mapping[str, float]
    peak_memory_bytes: int
    files: Mapping[str, FileSum] = field(repr=False)
    certificate: Mapping[str, Any] | None = field(default=None, repr=False)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def dtype(self) -> str:
        """What it is computed in: float32, float16 or int8."""
        return str(self.source.get("dtype", "float32"))

    @property
    def loss(self) -> str:
        """What rounding to that loses, in words; empty where it was not measured."""
        found = self.source.get("loss")
        if not isinstance(found, dict):
            return ""
        decibels, agreement = (_finite(found.get(name)) for name in ("decibels", "agreement"))
        said = (decibels is not None and f"{decibels:.1f} dB", agreement is not None and f"{agreement:.1%} alike")
        return ", ".join(part for part in said if part)

    @property
    def changed(self) -> float:
        """The share of inputs of which rounding changes the likeliest class, as far as that was measured; else 0."""
        found = self.source.get("loss")
        agreement = _finite(found.get("agreement")) if isinstance(found, dict) else None
        return 0.0 if agreement is None else 1.0 - agreement

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that there is a bundle for."""
        bundles = (PurePosixPath(path) for path in self.files)
        return tuple(
            sorted(
                path.parts[2]
                for path in bundles
                if len(path.parts) == 4 and path.parts[:2] == (VARIANTS, self.name) and path.name == BUNDLE_MANIFEST
            )
        )

    def manifest_sum(self, target: str) -> FileSum:
        """What the manifest of the bundle for `target`, one of `targets`, must be."""
        return self.files[str(PurePosixPath(VARIANTS, self.name, target, BUNDLE_MANIFEST))]


@dataclass(frozen=True)
class Portfolio:
    """Variants of one network with the same inputs and outputs, from the most multiply-accumulates to the least."""

    folder: Path
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...]

    def variant(self, name: str) -> Variant:
        """The variant called `name`. Raises InputError if there is none."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise InputError(f"portfolio '{self.name}' has no variant '{name}'; there are {names}")

    def built_for(self, target: str) -> Portfolio:
        """With the variants that there is a bundle of for `target`; all of them if there is none, so that this is said."""
        found = tuple(variant for variant in self.variants if target in variant.targets)
        return replace(self, variants=found or self.variants)


def open_portfolio(
    folder: str | os.PathLike[str], *, files: bool = True, manifest_sha256: str | None = None
) -> Portfolio:
    """What is in `folder`, after its format, its names and paths were checked.

    Args:
        files: also compare every file with its checksum, and every bundle with the portfolio's inputs and outputs.
            Without that a variant's faults show when it is asked for, by `check_variant` or `listed_bundle`.
        manifest_sha256: what `portfolio.json` must have, of a signature.

    Raises:
        InputError: the folder is no portfolio, is damaged, lists a file outside itself, or was made by another version.
    """
    path = Path(folder)
    portfolio = _parsed(path, _read(path, manifest_sha256))
    for variant in portfolio.variants if files else ():
        check_variant(portfolio, variant)
    return portfolio


def write_manifest(portfolio: Portfolio, folder: str | os.PathLike[str]) -> Path:
    """Writes `portfolio.json` into `folder`, all of it or nothing, and its checksum, which can be signed. Gives its path.

    Raises:
        InputError: a reader would refuse what would be written, or the folder cannot be written.
    """
    path = Path(folder)
    values = {"format": FORMAT, **{key: value for key, value in _plain(portfolio).items() if key != "folder"}}
    try:
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"portfolio '{portfolio.name}' cannot be written as JSON: {error}") from None
    _parsed(path, json.loads(text))
    write_text(path / MANIFEST, text)
    write_text(path / SUMS, f"{sha256(path / MANIFEST)}  {MANIFEST}\n")
    return path / MANIFEST


def file_sums(folder: str | os.PathLike[str], name: str) -> dict[str, FileSum]:
    """Sizes and checksums of all files below ``variants/NAME`` of the portfolio in `folder`, as `Variant.files`."""
    root = Path(folder)
    files = sorted(path for path in (root / VARIANTS / name).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): FileSum(path.stat().st_size, sha256(path)) for path in files}


def check_variant(portfolio: Portfolio, variant: Variant) -> None:
    """Compares all files of `variant` with their checksums, and its bundles with the portfolio's inputs and outputs.

    Raises:
        InputError: a file is missing, is another one, or lies outside; or a bundle takes or gives something else.
    """
    for path, expected in variant.files.items():
        check_file(portfolio.folder, path, expected, "portfolio")
    for target in variant.targets:
        listed_bundle(portfolio, variant, target)


def listed_bundle(portfolio: Portfolio, variant: Variant, target: str) -> Path:
    """The folder of `variant`'s bundle for `target`, after its manifest was found to be the one that is listed.

    The bundle's other files are not read: its manifest has their checksums, which are compared with those listed here,
    and `reconvene.backends.built.load_bundle` checks the files themselves.

    Raises:
        InputError: there is none for `target`, or what is there is not what the portfolio lists.
    """
    if target not in variant.targets:
        built = ", ".join(variant.targets) or "no target"
        raise InputError(f"variant '{variant.name}' is built for {built}, not for '{target}'; build it for that target")
    root = PurePosixPath(VARIANTS, variant.name, target)
    listed = variant.manifest_sum(target)
    check_file(portfolio.folder, str(root / BUNDLE_MANIFEST), listed, "portfolio")
    folder = portfolio.folder / root
    try:
        manifest = read_manifest(folder, listed.sha256)
        sums = {name: file_sum(entry) for name, entry in json_object(manifest["files"]).items()}
        specs = tensor_specs(manifest["inputs"]), tensor_specs(manifest["outputs"])
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"manifest of bundle '{folder}' is not usable ({error}); build the portfolio again") from None
    for name, expected in sums.items():
        if variant.files.get(str(root / name)) != expected:
            raise InputError(
                f"'{name}' in bundle '{folder}' is not the file that {MANIFEST} lists; build the portfolio again"
            )
    for what, found, wanted in zip(("inputs", "outputs"), specs, (portfolio.inputs, portfolio.outputs), strict=True):
        if found != wanted:
            raise InputError(
                f"variant '{variant.name}' for '{target}' has the {what} {_listed(found)}, the portfolio"
                f" '{portfolio.name}' {_listed(wanted)}; build it again from the same network"
            )
    return folder


def _finite(value: object) -> float | None:
    """A number of a free fact; None for whatever else is there."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None  # type: ignore[arg-type]


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{shown(spec.name)} ({spec})" for spec in specs)


def _plain(portfolio: Portfolio) -> dict[str, Any]:
    """`portfolio` as JSON's types. Mappings may be of any kind."""
    variants = [
        {
            **{key: value for key, value in vars(variant).items() if key not in ("files", "latency_ms")},
            "latency_ms": dict(variant.latency_ms),
            "files": {path: asdict(entry) for path, entry in variant.files.items()},
        }
        for variant in portfolio.variants
    ]
    return {
        "name": portfolio.name,
        "inputs": [spec.plain() for spec in portfolio.inputs],
        "outputs": [spec.plain() for spec in portfolio.outputs],
        "variants": variants,
    }


def _read(folder: Path, wanted: str | None) -> dict[str, Any]:
    """The manifest's JSON, of a format that this version knows, and with the SHA-256 `wanted` if there is one."""
    if not folder.is_dir():
        raise InputError(f"there is no portfolio '{folder}'; give the folder that 'reconvene portfolio' wrote")
    try:
        contents = read_regular(folder / MANIFEST, within=folder, limit="text")
        if wanted is not None and sha256_of(contents) != wanted:
            raise InputError(f"{MANIFEST} of '{folder}' does not have the checksum that was signed; do not use it")
        manifest = parse_json(contents)
    except FileNotFoundError:
        raise InputError(f"'{folder}' has no {MANIFEST}; give the folder of a portfolio") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {MANIFEST} of '{folder}': {reason}; build the portfolio again") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise InputError(f"portfolio '{folder}' has format {found!r}, this version reads {FORMAT}; build it again")
    return dict(manifest)


def _parsed(folder: Path, manifest: Mapping[str, Any]) -> Portfolio:
    """The portfolio that `manifest` describes. Raises InputError for anything that it must not say."""
    try:
        portfolio = Portfolio(
            folder=folder,
            name=_name(json_object(manifest, _FIELDS)["name"]),
            inputs=tensor_specs(manifest["inputs"]),
            outputs=tensor_specs(manifest["outputs"]),
            variants=tuple(_variant(json_object(entry, _VARIANT)) for entry in json_array(manifest["variants"])),
        )
        _check_order(portfolio.variants)
    except ValueError as error:
        raise InputError(f"{MANIFEST} of '{folder}' is not usable ({error}); build the portfolio again") from None
    return portfolio


def _variant(entry: Mapping[str, Any]) -> Variant:
    accuracy, certificate = entry["accuracy"], entry["certificate"]
    name = _name(entry["name"])
    files = {_inside(path, name): file_sum(value) for path, value in json_object(entry["files"]).items()}
    return Variant(
        name=name,
        accuracy=None if accuracy is None else json_number(accuracy, "accuracy", most=1),
        parameters=json_count(entry["parameters"], "parameters"),
        nonzero=json_count(entry["nonzero"], "nonzero"),
        bytes=json_count(entry["bytes"], "bytes"),
        macs=json_count(entry["macs"], "macs"),
        latency_ms={
            _name(key): json_number(value, "latency") for key, value in json_object(entry["latency_ms"]).items()
        },
        peak_memory_bytes=json_count(entry["peak_memory_bytes"], "peak memory"),
        files=files,
        certificate=None if certificate is None else json_object(certificate),
        source=json_object(entry["source"]),
    )


def _check_order(variants: Sequence[Variant]) -> None:
    if not variants:
        raise ValueError("no variants")
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ValueError(f"two variants are called '{next(name for name in names if names.count(name) > 1)}'")
    for larger, smaller in pairwise(variants):
        if larger.macs < smaller.macs:
            raise ValueError(f"'{smaller.name}' computes more than '{larger.name}' before it; the largest comes first")


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{shortened(value)} is no name; use letters, digits, '-', '_' and '.'")
    return value


def _inside(path: str, name: str) -> str:
    """`path` if it leads nowhere but below the folder of the variant `name`."""
    parts = path.split("/")
    if "\\" in path or not path.isprintable() or any(part in ("", ".", "..") or ":" in part for part in parts):
        raise ValueError(f"the file {shortened(path)} is not a path below the portfolio's folder")
    if parts[:2] != [VARIANTS, name] or len(parts) < 3:
        raise ValueError(f"the file {shortened(path)} is not one of the variant '{name}'")
    return path
