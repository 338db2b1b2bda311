"""What pages and docstrings name is there under that name: functions of the API's page, verbs and options, modules."""

from __future__ import annotations

import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from reconvene.driver.cli.command_line import app

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
PACKAGES = ("frontend", "passes", "backends", "driver")
SOURCES = sorted(
    path for name in (*PACKAGES, "reconvene", "benchmarks", "tests") for path in (TOP / name).rglob("*.py")
)
VERBS = getattr(get_command(app), "commands")  # noqa: B009
_CALL = re.compile(r"(?:^    |`)reconvene ([a-z][a-z-]*)((?:(?!reconvene )[^`#|])*)", re.MULTILINE)


def test_the_page_of_the_api_names_what_there_is() -> None:
    text = (TOP / "docs/api.md").read_text(encoding="utf-8")
    listed = re.findall(r"automodule:: (\S+)\n +:members: ([^\n]+)", text)
    assert len(listed) > 5
    for name, members in listed:
        module = importlib.import_module(name)
        assert not [member for member in members.split(", ") if not hasattr(module, member)], name


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_verbs_and_options_are_those_of_the_command_line(page: Path) -> None:
    for name, rest in _CALL.findall(re.sub(r"\\\n *", "", page.read_text(encoding="utf-8"))):
        assert name in VERBS, name
        known = {option for parameter in VERBS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", re.split(r"\n|  ", rest)[0]))
        assert given <= known | {"--help"}, name


def named(path: Path) -> Iterator[str]:
    """What is in backquotes in the comments and texts of a file and begins with one of our packages."""
    with tokenize.open(path) as stream:
        tokens = [*tokenize.generate_tokens(io.StringIO(stream.read()).readline)]
    for token in tokens:
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from re.findall(rf"`(?:reconvene\.)?((?:{'|'.join(PACKAGES)})(?:\.\w+)+)`", token.string)


def is_there(name: str) -> bool:
    """Whether the dotted name leads to a file, and what is behind that to a word in it."""
    place, (top, *parts) = TOP, name.split(".")
    place /= top
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if parts and (place / f"{parts[0]}.py").is_file():
        place /= f"{parts.pop(0)}.py"
    file = place if place.is_file() else place / "__init__.py"
    return not parts or re.search(rf"\b{parts[0]}\b", file.read_text(encoding="utf-8")) is not None


def test_modules_that_docstrings_name_are_there() -> None:
    names = [(path, name) for path in SOURCES for name in named(path)]
    assert len(names) > 5
    assert [(str(path), name) for path, name in names if not is_there(name)] == []
