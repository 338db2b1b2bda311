"""One small portfolio for all tests of serving."""

from __future__ import annotations

import pytest

from reconvene.driver.portfolio.manifest import Portfolio
from tests.support.portfolios import small_portfolio


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Portfolio:
    """To be left as it is."""
    return small_portfolio(tmp_path_factory.mktemp("portfolios") / "tiny")
