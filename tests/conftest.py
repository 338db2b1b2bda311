"""What every test may rely on: a torchvision that imports, one seed, and no memory of the user's own settings."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

# Before torch is loaded. Each of pytest's workers has a core; threads that wait for work of torch's would keep another busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

from reconvene.frontend.base.dump import watching
from tests.support.golden import OPTION, golden  # noqa: F401
from tests.support.legal import check_stage
from tests.support.tools import INSTALL, OPTIONAL, missing

# torchvision's registry build declares two operators in a library made for CUDA. Its models need only the
# declarations. The reference is kept: they go with it.
TORCHVISION_OPERATORS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    TORCHVISION_OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


# No test is about time: a busy machine takes as long as it takes, to draw examples too.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def legal_stages() -> Iterator[None]:
    """In every test, what is legal after each stage of `compact` and `compile` holds."""
    with watching(check_stage):
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        OPTION, action="store_true", help="write the texts that tests compare with, see tests/support/golden.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*tools): tools that the check needs, of tests/support/tools.py")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: it is no garbage to look through, each time that a graph was made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a check whose tools are not here; where none may be skipped (``RECONVENE_SKIP_NONE``), fails it,
    unless only tools are missing that are too large to ask for."""
    lacking = [tool for mark in item.iter_markers("needs") for tool in mark.args if missing(tool)]
    if lacking:
        reason = f"needs {', '.join(lacking)}: {'; '.join(dict.fromkeys(INSTALL[tool] for tool in lacking))}"
        strict = os.environ.get("RECONVENE_SKIP_NONE") and not OPTIONAL.issuperset(lacking)
        (pytest.fail if strict else pytest.skip)(reason)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Names every check that was skipped, and what would let it run."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    terminalreporter.section(f"{len(skipped)} checks were skipped")
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        terminalreporter.line(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")
