"""The bill of materials of a bundle: ``sbom.cdx.json``, in the format of CycloneDX 1.6.

It is the same for the same bundle: without a time, and with a serial number made of what it says.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tvm.target import codegen

from ...frontend.base.files import sha256
from ..artifact import Artifact
from ..code.weights import weights_digest
from .materials import Compiler, Contents, Material

__all__ = ["SBOM", "sbom", "write_sbom"]

SBOM = "sbom.cdx.json"

_SERIALS = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/schema/bom-1.6.schema.json")

_BUNDLE, _MODEL = "bundle", "model"


def write_sbom(artifact: Artifact, contents: Contents, runtime: str, folder: Path) -> None:
    """Writes the bill of what is in `folder` so far."""
    text = json.dumps(sbom(artifact, contents, runtime, folder), indent=2)
    (folder / SBOM).write_text(text + "\n", encoding="utf-8")


def sbom(artifact: Artifact, contents: Contents, runtime: str, folder: Path) -> dict[str, Any]:
    """The bill of a bundle: its files with their checksums, the model, whose code is inside, and what compiled it."""
    materials = [_material(material) for material in contents.materials]
    model = _model(artifact)
    inside = [entry["bom-ref"] for entry in (*materials, model)]
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": list(_tools(contents.compiler))},
            "component": _bundle(artifact, runtime),
        },
        "components": [*materials, model, *_files(folder)],
        "dependencies": [{"ref": _BUNDLE, "dependsOn": inside}, *({"ref": ref} for ref in inside)],
    }
    return {"serialNumber": f"urn:uuid:{uuid.uuid5(_SERIALS, json.dumps(bill))}", **bill}


def _bundle(artifact: Artifact, runtime: str) -> dict[str, Any]:
    target = artifact.target
    facts = {"target": target.name, "triple": target.triple, "cpu": target.cpu, "runtime": runtime}
    return {
        "type": "application",
        "bom-ref": _BUNDLE,
        "name": f"model for {target.name}",
        "properties": [{"name": f"reconvene:{name}", "value": value} for name, value in facts.items()],
    }


def _material(material: Material) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "library", "bom-ref": material.name, "name": material.name}
    if material.version:
        entry["version"] = material.version
    entry["description"] = material.what
    if material.license:
        entry["licenses"] = [_license(material.license)]
    if material.package:
        entry["purl"] = _purl(material.name, material.version or "")
    return entry


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{quote(version)}"


def _license(expression: str) -> dict[str, Any]:
    return {"expression": expression} if " " in expression else {"license": {"id": expression}}


def _model(artifact: Artifact) -> dict[str, Any]:
    """The model, by the weights as its kernels read them."""
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": "model",
        "description": "the weights, in the order and the form in which the code takes them",
        "hashes": [{"alg": "SHA-256", "content": weights_digest(artifact.weights)}],
    }


def _files(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.iterdir()):
        checksum = {"alg": "SHA-256", "content": sha256(path)}
        yield {"type": "file", "bom-ref": f"file:{path.name}", "name": path.name, "hashes": [checksum]}


def _tools(compiler: Compiler | None) -> Iterator[dict[str, Any]]:
    """What made the bundle."""
    for name in ("reconvene", "apache-tvm", "torch"):
        version = metadata.version(name)
        yield {"type": "application", "name": name, "version": version, "purl": _purl(name, version)}
    yield {"type": "application", "name": "llvm", "version": str(codegen.llvm_version_major())}
    if compiler is not None:
        yield {
            "type": "application",
            "name": compiler.name,
            "version": compiler.version,
            "description": compiler.described,
        }
