"""The work behind each verb of the command line. Outputs are checked before long work begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_regular, write_text
from ...frontend.base.progress import stage
from ...frontend.base.tensor_files import parse_tensors
from ...frontend.program_file import check_onnx, export_onnx, save_program
from ...frontend.state import state_of
from ...passes.plan import Plan
from ...passes.pruning.methods.reconvene import recipe_options
from .. import api
from ..answer import Answer, files_line, latency_table, size_table, table
from ..example_inputs import nested
from ..models import LoadedModel, load_model
from ..outputs import check_different, check_file, check_folder
from ..reports.report import Report
from ..scoring_data import scoring_batches
from ..wording import kept, size

__all__ = [
    "Outputs",
    "bench",
    "cache",
    "capture",
    "compact",
    "compile",
    "demo",
    "estimate",
    "explain",
    "prune",
    "targets",
]


@dataclass(frozen=True)
class Outputs:
    """Files that a compaction is written to; None for those not wanted, the model's default place for `model`."""

    model: Path | None
    report: Path | None
    plan: Path | None
    onnx: Path | None

    def places(self) -> tuple[Path | None, ...]:
        """All of them; a plan is two files."""
        return self.model, self.report, self.plan, self.onnx

    def checked(self, default: Path) -> Outputs:
        """The same with the model's place filled in. Raises InputError if one of them cannot be written."""
        filled = dataclasses.replace(self, model=self.model or default)
        if self.report is not None and self.report.suffix not in (".html", ".json"):
            raise InputError(f"a report is .html or .json, not '{self.report.name}'")
        for path in filled.places():
            check_file(path)
        return filled


def capture(
    model: str, inputs: Sequence[str], dynamic: Sequence[str], output: Path | None, onnx: Path | None, seed: int
) -> Answer:
    check_file(output)
    check_file(onnx)
    check_different(model, output, onnx)
    loaded = load_model(model, inputs, seed, dynamic)
    if onnx is not None:
        check_onnx(loaded.module)
    path = output or suffixed(loaded.beside, ".pt2")
    check_file(path)
    files = {"model": str(path)}
    with stage("writing"):
        save_program(loaded.module, loaded.example_inputs, path)
        if onnx is not None:
            export_onnx(loaded.module, loaded.example_inputs, onnx)
            files["onnx"] = str(onnx)
    operators = sum(node.op == "call_function" for node in loaded.module.graph.nodes)
    parameters = sum(parameter.numel() for parameter in loaded.module.parameters())
    shapes = [list(value.shape) for value in tensors(loaded.example_inputs)]
    data = {"model": loaded.name, "operators": operators, "parameters": parameters, "inputs": shapes, "files": files}
    return Answer(data, says(f"{loaded.name}: {operators} operators, {parameters:,} parameters", files_line(files)))


def prune(
    model: str,
    inputs: Sequence[str],
    method: str,
    sparsity: float,
    target: str | None,
    options: Mapping[str, Any],
    data: PruningData,
    outputs: Outputs,
) -> Answer:
    # What can be found wrong at once is, before minutes of loading.
    api.checked_sparsity(sparsity)
    api.checked_method(method)
    api.multiple_of(target)
    outputs.checked(Path("model.pt2"))
    check_different(model, *outputs.places())
    if method == api.RECONVENE:
        recipe_options(data.settings)
    loaded = load_model(model, inputs, options["seed"], data.dynamic, dataset=data.dataset, width=data.width)
    if outputs.onnx is not None:
        check_onnx(loaded.module)
    places = outputs.checked(suffixed(loaded.beside, "-pruned.pt2"))
    score = str(data.settings.get("score", "magnitude")) if method == api.RECONVENE else method
    batches = scoring_batches(loaded, score, data.dataset, data.folder, data.synthetic, options["seed"])
    found = api.prune(
        loaded.module, loaded.example_inputs, method, sparsity, target, batches=batches, **options, **data.settings
    )
    return compacted(loaded, found, places)


