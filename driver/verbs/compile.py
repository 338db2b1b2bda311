"""``reconvene compile``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.files import write_text
from ...frontend.base.progress import stage
from .. import api
from ..answer import Answer, files_line, says
from ..example_inputs import nested
from ..models import load_model
from ..outputs import check_folder, check_report, suffixed
from ..reports.kernels import KernelReport
from ..wording import kept, size

if TYPE_CHECKING:
    from ...backends.built import Built
    from ...backends.bundles.manifest import Runtime

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene compile`` is told; see its help."""

    model: str
    target: str = "host"
    threads: int = 1
    link: bool = True
    runtime: str | None = None
    winograd: str = "auto"
    choose: str = "model"
    on: str | None = None
    key_file: Path | None = None
    cache: bool = True
    tune: int = 0
    dtype: str = "float32"
    codes: str | None = None
    check: bool = True
    check_files: tuple[Path, ...] = ()
    """Inputs of one call each."""
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    """Sizes that the model must let vary; the code is for those of the inputs."""
    output: Path | None = None
    report: Path | None = None
    seed: int = 0

    def runtime_chosen(self) -> Runtime:
        """What the bundle runs with. Raises InputError if the target has no such runtime, or that has no threads."""
        from ...backends.bundles.write import check_runtime
        from ...backends.machines.targets import find_target

        chosen = check_runtime(find_target(self.target), self.runtime, self.link)
        if chosen == "none" and self.threads > 1:
            raise InputError(
                f"--threads has no meaning for '{self.target}' without a runtime, whose kernels run in turn; leave it out,"
                " or name another --runtime"
            )
        return chosen

    def options(self) -> dict[str, Any]:
        """Those of `api.compile`. Raises InputError if the board is none, or its key cannot be read."""
        from ...backends.boards.place import parse_place

        return {
            "threads": self.threads,
            "winograd": self.winograd,
            "choose": self.choose,
            "on": None if self.on is None else parse_place(self.on, self.key_file),
            "cache": self.cache,
            "tune": self.tune,
            "dtype": self.dtype,
            "codes": self.codes,
            "check": self.check,
        }


def run(request: Request) -> Answer:
    from ..arrays import read_arrays

    runtime = request.runtime_chosen()
    if request.output is not None:
        check_folder(request.output)
    check_report(request.report)
    options = request.options()
    loaded = load_model(request.model, request.inputs, request.seed, request.dynamic, weights=request.weights)
    check_inputs = [nested(read_arrays(path), loaded.example_inputs) for path in request.check_files]
    folder = request.output or suffixed(loaded.beside, f"-{Path(request.target).stem}")
    check_folder(folder)
    built = api.compile(loaded.module, loaded.example_inputs, request.target, check_inputs=check_inputs, **options)
    with stage("writing the bundle"):
        linked_with = runtime if request.link else None
        built.export(folder, link=request.link, runtime=linked_with, certificate=loaded.certificate)
    kernels = KernelReport.of(built, loaded.name, loaded.module)
    files = {"bundle": str(folder)}
    if request.report is not None:
        write_text(request.report, kernels.to_html() if request.report.suffix == ".html" else kernels.to_json())
        files["report"] = str(request.report)
    return _answer(request, built, kernels, runtime, files)


def _answer(request: Request, built: Built, kernels: KernelReport, runtime: Runtime, files: dict[str, str]) -> Answer:
    from ...backends.choosing.general_code import told
    from ...backends.state import described

    memory, state = built.memory, described(built.state)
    needs = (
        f"memory: weights {size(memory.weights_bytes)}; values between kernels {size(memory.arena_bytes)}, of which"
        f" {size(memory.live_bytes)} are needed at the same time"
    )
    if built.state:
        needs += f"; state {size(memory.state_bytes)}"
    better = sum(kernel.kept for kernel in built.tuned)
    tuned = f"tuned: {better} of {len(built.tuned)} kernels are faster than with our schedule"
    data = {
        "model": kernels.title,
        "target": request.target,
        "runtime": runtime,
        "threads": request.threads,
        "inputs": [spec.plain() for spec in built.inputs],
        "outputs": [spec.plain() for spec in built.outputs],
        "memory": dataclasses.asdict(memory),
        "state": state,
        "tuned": [dataclasses.asdict(kernel) for kernel in built.tuned],
        "kernels": kernels.to_dict(),
        "general": [dataclasses.asdict(code) for code in built.general],
        "files": files,
    }
    what = f"{kernels.title} compiled for {request.target}, for inputs of {', '.join(map(str, built.inputs))}"
    coded = [f"output '{spec.name}' is {spec}" for spec in built.outputs if spec.codes is not None]
    slow = told(built.general)
    lines = (what, *coded, needs, *kept(state), *([tuned] if request.tune else []), *([slow] if slow else []))

    def show(console: Console) -> None:
        says(*lines)(console)
        if kernels.sparse:
            console.print(kernels.table())
        if kernels.sparse or kernels.foreign or kernels.quantised or kernels.floats:
            says(*kernels.lines())(console)
        says(files_line(files))(console)

    return Answer(data, show)
