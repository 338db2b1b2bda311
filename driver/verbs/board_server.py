"""``reconvene board-server``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...frontend.base.progress import stage
from ..answer import Answer, files_line, says
from ..outputs import check_folder

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene board-server`` is told; see its help."""

    target: str
    output: Path
    runtime: str | None = None


def run(request: Request) -> Answer:
    from ...backends.boards.server import check_server_runtime, write_server
    from ...backends.machines.targets import find_target

    target, output = request.target, request.output
    chosen = find_target(target)
    made_with = check_server_runtime(chosen, request.runtime)
    check_folder(output)
    with stage("making the server"):
        write_server(chosen, output, made_with)
    files = {"server": str(output)}
    data = {"target": target, "runtime": made_with, "files": files}
    return Answer(
        data, says(f"a server for {target}; copy it there and start {output.name}/reconvene-server", files_line(files))
    )
