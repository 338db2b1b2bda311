"""The service over HTTP: the open inference protocol, switching by hand, and metrics.

Names in a request are only ever compared with those of the portfolio; none becomes a path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib import metadata
from time import perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .bodies import while_there
from .engine import BusyError, OtherVariantError
from .metrics import CONTENT_TYPE
from .protocol import LENGTH_HEADER, RequestError, json_object, tensor_metadata
from .service import Service
from .statistics import Spent, configuration

__all__ = ["make_app"]

Handler = Callable[[Request], Awaitable[Response]]

_PLATFORM = "reconvene_tvm"


def make_app(service: Service) -> Starlette:
    """The application that serves `service`, which it opens and closes."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.open()
        yield
        await service.close()

    handlers = _Handlers(service)
    model = "/v2/models/{model}"
    version = model + "/versions/{version}"
    control = [Route("/v2/repository/models/{model}/load", handlers.load, methods=["POST"])] * service.settings.control
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v2/health/live", handlers.alive),
            Route("/v2/health/ready", handlers.ready),
            Route("/v2", handlers.server),
            Route("/v2/models/stats", handlers.statistics),
            Route(model, handlers.model),
            Route(version, handlers.model),
            Route(f"{model}/config", handlers.configuration),
            Route(f"{version}/config", handlers.configuration),
            Route(f"{model}/stats", handlers.statistics),
            Route(f"{version}/stats", handlers.statistics),
            Route(f"{model}/ready", handlers.model_ready),
            Route(f"{version}/ready", handlers.model_ready),
            Route(f"{model}/infer", handlers.infer, methods=["POST"]),
            Route(f"{version}/infer", handlers.infer, methods=["POST"]),
            Route("/v2/repository/index", handlers.index, methods=["POST"]),
            *control,
            Route("/metrics", handlers.metrics),
            Route("/status", handlers.status),
        ],
        exception_handlers={
            HTTPException: _http_error,
            RequestError: handlers.request_error,
            BusyError: handlers.busy,
            Exception: handlers.fault,
        },
    )


