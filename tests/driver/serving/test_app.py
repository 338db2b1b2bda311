"""The application without a server: a queue that nobody works off, computations that fail, and what clients are told."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from reconvene.driver.portfolio.manifest import Portfolio, open_portfolio
from reconvene.driver.serving.app import make_app
from reconvene.driver.serving.service import Service, Settings
from reconvene.frontend.errors import InputError
from tests.support.portfolios import INPUTS, WIDTHS, network

REQUEST = {"inputs": [{"name": "input", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": INPUTS[0].ravel().tolist()}]}
EXPECTED = network(WIDTHS["large"])(*INPUTS).detach().numpy()
INFER = "/v2/models/tiny/infer"


@pytest.fixture
def portfolio(original: Portfolio, tmp_path: Path) -> Portfolio:
    """A copy to spoil."""
    return open_portfolio(shutil.copytree(original.folder, tmp_path / "tiny"))


def told(
    portfolio: Portfolio,
    tmp_path: Path,
    talk: Callable[[httpx.AsyncClient, Service], Awaitable[None]],
    **settings: Any,
) -> list[str]:
    """What the service says while `talk` talks to it. Its queue is worked off only after ``service.open()``."""
    lines: list[str] = []
    service = Service(portfolio, Settings(state=tmp_path / "state.json", **settings), lines.append)
    service.load()

    async def conversation() -> None:
        transport = httpx.ASGITransport(app=make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            await talk(client, service)
        await service.close()

    asyncio.run(conversation())
    return lines


def test_requests_that_wait_too_long(portfolio: Portfolio, tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.post(INFER, json=REQUEST)
        assert (answer.status_code, answer.json()) == (504, {"error": "the request took longer than 0.05 s"})
        # Nobody computes what nobody waits for, and what comes later is answered.
        service.open()
        while service.engine.pending:
            await asyncio.sleep(0.01)
        assert service.requests == {504: 1}

    told(portfolio, tmp_path, talk, timeout=0.05)


def test_a_full_queue(portfolio: Portfolio, tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        waiting = [asyncio.create_task(client.post(INFER, json=REQUEST)) for _ in range(3)]
        while service.engine.pending < 3:
            await asyncio.sleep(0.01)
        refused = await client.post(INFER, json=REQUEST)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json() == {"error": "the queue is full; ask again in 1 s"}
        assert "reconvene_queue_length 3.0" in (await client.get("/metrics")).text
        service.open()
        for answer in await asyncio.gather(*waiting):
            np.testing.assert_allclose(answer.json()["outputs"][0]["data"], EXPECTED.ravel(), atol=1e-5)
        assert service.requests == {503: 1, 200: 3}

    told(portfolio, tmp_path, talk, queue=3)


def test_a_fault_of_ours_is_told_and_not_shown(
    portfolio: Portfolio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        service.open()
        with monkeypatch.context() as patch:
            patch.setattr(service.engine, "_computed", lambda job: 1 // 0)
            answer = await client.post(INFER, json=REQUEST)
        assert (answer.status_code, answer.json()) == (500, {"error": "internal error: ZeroDivisionError"})
        assert (await client.post(INFER, json=REQUEST)).status_code == 200

    lines = told(portfolio, tmp_path, talk)
    assert "internal error: ZeroDivisionError: integer division or modulo by zero; please report it" in lines


def test_a_state_file_that_cannot_be_written(portfolio: Portfolio, tmp_path: Path) -> None:
    """The switch stands, and whoever runs the server is told."""

    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        service.open()
        (tmp_path / "state.json").unlink()
        (tmp_path / "state.json").mkdir()
        wish = {"parameters": {"variant": "small"}}
        answer = await client.post("/v2/repository/models/tiny/load", json=wish)
        assert (answer.status_code, service.active) == (200, "small")

    lines = told(portfolio, tmp_path, talk)
    assert any(line.startswith(f"cannot write '{tmp_path / 'state.json'}'") for line in lines)


def test_nothing_can_be_loaded(portfolio: Portfolio, tmp_path: Path) -> None:
    shutil.rmtree(portfolio.folder / "variants")
    lines: list[str] = []
    service = Service(portfolio, Settings(state=tmp_path / "state.json"), lines.append)
    with pytest.raises(InputError, match=r"no variant can be served: portfolio .* lacks"):
        service.load()
