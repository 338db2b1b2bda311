"""The application without a server: a queue that nobody works off, computations that fail, and what clients are told."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from starlette.requests import Request

from reconvene.driver.portfolio.manifest import Portfolio, open_portfolio
from reconvene.driver.serving.app import make_app
from reconvene.driver.serving.bodies import while_there
from reconvene.driver.serving.limits import Limits
from reconvene.driver.serving.protocol import RequestError
from reconvene.driver.serving.service import Service, Settings
from reconvene.frontend.base.errors import InputError
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
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
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

    told(portfolio, tmp_path, talk, limits=Limits(timeout=0.05))


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

    told(portfolio, tmp_path, talk, limits=Limits(queue=3))


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


def test_long_json_is_the_work_of_another_process(portfolio: Portfolio, tmp_path: Path) -> None:
    """Requests and answers; what is wrong with them is told as ever. That process knows neither torch nor TVM."""

    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        service.open()
        given = [*REQUEST["inputs"], {"name": "input"}]
        for _ in range(2):
            answer = await client.post(INFER, json=REQUEST)
            np.testing.assert_allclose(answer.json()["outputs"][0]["data"], EXPECTED.ravel(), atol=1e-5)
            refused = await client.post(INFER, json={"inputs": given})
            assert (refused.status_code, refused.json()) == (400, {"error": "input 'input' is given twice"})
        pool = service.codec._pool
        assert pool is not None
        assert not {"torch", "tvm"} & set(await asyncio.wrap_future(pool.submit(eval, "[*__import__('sys').modules]")))
        # Somebody, such as the system without memory, ends it: that request is lost, and no other.
        (process,) = pool._processes.values()
        process.kill()
        lost = await client.post(INFER, json=REQUEST)
        assert lost.status_code == 503 and "raw bytes" in lost.json()["error"]
        assert (await client.post(INFER, json=REQUEST)).status_code == 200

    told(portfolio, tmp_path, talk, limits=Limits(inline=300))


def test_bodies_find_room_beside_each_other(portfolio: Portfolio, tmp_path: Path) -> None:
    sizes = Limits(body=20_000, bodies=25_000, small=1000)

    async def part() -> AsyncIterator[bytes]:
        yield b" " * 15_000
        await held.wait()

    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        service.open()
        holding = asyncio.create_task(client.post(INFER, content=part()))
        while not service.bodies.held:
            await asyncio.sleep(0.001)
        assert service.bodies.held == 14_000
        refused = await client.post(INFER, content=b" " * 12_001)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json() == {"error": "the requests under way leave no memory; try again later"}
        # Small ones are always let in, and what is refused is held no longer.
        assert (await client.post(INFER, json=REQUEST)).status_code == 200
        assert (await client.post(INFER, content=b" " * 11_000)).status_code == 400
        held.set()
        assert (await holding).status_code == 400
        assert service.bodies.held == 0
        assert 'reconvene_limits_total{limit="bodies"} 1.0' in (await client.get("/metrics")).text

    held = asyncio.Event()
    told(portfolio, tmp_path, talk, limits=sizes)


def test_wishes_that_nobody_waits_for_are_forgotten(portfolio: Portfolio, tmp_path: Path) -> None:
    load, go_on = "/v2/repository/models/tiny/load", threading.Event()

    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        # The loader is busy, as with a large variant.
        service.switcher._loader.submit(go_on.wait)
        wishes = [asyncio.create_task(client.post(load, json=variant(name))) for name in ("middle", "small")]
        await asyncio.sleep(0.02)
        refused = await client.post(load, json=variant("middle"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json() == {"error": "too many wishes for a variant wait; ask again in 1 s"}
        wishes.pop(0).cancel()
        await asyncio.sleep(0.02)
        late = await client.post(load, json=variant("middle"))
        assert (late.status_code, late.json()) == (504, {"error": "the turn of the switch did not come within 0.3 s"})
        assert (await wishes.pop()).status_code == 504
        go_on.set()
        assert (await client.post(load, json=variant("large"))).status_code == 200
        assert [switch.wanted for switch in service.switches] == ["large"] and service.active == "large"

    told(portfolio, tmp_path, talk, limits=Limits(switches=2, timeout=0.3), variant="large")


def test_a_switch_that_has_begun_is_carried_out_and_noted(portfolio: Portfolio, tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        wish = asyncio.create_task(service.wish("small"))
        while service.active != "small":
            wish.cancel()
            await asyncio.sleep(0)
            if wish.done():
                wish = asyncio.create_task(service.wish("small"))
                await asyncio.sleep(0.002)
        while len(service.switches) < 2:
            await asyncio.sleep(0.001)
        assert service.outcomes == {"done": 2, "failed": 0}

    told(portfolio, tmp_path, talk, variant="large")


def variant(name: str) -> dict[str, Any]:
    return {"parameters": {"variant": name}}


def test_clients_that_go_away(portfolio: Portfolio, tmp_path: Path) -> None:
    """Their work is cancelled, whether it was begun or not, and leaves the queue."""

    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        request = Request({"type": "http"}, receive)
        waiting = asyncio.create_task(while_there(request, service.engine.answer([INPUTS[0].numpy()])))
        while not service.engine.pending:
            await asyncio.sleep(0.001)
        left.set()
        with pytest.raises(RequestError, match="the client went away"):
            await waiting
        assert service.engine.pending == 0

    told(portfolio, tmp_path, talk)


def test_only_some_may_switch(portfolio: Portfolio, tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        service.open()
        load, token = "/v2/repository/models/tiny/load", {"Authorization": "Bearer 0123456789abcdef"}
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer no"}, 401),
            (token | {"Host": "evil.example"}, 403),
            (token | {"Origin": "http://evil.example"}, 403),
            (token | {"Content-Type": "text/plain"}, 415),
            (token, 200),
        ):
            answer = await client.post(load, json=variant("small"), headers=headers)
            assert answer.status_code == status and (answer.headers.get("www-authenticate") == "Bearer") == (
                status == 401
            )
        # It is only about switching.
        assert (await client.post(INFER, json=REQUEST, headers={"Host": "evil.example"})).status_code == 200
        assert 'reconvene_limits_total{limit="control"} 5.0' in (await client.get("/metrics")).text

    told(portfolio, tmp_path, talk, token="0123456789abcdef")


def test_files_that_are_overwritten_and_shortened(portfolio: Portfolio, tmp_path: Path) -> None:
    """Copies are sealed: the answers stay, also after a switch there and back."""

    async def talk(client: httpx.AsyncClient, service: Service) -> None:
        service.open()
        for name in ("large", "small", "large"):
            assert (await service.wish(name)).error is None
            for path in (portfolio.folder / "variants" / name / "host").iterdir():
                spoilt[path] = path.read_bytes()
                os.truncate(path, 0)
                path.write_bytes(bytes(100))
            answer = (await client.post(INFER, json=REQUEST)).json()
            assert answer["model_version"] == name
            expected = network(WIDTHS[name])(*INPUTS).detach().numpy()
            np.testing.assert_allclose(answer["outputs"][0]["data"], expected.ravel(), atol=1e-5)
            assert (await service.wish("middle")).error is None
            while spoilt:
                path, contents = spoilt.popitem()
                path.write_bytes(contents)

    spoilt: dict[Path, bytes] = {}
    told(portfolio, tmp_path, talk, private=True)
