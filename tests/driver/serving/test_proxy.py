"""The proxy that the tutorial puts in front of the server: its paths, ports and sizes are the server's, and it may switch."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.routing import Match, Route

from reconvene.driver.cli import command_line
from reconvene.driver.portfolio.manifest import Portfolio
from reconvene.driver.serving.app import make_app
from reconvene.driver.serving.control import Control
from reconvene.driver.serving.protocol import RequestError
from reconvene.driver.serving.service import Service, Settings
from reconvene.driver.verbs import serve as verb

TEXT = (Path(__file__).parents[3] / "docs" / "tutorial-serve.md").read_text(encoding="utf-8")
(PROXY,) = re.findall(r"```nginx\n(.*?)```", TEXT, re.DOTALL)
(CALL,) = re.findall(r"^ +reconvene (serve .*--allow-host.*)$", TEXT, re.MULTILINE)


def test_ports_names_and_sizes_are_those_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[verb.Request] = []
    monkeypatch.setattr(verb, "run", lambda request: calls.append(request) or 1 // 0)
    with pytest.raises(ZeroDivisionError):
        command_line.app(shlex.split(CALL), standalone_mode=False)
    (request,) = calls
    assert set(re.findall(r"proxy_pass http://127\.0\.0\.1:(\d+);", PROXY)) == {str(request.port)}
    assert (request.host, inspect.signature(verb.Request).parameters["host"].default) == ("127.0.0.1", "127.0.0.1")
    assert re.findall(r"client_max_body_size (\d+)m;", PROXY) == [str(request.body_mib)]
    assert re.findall(r"server_name (\S+);", PROXY) == list(request.hosts)
    assert request.control_token is not None


def test_only_switching_goes_without_a_password(original: Portfolio, tmp_path: Path) -> None:
    locations = dict(re.findall(r"location (\S+) \{(.*?)\}", PROXY, re.DOTALL))
    (open_to_all,) = (place for place, lines in locations.items() if "auth_basic" not in lines)
    app = make_app(Service(original, Settings(state=tmp_path / "state.json"), print))
    beneath = {route.path for route in app.routes if isinstance(route, Route) and route.path.startswith(open_to_all)}
    assert beneath == {"/v2/repository/models/{model}/load"}
    scope = {"type": "http", "method": "POST", "path": f"{open_to_all}tiny/load"}
    assert any(route.matches(scope)[0] is Match.FULL for route in app.routes)


def test_what_it_passes_on_may_switch_with_the_token_alone() -> None:
    (name,) = re.findall(r"server_name (\S+);", PROXY)
    assert "proxy_set_header Host $host;" in PROXY
    control = Control([name], "0123456789abcdef")
    headers = {"host": name, "content-type": "application/json"}
    with pytest.raises(RequestError, match="needs the control token"):
        control.check(Headers(headers), False)
    control.check(Headers({**headers, "authorization": "Bearer 0123456789abcdef"}), False)