class _Handlers:
    """What is behind the routes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._portfolio = service.portfolio

    async def alive(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def server(self, request: Request) -> Response:
        extensions = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
        return JSONResponse({"name": "reconvene", "version": metadata.version("reconvene"), "extensions": extensions})

    async def model(self, request: Request) -> Response:
        self._check_names(request)
        portfolio = self._portfolio
        return JSONResponse(
            {
                "name": portfolio.name,
                "versions": [variant.name for variant in portfolio.variants],
                "platform": _PLATFORM,
                "inputs": tensor_metadata(portfolio.inputs),
                "outputs": tensor_metadata(portfolio.outputs),
            }
        )

    async def configuration(self, request: Request) -> Response:
        return JSONResponse(configuration(self._portfolio, _PLATFORM, self._versions(self._check_names(request))))

    async def statistics(self, request: Request) -> Response:
        """Of one version, or of all of them."""
        version = self._check_names(request) if "model" in request.path_params else None
        return JSONResponse(self._service.statistics.plain(self._versions(version)))

    def _versions(self, version: str | None) -> list[str]:
        return [variant.name for variant in self._portfolio.variants] if version is None else [version]

    async def model_ready(self, request: Request) -> Response:
        version = self._check_names(request)
        if version not in (None, self._service.active):
            raise RequestError(f"variant '{version}' is not loaded; '{self._service.active}' is", 503)
        return JSONResponse({"name": self._portfolio.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        began = perf_counter()
        try:
            response = await self._inferred(request)
        except RequestError as error:
            response = await self.request_error(request, error)
        except BusyError as error:
            self._service.met("queue")
            response = await self.busy(request, error)
        except Exception as error:
            response = await self.fault(request, error)
        self._service.counted(response.status_code)
        if response.status_code != 200:
            self._service.statistics.failed(self._meant(request), perf_counter() - began)
        return response

    def _meant(self, request: Request) -> str:
        """The variant that a request asks for, or else the one that answers."""
        version = request.path_params.get("version")
        return version if version in self._versions(None) else self._service.active

    async def _inferred(self, request: Request) -> Response:
        version = self._check_names(request)
        service, limits = self._service, self._service.settings.limits
        async with service.bodies.read(request, limits.body) as body:
            try:
                async with asyncio.timeout(limits.timeout):
                    return await self._computed(request, body, version)
            except OtherVariantError as error:
                raise RequestError(str(error), 409) from None
            except TimeoutError:
                raise RequestError(f"the request took longer than {limits.timeout:g} s", 504, "timeout") from None

    async def _computed(self, request: Request, body: bytes, version: str | None) -> Response:
        service, codec, header = self._service, self._service.codec, request.headers.get(LENGTH_HEADER)
        began = perf_counter()
        long = codec.is_long(body, header)
        asked = await while_there(request, codec.long_request(body, header)) if long else codec.request(body, header)
        read = perf_counter()
        answer = await while_there(request, service.engine.answer(asked.inputs, version))
        service.metrics.answered(answer.variant, answer.seconds)
        computed = perf_counter()
        content, length = await codec.answer(self._portfolio.name, answer.variant, asked, answer.outputs)
        done = perf_counter()
        spent = Spent(answer.seconds - answer.busy, read - began, answer.busy, done - computed)
        service.statistics.answered(answer.variant, done - began, spent)
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={LENGTH_HEADER: str(length)}, media_type="application/octet-stream")

    async def index(self, request: Request) -> Response:
        active = self._service.active
        return JSONResponse(
            [
                {
                    "name": self._portfolio.name,
                    "version": variant.name,
                    "state": "READY" if variant.name == active else "UNAVAILABLE",
                    "reason": "" if variant.name == active else "not loaded",
                }
                for variant in self._portfolio.variants
            ]
        )

    async def load(self, request: Request) -> Response:
        service = self._service
        service.control.check(request.headers, getattr(request.state, "unix", False))
        self._check_names(request)
        async with service.bodies.read(request, service.settings.limits.control_body) as body:
            name = _wanted_variant(json_object(body) if body else {})
        if all(variant.name != name for variant in self._portfolio.variants):
            raise RequestError(f"portfolio '{self._portfolio.name}' has no variant {name!r}", 404)
        found = await while_there(request, service.wish(name))
        if found.error is not None:
            raise RequestError(found.error, 422)
        return JSONResponse(asdict(found))

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE)

    async def status(self, request: Request) -> Response:
        service = self._service
        return JSONResponse(
            {
                "portfolio": self._portfolio.name,
                "active": service.active,
                "queue": service.engine.pending,
                "policy": service.reason,
                "switches": [asdict(switch) for switch in service.switches],
            }
        )

    async def request_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        if error.limit is not None:
            self._service.met(error.limit)
        headers = {"Retry-After": "1"} if error.status == 503 else {}
        headers |= {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return _error(error.status, str(error), headers)

    async def busy(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, BusyError)
        return _error(503, str(error), {"Retry-After": str(error.seconds)})

    async def fault(self, request: Request, error: Exception) -> Response:
        """A fault of ours; what it was about is for whoever runs the server, who sees it in the log."""
        self._service.fault(error)
        return _error(500, f"internal error: {type(error).__name__}")

    def _check_names(self, request: Request) -> str | None:
        """The version that the path names, if it does."""
        model, version = request.path_params["model"], request.path_params.get("version")
        if model != self._portfolio.name:
            raise RequestError(f"there is no model {model!r}; there is '{self._portfolio.name}'", 404)
        if version is not None and all(variant.name != version for variant in self._portfolio.variants):
            raise RequestError(f"model '{model}' has no version {version!r}", 404)
        return version


def _wanted_variant(request: Mapping[str, Any]) -> str:
    """The variant that a request to load names: ``{"parameters": {"variant": NAME}}``, or a model configuration as clients
    of other servers send it, with a version policy that names one version.
    """
    parameters = request.get("parameters")
    if isinstance(parameters, dict):
        found = parameters.get("variant")
        if found is None and isinstance(parameters.get("config"), str):
            found = json_object(parameters["config"].encode("utf-8", "replace"))
            for key in ("version_policy", "specific", "versions"):
                found = found.get(key) if isinstance(found, dict) else None
            found = found[0] if isinstance(found, list) and len(found) == 1 else None
        if isinstance(found, str):
            return found
    raise RequestError('name a variant, as in {"parameters": {"variant": "NAME"}}')


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}", error.headers)