@dataclass(frozen=True)
class PruningData:
    """What `prune` is told beside the channels: a data set, the settings of the method, and sizes that must vary."""

    dataset: str | None = None
    folder: Path | None = None
    width: float = 1.0
    synthetic: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dynamic: Sequence[str] = ()


def method_settings(score: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs, whole numbers and true and false read as such. Raises InputError for anything else."""
    found: dict[str, Any] = {} if score is None else {"score": score}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name or name in found:
            raise InputError(f"'{setting}' is no setting; write each once as NAME=VALUE, such as threshold=global")
        found[name] = {"true": True, "false": False}.get(value, int(value) if value.isdecimal() else value)
    return found


def compact(
    model: str,
    inputs: Sequence[str],
    masks: Path | None,
    apply: Path | None,
    outputs: Outputs,
    seed: int,
    fold: bool,
    dynamic: Sequence[str] = (),
) -> Answer:
    outputs.checked(Path("model.pt2"))
    check_different(model, *outputs.places())
    zeros = None if masks is None else read_masks(masks)
    plan = None if apply is None else Plan.load(apply)
    loaded = load_model(model, inputs, seed, dynamic)
    if outputs.onnx is not None:
        check_onnx(loaded.module)
    places = outputs.checked(suffixed(loaded.beside, "-compact.pt2"))
    found = api.compact(loaded.module, loaded.example_inputs, zeros, plan=plan, fold_batch_norm=fold)
    return compacted(loaded, found, places)


def compacted(loaded: LoadedModel, found: api.Result, places: Outputs) -> Answer:
    """Writes what was asked for and answers with the report."""
    report = dataclasses.replace(found.report, title=loaded.name)
    files = {}
    with stage("writing"):
        if places.model is not None:
            certificate = dataclasses.asdict(found.certificate)
            save_program(found.module, loaded.example_inputs, places.model, certificate=certificate)
            files["model"] = str(places.model)
        if places.plan is not None:
            found.plan.save(places.plan)
            files["plan"] = str(places.plan)
        if places.onnx is not None:
            export_onnx(found.module, loaded.example_inputs, places.onnx)
            files["onnx"] = str(places.onnx)
        if places.report is not None:
            write_text(places.report, report.to_html() if places.report.suffix == ".html" else report.to_json())
            files["report"] = str(places.report)
    return Answer({"report": report.to_dict(), "files": files}, lambda console: show_report(console, report, files))


def show_report(console: Console, report: Report, files: Mapping[str, str]) -> None:
    console.print(size_table(report))
    if report.latency:
        console.print(latency_table(report.latency))
    short = [group for group in report.groups if group.got < group.asked]
    if short:
        made = table("group", "asked", "got", "why not more", right=("asked", "got"), title="Less than asked")
        for group in short:
            made.add_row(group.name, str(group.asked), str(group.got), "; ".join(group.reasons))
        console.print(made)
    for barrier in report.barriers:
        console.print(
            f"barrier: {barrier.operator} at {barrier.source or barrier.node}: {barrier.reason}", markup=False
        )
    for note in report.notes:
        console.print(note, markup=False, soft_wrap=True)
    console.print(files_line(files), markup=False, soft_wrap=True)


def compile(
    model: str,
    inputs: Sequence[str],
    target: str,
    options: Mapping[str, Any],
    link: bool,
    runtime: str | None,
    output: Path | None,
    seed: int,
    check_files: Sequence[Path] = (),
    dynamic: Sequence[str] = (),
) -> Answer:
    """`options` are those of `api.compile`, and the board's ``key_file``; `check_files` hold the inputs of one call each.

    The model must be one whose `dynamic` sizes may vary; the code is for those of the inputs.
    """
    from ...backends.bundles.bundle import check_runtime
    from ...backends.machines.targets import find_target
    from ...backends.state import described
    from ..arrays import read_arrays

    chosen = check_runtime(find_target(target), runtime, link)
    if chosen == "none" and options["threads"] > 1:
        raise InputError(
            f"--threads has no meaning for '{target}' without a runtime, whose kernels run in turn; leave it out, or name"
            " another --runtime"
        )
    if output is not None:
        check_folder(output)
    options = with_board(options)
    loaded = load_model(model, inputs, seed, dynamic)
    check_inputs = [nested(read_arrays(path), loaded.example_inputs) for path in check_files]
    folder = output or suffixed(loaded.beside, f"-{Path(target).stem}")
    check_folder(folder)
    built = api.compile(loaded.module, loaded.example_inputs, target, check_inputs=check_inputs, **options)
    with stage("writing the bundle"):
        runtime_ = None if not link else chosen
        built.export(folder, link=link, runtime=runtime_, certificate=loaded.certificate)
    files = {"bundle": str(folder)}
    memory = built.memory
    facts = {"model": loaded.name, "target": target, "runtime": chosen, "threads": options["threads"]}
    needs = (
        f"memory: weights {size(memory.weights_bytes)}; values between kernels {size(memory.arena_bytes)}, of which"
        f" {size(memory.live_bytes)} are needed at the same time"
    )
    if built.state:
        needs += f"; state {size(memory.state_bytes)}"
    state = described(built.state)
    better = sum(kernel.kept for kernel in built.tuned)
    tuned = (
        [f"tuned: {better} of {len(built.tuned)} kernels are faster than with our schedule"] if options["tune"] else []
    )
    found = [dataclasses.asdict(kernel) for kernel in built.tuned]
    data = {**facts, "memory": dataclasses.asdict(memory), "state": state, "tuned": found, "files": files}
    what = f"{loaded.name} compiled for {target}, for inputs of {', '.join(map(str, built.inputs))}"
    return Answer(data, says(what, needs, *kept(state), *tuned, files_line(files)))


def with_board(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `api.compile`, with the board that ``on`` and ``key_file`` name in place of the two."""
    from ...backends.boards.place import parse_place

    on, key_file = options["on"], options["key_file"]
    kept = {name: value for name, value in options.items() if name != "key_file"}
    return kept if on is None else {**kept, "on": parse_place(on, key_file)}


def server(target: str, runtime: str | None, output: Path) -> Answer:
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


def bench(
    model: str,
    against: str | None,
    inputs: Sequence[str],
    target: str,
    threads: int,
    batch: int | None,
    repeat: int,
    engines: Sequence[str],
    seed: int,
) -> Answer:
    from ..reports.latency import ENGINES, measure

    chosen = tuple(dict.fromkeys(engines)) or ENGINES
    api.multiple_of(target)
    unknown = [engine for engine in chosen if engine not in ENGINES]
    if unknown:
        raise InputError(f"no engine is called '{unknown[0]}'; there are {', '.join(ENGINES)}")
    models = {"compacted" if against else "model": model, **({"dense": against} if against else {})}
    loaded = {variant: load_model(name, inputs, seed, batch=batch) for variant, name in models.items()}
    variants = {variant: (entry.module, entry.example_inputs) for variant, entry in reversed(loaded.items())}
    rows = measure(variants, target=target, threads=threads, repeat=repeat, engines=chosen)
    state = {variant: sorted(state_of(entry.module)) for variant, entry in loaded.items()}
    data = {"models": models, "target": target, "state": state, "latency": [dataclasses.asdict(row) for row in rows]}
    lines = [f"{variant} keeps from call to call: {', '.join(names)}" for variant, names in state.items() if names]

    def show(console: Console) -> None:
        console.print(latency_table(rows))
        says(*lines)(console)

    return Answer(data, show)


def estimate(bundle: str, everything: bool, assembly: str | None) -> Answer:
    from ...backends.estimate.bundle import estimate_bundle
    from ..reports.estimation import show_estimate

    found = estimate_bundle(bundle)
    names = [kernel.name for kernel in found.kernels]
    if assembly is not None and assembly not in names:
        raise InputError(f"no kernel is called '{assembly}'; there are {', '.join(names)}")
    data = {"bundle": bundle, **found.to_dict()}
    if assembly is not None:
        blocks = [kernel.hottest for kernel in found.kernels if kernel.name == assembly and kernel.hottest is not None]
        data["assembly"] = [line for block in blocks for line in block.assembly]
    return Answer(data, lambda console: show_estimate(console, found, everything=everything, assembly=assembly))


def explain(
    model: str, inputs: Sequence[str], html: Path | None, dot: Path | None, graphml: Path | None, seed: int
) -> Answer:
    from ...passes.canonicalize import canonicalize
    from ...passes.dependency import dependency_view
    from ..reports.explanation import explain as explain_view

    for path in (html, dot, graphml):
        check_file(path)
    check_different(model, html, dot, graphml)
    loaded = load_model(model, inputs, seed)
    with stage("finding the channel groups"):
        found = explain_view(dependency_view(canonicalize(loaded.module)), loaded.name)
    files = {}
    writers: tuple[tuple[str, Path | None, Callable[[], str]], ...] = (
        ("page", html, found.to_html),
        ("Graphviz", dot, found.to_dot),
        ("GraphML", graphml, found.to_graphml),
    )
    for what, path, text in writers:
        if path is not None:
            write_text(path, text())
            files[what] = str(path)

    def show(console: Console) -> None:
        made = table(
            "group", "channels", "parameters per channel", "why it stays", right=("channels", "parameters per channel")
        )
        for group in found.groups:
            made.add_row(group.name, str(group.channels), f"{group.cost:,}", group.reason or "")
        console.print(made)
        for barrier in found.barriers:
            console.print(
                f"barrier: {barrier.operator} at {barrier.source or barrier.node}: {barrier.reason}", markup=False
            )
        if files:
            console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer({**found.to_dict(), "files": files}, show)


def targets() -> Answer:
    from ...backends.machines.targets import targets as presets

    found = [dataclasses.asdict(preset) for preset in presets()]

    def show(console: Console) -> None:
        columns = ("name", "triple", "cpu", "cores", "lanes", "channel_multiple")
        made = table(*columns, right=columns[3:])
        for entry in found:
            made.add_row(*(str(entry.get(column, "")) for column in columns))
        console.print(made)

    return Answer({"targets": found}, show)


def cache(kinds: Sequence[str]) -> Answer:
    """What the user's cache folder holds, after `kinds` were removed from it."""
    from ...frontend.base.cache_folder import cache_folder
    from .cache import clear, kept

    clear(kinds)
    found = kept()

    def show(console: Console) -> None:
        made = table("kind", "entries", "bytes", right=("entries", "bytes"))
        for entry in found:
            made.add_row(entry.kind, str(entry.entries), size(entry.bytes))
        console.print(made)
        console.print(f"in {cache_folder()}", markup=False, highlight=False, soft_wrap=True)

    data = {"folder": str(cache_folder()), "cleared": list(kinds)}
    return Answer({**data, "kinds": [dataclasses.asdict(entry) for entry in found]}, show)


def demo(out: Path, repeat: int) -> Answer:
    from .demo import run_demo

    check_folder(out)
    return run_demo(out, repeat)


def says(*lines: str) -> Callable[[Console], None]:
    """Shows lines that hold paths and names: no markup, not broken."""

    def show(console: Console) -> None:
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return show


def suffixed(path: Path, suffix: str) -> Path:
    """The path with `suffix` after its whole name: ``resnet1.5`` has none that could be replaced."""
    return path.with_name(path.name + suffix)


def read_masks(path: Path) -> dict[str, torch.Tensor]:
    """Masks from a safetensors file. Raises InputError for a file that is none."""
    try:
        return parse_tensors(read_regular(path))[0]
    except FileNotFoundError:
        raise InputError(f"no such file: '{path}'") from None
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"cannot read masks from '{path}': {error}; write them with safetensors") from None


def tensors(values: Any) -> list[torch.Tensor]:
    """The tensors among one output or several."""
    entries = values if isinstance(values, list | tuple) else [values]
    return [entry for entry in entries if isinstance(entry, torch.Tensor)]
