"""What writes the lists: which requirements are taken, and how they are written."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lock() -> Any:
    spec = importlib.util.spec_from_file_location("lock", TOP / "requirements" / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("first", "taken"),
    [
        ("a==1", "a==1"),
        ("a==1 ; sys_platform == 'win32'", None),
        ("a==1 ; sys_platform != 'emscripten' and platform_python_implementation != 'PyPy'", "a==1"),
        ("a==1 ; sys_platform == 'linux'", "a==1 ; sys_platform == 'linux'"),
        ("a==1 ; python_full_version < '3.12'", "a==1 ; python_full_version < '3.12'"),
        ("a==1 ; python_full_version >= '3.14'", None),
        ("a==1 ; platform_machine == 'arm64'", "a==1 ; platform_machine == 'arm64'"),
    ],
)
def test_a_condition_is_kept_where_it_decides(lock: Any, first: str, taken: str | None) -> None:
    assert lock.wanted(first) == taken


def test_lists_are_as_they_would_be_written_again(lock: Any) -> None:
    for name, title in lock.TITLES.items():
        text = (TOP / "requirements" / f"{name}.txt").read_text()
        blocks = [block.split(" \\\n") for block in re.split(r"\n(?=\S)", text.rstrip("\n"))[2:]]
        packages = {first: tuple(hashes) for first, *hashes in blocks}
        assert lock.text_of(title, packages) == text


def test_torch_and_what_gpus_need_have_lists_of_their_own(lock: Any) -> None:
    names = ("torch==2", "triton==3", "nvidia-cublas==13 ; sys_platform == 'linux'", "cuda-toolkit==13")
    assert [lock.own_list(name) for name in names] == ["torch", "cuda", "cuda", "cuda"]
    assert [lock.own_list(name) for name in ("torchvision==0", "torch-pruning==1", "tritonclient==2")] == [None] * 3
