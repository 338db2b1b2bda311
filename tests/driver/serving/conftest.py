"""One small portfolio, and one server of it, for all tests of serving."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconvene.driver.portfolio.manifest import Portfolio
from tests.support.portfolios import small_portfolio

from .servers import Server, healthy, serving


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Portfolio:
    """To be left as it is."""
    return small_portfolio(tmp_path_factory.mktemp("portfolios") / "tiny")


@pytest.fixture(scope="package")
def server(original: Portfolio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all checks that leave it as it was."""
    options = ("--variant", "large", "--timeout", "2", "--body-mib", "1")
    with serving(original.folder, tmp_path_factory.mktemp("server"), *options) as found:
        yield found
        healthy(found)
        assert not [line for line in found.lines if "Traceback" in line or "Error" in line]
