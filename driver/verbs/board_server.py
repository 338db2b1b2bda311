"""``reconvene server``."""

from __future__ import annotations

from pathlib import Path

from ...frontend.base.progress import stage
from ..answer import Answer, files_line, says
from ..outputs import check_folder

__all__ = ["run"]


def run(target: str, runtime: str | None, output: Path) -> Answer:
    from ...backends.boards.server import check_server_runtime, write_server
    from ...backends.machines.targets import find_target

    chosen = find_target(target)
    made_with = check_server_runtime(chosen, runtime)
    check_folder(output)
    with stage("making the server"):
        write_server(chosen, output, made_with)
    files = {"server": str(output)}
    data = {"target": target, "runtime": made_with, "files": files}
    return Answer(
        data, says(f"a server for {target}; copy it there and start {output.name}/reconvene-server", files_line(files))
    )
