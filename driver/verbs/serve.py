"""``reconvene serve``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...frontend.base.errors import InputError
from ...frontend.base.extras import install_command
from ..answer import Answer
from ..outputs import check_folder

if TYPE_CHECKING:
    from ..serving.policies import Policy
    from ..serving.service import Service

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene serve`` is told; see its help."""

    portfolio: str
    """A folder."""
    host: str = "127.0.0.1"
    port: int | None = None
    unix: Path | None = None
    target: str = "host"
    variant: str | None = None
    threads: int = 1
    private: bool = False
    policies: Sequence[str] = ()
    objective_ms: float | None = None
    reserve_mib: int = 256
    queue_high: float = 8.0
    dwell: float = 10.0
    queue: int = 64
    timeout: float = 30.0
    body_mib: int = 64
    bodies_mib: int = 256
    connections: int = 1024
    control: bool = True
    control_token: Path | None = None
    hosts: Sequence[str] = ()
    state: Path | None = None
    public_key: str | None = None


def run(request: Request, say: Callable[[str], None] | None = None) -> Answer:
    """Serves the portfolio until a signal comes; the answer says what was done."""
    try:
        from ..serving.control import read_token
        from ..serving.server import Address, listening, run_server
        from ..serving.service import Service, Settings
    except ImportError as error:
        raise InputError(f"serving needs {error.name}; run: {install_command('serve')}") from None
    from ...backends.machines.threads import available_threads
    from ..portfolio.manifest import open_portfolio
    from ..serving.governor import Governor
    from ..serving.limits import Limits
    from .signatures import signed_portfolio

    tell = say or (lambda line: print(line, file=sys.stderr, flush=True))
    if request.threads > available_threads():
        raise InputError(f"this machine runs at most {available_threads()} threads, got --threads {request.threads}")
    if request.state is not None:
        check_folder(request.state.absolute().parent)
        if request.state.is_dir():
            raise InputError(
                f"cannot note what is served in '{request.state}': it is a folder; name a file with --state"
            )
    signed = signed_portfolio(request.portfolio, request.public_key)
    portfolio = open_portfolio(request.portfolio, files=False, manifest_sha256=signed).built_for(request.target)
    settings = Settings(
        target=request.target,
        variant=request.variant,
        threads=request.threads,
        private=request.private,
        policy=_policy(request),
        governor=Governor(request.dwell),
        limits=Limits(
            connections=request.connections,
            queue=request.queue,
            timeout=request.timeout,
            body=request.body_mib << 20,
            bodies=request.bodies_mib << 20,
        ),
        control=request.control,
        token=read_token(request.control_token) if request.control else None,
        hosts=request.hosts,
        state=request.state,
    )
    port = request.port if request.port is not None or request.unix is not None else 8000
    service = Service(portfolio, settings, tell)
    _spare_the_collector()
    with listening(Address(request.host, port, request.unix)) as sockets:
        service.load()
        run_server(service, sockets, lambda places: tell(f"serving '{portfolio.name}' at {' and '.join(places)}"))
    return _answer(service)


def _spare_the_collector() -> None:
    """Exempts what has been imported by now from garbage collection: it never goes, and to walk through its hundreds of
    thousands of objects takes a quarter of a second, in which nobody is answered.
    """
    gc.collect()
    gc.freeze()


def _answer(service: Service) -> Answer:
    by_status = {str(status): count for status, count in sorted(service.requests.items())}
    data = {
        "portfolio": service.portfolio.name,
        "variant": service.active,
        "requests": by_status,
        "switches": dict(service.outcomes),
    }
    answered = service.requests[200]
    refused = service.requests.total() - answered
    line = (
        f"{answered:,} requests answered, {refused:,} refused; {service.outcomes['done']} switches,"
        f" {service.outcomes['failed']} failed; '{service.active}' was the last"
    )
    return Answer(data, lambda console: console.print(line, markup=False, highlight=False, soft_wrap=True))


def _policy(request: Request) -> Policy:
    from ..serving.policies import ByHand, Combined, LatencyObjective, MemoryAvailable, PowerHint, QueueLength

    if "latency" in request.policies and request.objective_ms is None:
        raise InputError("the policy latency needs --objective-ms")
    if "latency" not in request.policies and request.objective_ms is not None:
        raise InputError("--objective-ms is for --policy latency")
    made: dict[str, Callable[[], Policy]] = {
        "hand": ByHand,
        "latency": lambda: LatencyObjective(request.objective_ms or 0.0),
        "queue": lambda: QueueLength(request.queue_high, request.queue_high / 4),
        "memory": lambda: MemoryAvailable(request.reserve_mib << 20),
        "power": PowerHint,
    }
    unknown = [name for name in request.policies if name not in made]
    if unknown:
        raise InputError(f"no policy is called '{unknown[0]}'; there are {', '.join(made)}")
    return Combined(tuple(made[name]() for name in dict.fromkeys(request.policies))) if request.policies else ByHand()
