"""The lists in requirements/: what they hold, and that it is what constraints.txt pins."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

TOP = Path(__file__).parents[2]
LISTS = sorted((TOP / "requirements").glob("*.txt"))
GPU = re.compile(r"(nvidia|cuda)-|triton$")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[tuple[str, str], tuple[str, list[str]]]:
    """Condition and checksums of each name and version in a list."""
    found = {}
    for block in re.split(r"\n(?=[^ #])", "\n" + path.read_text(encoding="utf-8"))[1:]:
        first, *rest = [line.removesuffix("\\").strip() for line in block.splitlines() if not line.startswith("#")]
        requirement, _, condition = (part.strip() for part in first.partition(";"))
        name, version = requirement.split("==")
        found[plain(name), version.removesuffix("+cpu")] = (condition, rest)
    return found


PINNED = pins(TOP / "constraints.txt")
HASHED = [(path.name, name, pin) for path in LISTS for name, pin in pins(path).items()]


def test_every_pinned_package_is_in_a_list_with_its_version_and_every_listed_one_is_pinned():
    listed = {name for _, name, _ in HASHED if not GPU.match(name[0])}
    assert listed == set(PINNED)


def test_every_requirement_has_only_checksums_and_at_least_one():
    for file, name, (_, hashes) in HASHED:
        assert hashes, (file, name)
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), (file, name)
        assert len(set(hashes)) == len(hashes)


def test_a_package_is_in_one_list():
    names = [name for file, name, _ in HASHED if file != "torch-cpu.txt"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_a_machine_gets_one_version_of_each_package(machine, python):
    here = {"sys_platform": "linux", "platform_machine": machine, "python_version": python}
    here["python_full_version"] = f"{python}.9"
    taken = [name for file, (name, _), (condition, _) in HASHED if file != "torch-cpu.txt" and holds(condition, here)]
    assert len(set(taken)) == len(taken) and len(taken) > len(PINNED)


def holds(condition: str, machine: dict[str, str]) -> bool:
    return not condition or Marker(condition).evaluate(machine)


def test_no_address_is_in_a_list():
    assert not [path for path in LISTS if "://" in path.read_text() or "index-url" in path.read_text()]


def test_wheels_for_boards_are_those_of_the_lists():
    wheels = pins(TOP / "backends" / "bundles" / "runtime" / "wheels.txt")
    assert {name for name, _ in wheels} == {"apache-tvm", "apache-tvm-ffi"}
    assert wheels.items() <= pins(TOP / "requirements" / "environment.txt").items()


def test_what_is_installed_needs_nothing_that_no_list_has():
    """So that `make env`, which fetches what is listed and nothing else, is complete."""
    listed = {name for _, (name, _), _ in HASHED}
    queue, seen = [("reconvene", frozenset({"test", "demo"}))], set()
    while queue:
        name, extras = queue.pop()
        for needed in map(Requirement, metadata.requires(name) or ()):
            if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                continue
            item = plain(needed.name), frozenset(needed.extras)
            assert item[0] == "reconvene" or item[0] in listed, (name, needed)
            if item not in seen and not GPU.match(item[0]):
                seen.add(item)
                queue.append(item)
    assert len(seen) > 60
