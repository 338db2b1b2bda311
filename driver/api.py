"""The public functions of reconvene: capture, compact, prune, compile."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..frontend.arguments import Inputs, positional
from ..frontend.base.arrays import as_tensors
from ..frontend.base.errors import InputError
from ..frontend.base.progress import stage
from ..frontend.base.turns import tracing_in_turn
from ..frontend.capture import FIXED, Model
from ..frontend.capture import capture as capture_model
from ..frontend.data.facts import facts_of
from ..frontend.quantized_operators import check_float, check_not_in_training
from ..frontend.stored_compute import Compute, compute_of, keep_compute
from ..frontend.unwrapping import unwrapped
from ..passes import compaction as compaction_pass
from ..passes.outcome import Compaction
from ..passes.plan import Plan
from ..passes.pruning.channels import MergedWithBatch, held_by_batch
from ..passes.pruning.methods.base import ChannelMethod, Pruned
from ..passes.pruning.methods.own_score import ScoreFunction
from ..passes.pruning.scores import Batch, Evidence, Loss
from ..passes.pruning.structure_rules import check_structures, structure_rules
from ..passes.recovery.calibration import Calibration
from ..passes.recovery.least_squares import LeastSquares
from .aims import timed
from .asked import Asked, Structures, asked
from .ignored import Ignored, patterns_of
from .recovering import CalibrationInputs, calibration_for, recovered, with_recovery
from .reports.profile import profile
from .reports.report import Fact, Report, make_report, with_nothing_removed
from .reports.zeros import mask_pictures
from .result import Result, weights_sum
from .training.transfer import Origin
from .wording import size

if TYPE_CHECKING:
    from torch import fx

    from ..backends.boards.place import Place
    from ..backends.built import Built
    from ..backends.machines.targets import Target
    from ..frontend.graph_module import CapturedModule

__all__ = ["Result", "Structures", "capture", "compact", "compile", "prune"]


@tracing_in_turn
def capture(model: Model, example_inputs: Inputs | None = None, dynamic_shapes: Any = None) -> fx.GraphModule:
    """Captures a model as a graph in torch.export's training IR. The model itself is left as it was.

    Args:
        model: nn.Module, GraphModule, ExportedProgram, or the path of a ``.pt2`` file.
        example_inputs: the positional inputs of one call, tensors or NumPy arrays; programs and files carry theirs.
        dynamic_shapes: sizes that may vary, in torch.export's form.

    Raises:
        InputError: the model cannot be captured; the message names the line and what to change.
    """
    return capture_model(model, as_tensors(example_inputs), dynamic_shapes)


@tracing_in_turn
def compact(
    model: Model,
    example_inputs: Inputs | None = None,
    masks: Mapping[str, torch.Tensor] | None = None,
    *,
    plan: Plan | None = None,
    structure: Structures | None = None,
    fold_batch_norm: bool = False,
    dynamic_shapes: Any = None,
) -> Result:
    """Removes the channels that zeros in the model, and in `masks`, make removable, and proves the result.

    Args:
        model: as for `capture`; models pruned with ``torch.nn.utils.prune`` are taken as they are.
        example_inputs: as for `capture`.
        masks: parameter name to bool tensor, True to keep; of the parameter's shape, or one entry a channel.
        plan: instead of masks, what an earlier result did, to be done to this fresh copy of the model.
        structure: as for `prune`; what the zeros are said to be, which is checked before anything else. Without it they are
            recognised.
        fold_batch_norm: also fold batch normalisation into the layers before it; for inference, not for training.
        dynamic_shapes: as for `capture`; the result takes inputs of these sizes, and refuses others by name.

    Raises:
        InputError: the model, the inputs or a mask cannot be used, the plan is for another model, or zeros are not of the
            structure that they are said to be.
        CheckError: the compacted graph does not compute what the masked one does; nothing is returned.
    """
    if plan is not None and masks is not None:
        raise InputError("masks and a plan were given; a plan brings its own masks, give one of the two")
    claims = () if structure is None else structure_rules(structure)
    module, inputs = captured(model, example_inputs, dynamic_shapes)
    check_float(module, "compact before you quantise")
    if claims:
        check_structures(module, as_tensors(masks) if plan is None else plan.masks, claims)
    if plan is not None:
        found = compaction_pass.apply_plan(plan, module, inputs, fold=fold_batch_norm)
    else:
        found = compaction_pass.compact(module, inputs, as_tensors(masks), fold=fold_batch_norm)
    made = result(found, title_of(model), {"action": "compact", "masks": sorted(masks or (plan.masks if plan else ()))})
    made = dataclasses.replace(made, report=with_nothing_removed(made.report))
    return dataclasses.replace(made, origin=Origin(module), folded=fold_batch_norm, example_inputs=inputs)


def prune(
    model: Model,
    example_inputs: Inputs | None = None,
    method: str | ChannelMethod | ScoreFunction = "magnitude",
    sparsity: float | Mapping[str, float] = 0.5,
    target: str | Target | None = None,
    *,
    structure: Structures | None = None,
    scope: Literal["layer", "global"] = "layer",
    latency: float | None = None,
    timed_by: Literal["model", "cycles", "time"] = "model",
    channel_multiple: int | None = None,
    minimum_channels: int | None = None,
    ignore: Ignored = (),
    seed: int = 0,
    fold_batch_norm: bool = False,
    batches: Sequence[Batch] = (),
    loss: Loss = torch.nn.functional.cross_entropy,
    recover: str | LeastSquares | None = None,
    calibration: CalibrationInputs | None = None,
    dynamic_shapes: Any = None,
    **method_options: Any,
) -> Result:
    """Chooses channels, or with a `structure` weights inside of layers, by `method`, zeroes them, and compacts.

    Args:
        model: as for `capture`.
        example_inputs: as for `capture`.
        method: how channels are scored; or ``reconvene``, the method of the paper, for models that are not trained yet; or
            ``reconstruction``, for trained models with `recover`. ``reconvene.passes.pruning.methods.METHODS`` has them all.
            Or a score of your own: a function that takes a weight's name and the weight, and gives a tensor of its shape,
            larger for dearer entries.
        sparsity: share of the channels to remove, from 0 to below 1. Or patterns (``fnmatch``) of parameter or layer names
            with the share that these layers lose, of which the first that matches holds; other layers stay as they are, but
            for those that make the same channels as one of these, as where a residual connection adds them: they lose them
            together, which a note says. For ``reconvene``: share of the *weights* that its first step removes, p. With a
            structure: share of the weights of the layers that take one and have no own share.
        target: where it is to run (a preset's name or a Target); kept channels are rounded to its multiple. With a structure
            only for a latency. None rounds to nothing; for ``reconvene`` to a multiple of 8.
        structure: of zeros that stay inside of layers, one of `reconvene.passes.structures.STRUCTURES` such as ``row-block:4``
            or ``pattern``; with commas between, the first that fits a layer; or patterns of parameter or layer names with
            one each, of which the first that matches holds. A structure may say its own share of zeros,
            ``row-block:4@0.8``. First convolutions, depthwise ones and last layers stay
            dense unless a pattern is their very name. Or a `StructurePlan`, which says it of every layer. Not for
            ``reconvene``.
        scope: the share holds in every layer, or over the whole network, for which scores are divided by their layer's mean;
            if some are negative, they are taken less that mean and by the mean deviation from it. Not for ``reconvene``.
        latency: share of the dense network's time to reach on `target`, such as 0.5; `sparsity` is then found, and no
            width is chosen that takes as long as a larger one. Times are modelled cycles of convolutions and linear
            layers, see ``reconvene.backends.choosing.layer_times``. With a structure it is the least share of zeros, the same
            for all layers or with ``scope="global"`` by rank, and layers whose kernels gain nothing by it stay dense; times are
            those of all kernels, see ``reconvene.backends.network_times``. Not for ``reconvene``.
        timed_by: who tells times with a structure: ``model`` counts cycles by a formula, ``cycles`` takes what is modelled of
            the emulated code (slow), ``time`` has this machine's clock, for its own target.
        channel_multiple: rounds to this instead of the target's multiple.
        minimum_channels: what every layer keeps at least; 1 unless given, for ``reconvene`` 8 and a sixteenth of the layer.
        ignore: a pattern (``fnmatch``) of parameter or layer names to leave alone, or a module of `model`; or several.
        seed: of random methods, new weights and of the check's inputs.
        fold_batch_norm: as for `compact`.
        batches: inputs and targets, ``[((inputs, ...), targets), ...]``, for the scores snip and grasp.
        loss: for these scores; takes the model's output and the targets.
        recover: ``least-squares``, or a `LeastSquares` with its options: layers that read fewer channels are solved anew, so
            that their outputs are nearest to those before. For trained models. The certificate is that of the removal.
        calibration: what they are solved on: inputs of one call, or a list of several calls'; or a kind of synthetic inputs,
            ``synthetic`` (the default), ``matched``, ``leaves`` or ``noise``, or a `Synthetic` with its options.
        dynamic_shapes: as for `compact`. None: the batch may vary, unless it is what keeps every channel.
        method_options: those of the method: of ``reconvene``, the fields of
            `reconvene.passes.pruning.methods.reconvene.Reconvene`.

    Raises:
        InputError: the model, the inputs or an option cannot be used.
        CheckError: as for `compact`.
    """
    told = asked(
        method, sparsity, target, structure=structure, latency=latency, timed_by=timed_by, scope=scope,
        channel_multiple=channel_multiple, minimum_channels=minimum_channels, ignore=patterns_of(model, ignore),
        fold=fold_batch_norm, recover=recover, calibration=calibration, options=method_options,
    )  # fmt: skip
    return prune_as_asked(model, example_inputs, told, Evidence((), as_tensors(batches), loss, seed), dynamic_shapes)


@tracing_in_turn
def prune_as_asked(
    model: Model, example_inputs: Inputs | None, told: Asked, evidence: Evidence, dynamic_shapes: Any = None
) -> Result:
    """`prune` with what `asked` checked, and data, loss and seed as evidence; its inputs are those of the model."""
    module, inputs = captured(model, example_inputs, dynamic_shapes)
    check_float(module, "prune before you quantise")
    aim = timed(told.aim, module, inputs, told.target, told.timed_by)

    def pruned() -> tuple[Pruned, Calibration | None]:
        inputs_for = calibration_for(module, inputs, told.recovering, told.method, evidence.seed)
        calls = inputs_for.calls if inputs_for is not None else ()
        return told.method.prune(module, dataclasses.replace(evidence, inputs=inputs, calls=calls), aim), inputs_for

    try:
        found, calibration = pruned()
        held = None if aim.structures else held_by_batch(found.compaction)
    except MergedWithBatch as error:
        if dynamic_shapes is not None:
            raise
        held = str(error)
    if held and dynamic_shapes is None:
        module, inputs = _with_fixed_batch(model, example_inputs, held)
        found, calibration = pruned()
    recovery = found.recovery
    if recovery is not None and calibration is not None:
        recovery = dataclasses.replace(recovery, calibration=calibration.description)
    if calibration is not None and told.recovering.options is not None:
        found, recovery = recovered(module, found, calibration, told.recovering.options, evidence.seed)
    origin = found.compaction.plan.origin
    first = {"action": "prune", "method": told.method.name, "sparsity": origin["sparsity"]}
    timed_by = {"timed_by": told.timed_by} if found.timing is not None else {}
    options = {**first, "target": name_of(told.target), **timed_by, **origin, **told.recovering.told()}
    made = result(found.compaction, title_of(model), options)
    report = _with_findings(made.report, found, {"dense": (module, inputs), "compacted": (made.module, inputs)})
    if not aim.structures:
        report = with_nothing_removed(report)
    if recovery is not None:
        report = with_recovery(report, recovery)
    report = dataclasses.replace(report, structures=told.structures)
    return dataclasses.replace(
        made, report=report, sensitivity=found.sensitivity, reinitialized=found.reinitialized, recovery=recovery,
        origin=Origin(module), folded=aim.fold, example_inputs=inputs,
    )  # fmt: skip


def _with_fixed_batch(
    model: Model, example_inputs: Inputs | None, reason: str
) -> tuple[CapturedModule, tuple[Any, ...]]:
    """The graph of a model of which nothing can be pruned while its batch may vary."""
    module, inputs = captured(model, example_inputs, FIXED)
    if (sizes := module.meta.get("input_sizes")) is not None:
        module.meta["input_sizes"] = sizes.explained(f"the batch is fixed: with one that varies, {reason}")
    return module, inputs


@tracing_in_turn
def compile(
    module: Model,
    example_inputs: Inputs | None = None,
    target: str | Target = "host",
    *,
    threads: int | None = 1,
    winograd: Literal["auto", "off", "2x2", "4x4"] = "auto",
    choose: Literal["time", "cycles", "model", "default"] = "model",
    on: str | Place | None = None,
    cache: bool = True,
    tune: int = 0,
    dtype: Literal["float32", "float16", "int8"] = "float32",
    codes: Literal["inputs", "outputs", "both"] | None = None,
    check: bool = True,
    check_inputs: Sequence[Inputs] = (),
    dynamic_shapes: Any = FIXED,
) -> Built:
    """Compiles a model with TVM for `target`: ``run(*inputs)``, ``benchmark(repeat=50)``, ``export(folder)``.

    Args:
        module: as for `capture`; most often `Result.module`.
        example_inputs: as for `capture`; the compiled code is for their shapes.
        target: a preset's name (``reconvene targets`` lists them), a ``.toml`` file, or a Target.
        threads: how many it runs on; None for as many as there can be.
        winograd: Winograd's algorithm for 3x3 convolutions: ``auto`` where `choose` finds it faster, ``off``
            nowhere, ``2x2`` or ``4x4`` wherever that tile applies.
        choose: how the kernel of each layer is found: ``time`` tries candidates on this machine once and keeps
            the result in the user's cache folder, ``cycles`` takes what is modelled of the emulated code (slow, and kept
            too), ``model`` counts cycles by a formula, ``default`` takes the direct kernel.
        on: with ``time``, the board that runs the candidates: ``rpc://HOST:PORT`` or ``tracker://HOST:PORT/KEY``; one that
            has a key as a `Place` with it (``backends.boards.place.parse_place``).
        cache: whether to look for the compiled code in the user's cache folder, and to keep it there.
        tune: trials of MetaSchedule for each kernel that has no schedule of ours; judged by this machine's clock, by the
            board's that `on` names, or with ``cycles`` by modelled cycles.
        dtype: ``float16`` computes layers of float32 in half precision, and keeps their weights in half the bytes, on cores
            that have it (ARMv8.2: Raspberry Pi 5, Jetson Orin, Graviton). Inputs and outputs stay float32. What it
            loses is compared like everything else: at most a hundredth of the largest output, else it is refused.
            Of a quantised model (`quantize`) layers multiply 8-bit codes where that is faster than float32; with
            ``int8`` all of them do, and outputs are the same bits on every machine.
        codes: of a quantised model: the code takes (``inputs``), gives (``outputs``) or both takes and gives (``both``) 8-bit
            codes in place of the float32 that they stand for, as a sensor may give and a microcontroller has room for.
            ``Built.inputs`` and ``Built.outputs`` say what they stand for; the bundle does, too. Outputs have codes where the
            model was quantised with ``round_outputs=True``. Example inputs are given as for the model itself.
        check: whether the code runs beside the model, on the example inputs and on random, constant and other ones, and its
            outputs are compared. For another target, what this machine can run of the same program is.
        check_inputs: further inputs to compare on, such as ``[(image,), (another,)]``, shaped as the example inputs.
        dynamic_shapes: as for `capture`, for a model that cannot be captured without. Compiled code is for the example's
            shapes whatever is said here; it refuses others by name.

    Raises:
        InputError: the target is unknown, an option is not one of its values, or the model cannot be captured.
        CheckError: the code does not compute what the model does.
    """
    from ..backends.compile import compile as compile_graph

    graph, inputs = captured(module, example_inputs, dynamic_shapes)
    check_not_in_training(graph)
    options: dict[str, Any] = {"winograd": winograd, "choose": choose, "on": on, "cache": cache, "tune": tune}
    options |= {"dtype": dtype, "codes": codes}
    checks: dict[str, Any] = {"check": check, "check_inputs": [positional(graph, given) for given in check_inputs]}
    built = compile_graph(graph, inputs, target, threads=threads, **checks, **options)
    return dataclasses.replace(built, data=facts_of(graph))


def captured(
    model: Model, example_inputs: Inputs | None, dynamic_shapes: Any = None
) -> tuple[CapturedModule, tuple[Any, ...]]:
    """The graph of `model` and inputs for it: those given, else those it carries."""
    given = as_tensors(example_inputs)
    module = capture_model(model, given, dynamic_shapes)
    inputs = given if given is not None else module.meta.get("example_inputs")
    if inputs is None:
        raise InputError("the model carries no example inputs; give them as a tuple of tensors")
    used = positional(module, inputs)
    module.check_inputs(used)
    return module, used


def result(found: Compaction, title: str, options: Mapping[str, Any]) -> Result:
    report = make_report(found, title, options)
    # Of the module before, of which the smaller one has its notes.
    known = compute_of(found.module)
    keep_compute(found.module, Compute.made(report.before.macs, report.after.macs, known))
    if found.zeros:
        report = dataclasses.replace(report, pictures=mask_pictures(found.module, found.zeros))
    return Result(found.module, found.plan, report, found.certificate, checked_sum=weights_sum(found.module))


def _with_findings(
    report: Report, found: Pruned, variants: Mapping[str, tuple[fx.GraphModule, tuple[Any, ...]]]
) -> Report:
    """The report with what a method's evaluator and, if asked, the profiler found."""
    facts = []
    if found.sensitivity is not None:
        facts.append(
            Fact(
                f"layers above the threshold, {found.sensitivity.threshold:.1%} of weights pruned",
                f"{len(found.sensitivity.layers)} compared",
                f"{len(found.sensitivity.resilient)} resilient",
            )
        )
    if found.profile:
        with stage("profiling"):
            before, after = profile(variants).values()
        facts.append(Fact("peak memory of one call", size(before.peak_bytes), size(after.peak_bytes)))
        report = report.with_latency([before.latency, after.latency])
    return dataclasses.replace(report, facts=(*report.facts, *facts), timing=found.timing)


def name_of(target: str | Target | None) -> str | None:
    return target if target is None or isinstance(target, str) else target.name


def title_of(model: Model) -> str:
    if isinstance(model, str):
        return model
    return type(unwrapped(model) if isinstance(model, torch.nn.Module) else model).__name__
