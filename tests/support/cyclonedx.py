"""CycloneDX's own schema of its bills of materials, version 1.6, without the explanations in it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, FormatChecker
from referencing import Registry, Resource

__all__ = ["problems"]

_FOLDER = Path(__file__).parent / "schemas"


def problems(bill: Any) -> list[str]:
    """What the schema finds wrong with a bill."""
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in _validator().iter_errors(bill)]


@cache
def _validator() -> Draft7Validator:
    schemas = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(_FOLDER.glob("*.schema.json"))]
    registry: Registry[Any] = Registry().with_resources(
        [(schema["$id"], Resource.from_contents(schema)) for schema in schemas]
    )
    bills = next(schema for schema in schemas if "bom-1.6" in schema["$id"])
    return Draft7Validator(bills, registry=registry, format_checker=FormatChecker())
