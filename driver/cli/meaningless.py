"""Options that have no meaning, or none for what a verb is given: each is an error that says so, none is passed over.

Like the command line itself, this file imports neither torch nor TVM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from ...frontend.base.errors import InputError
from .early import check_early

__all__ = ["Verb"]

_AUTOMATIC = ("latency", "queue", "memory", "power")
"""Policies that switch variants by themselves."""


class Verb(TyperCommand):
    """A verb of the command line that raises InputError where an option has no meaning for what else it was given."""

    def invoke(self, ctx: Any) -> Any:
        given = Given(ctx)
        for name, value in given.values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{given.spelled(name)} {value} is no finite number; give one")
        if given.values.get("weights") is not None:
            _weights(given)
        check = _CHECKS.get(ctx.info_name)
        if check is not None:
            check(given)
        check_early(str(ctx.info_name), given.values)
        return super().invoke(ctx)


class Given:
    """The parameters of a verb, and which of them stand on the command line."""

    def __init__(self, context: typer.Context) -> None:
        self._context = context
        self.values: Mapping[str, Any] = context.params

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        assert name in self.values, name
        source = self._context.get_parameter_source(name)
        return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")

    def refuse(self, names: Sequence[str], why: str) -> None:
        """Raises InputError if one of these stands on the command line."""
        for name in names:
            if name in self:
                raise InputError(f"{self.spelled(name)} has no meaning {why}; leave it out")

    def spelled(self, name: str) -> str:
        """The option of that name as it stands on the command line."""
        options = next((p for p in self._context.command.params if p.name == name), None)
        spellings = [] if options is None else [*options.opts, *options.secondary_opts]
        chosen = [word for word in spellings if word.startswith("--")]
        # Of --link/--no-link the second is said.
        off = options is not None and options.secondary_opts and self.values[name] is False
        return (chosen[-1] if off else chosen[0]) if chosen else name


def _is_program(model: str) -> bool:
    return model.endswith(".pt2") or Path(model).is_file()


def _is_network(model: str) -> bool:
    return not _is_program(model) and ":" not in model


def _weights(given: Given) -> None:
    """What is said of weights of a person's own."""
    model = str(given["model"] or given.values.get("named") or "")
    if _is_program(model):
        given.refuse(["weights"], f"for '{model}', which has its weights; it is for models from code or by name")
    if Path(model).is_dir() and given.values.get("against") is None:
        given.refuse(["weights"], "for a bundle, which is compiled already")
    file = str(given["weights"])
    if not file:
        raise InputError("--weights names no file; write --weights FILE")
    if not Path(file).exists() and not Path(file.rpartition(":")[0] or file).exists():
        raise InputError(f"no such file: '{file}'; give weights as torch.save or safetensors wrote them")


def _capture(given: Given) -> None:
    if _is_program(given["model"]):
        given.refuse(["dynamic"], "for a .pt2 file, which says itself which sizes may vary")
    if given["image_bytes"] is None and given["classes"] is None:
        given.refuse(["mean", "std"], "without --image-bytes or --classes: they are what images are normalised with")


def _fitted(given: Given) -> None:
    """What fits a network to a data set."""
    if not _is_network(given["model"] or given.values.get("named") or ""):
        given.refuse(["width"], "for a model that is there already; it is for networks by name")


def _scored_by(given: Given) -> str:
    """The score that is named for the method, or else the method, which most often is one."""
    named = [value.removeprefix("score=") for value in given["setting"] or () if value.startswith("score=")]
    return str(given["score"] or next(iter(named), given["method"]))


_LOOKING_AT_CALLS = ("reconstruction", "layerwise")
"""Methods that take calibration inputs themselves."""


def _prune(given: Given) -> None:
    model = given["model"] or given["named"] or ""
    method = _scored_by(given)
    scored_on_data = method in ("snip", "grasp")
    _fitted(given)
    if not scored_on_data:
        given.refuse(
            ["synthetic", "data"], f"for {method}, which scores weights without data; it is for snip and grasp"
        )
        if not _is_network(model):
            given.refuse(
                ["dataset"], f"for {method} of a model that is there already: nothing is scored on data, or fitted"
            )
    elif given["synthetic"]:
        given.refuse(["data"], "with --synthetic: no data are read")
        if not _is_network(model):
            given.refuse(["dataset"], "with --synthetic: no data are read, and nothing is fitted to them")
    elif given["dataset"] is None:
        given.refuse(["data"], "without --dataset, which names what to look for there")
    if given["recover"] is None and given["method"] not in _LOOKING_AT_CALLS:
        given.refuse(["calibration", "recover_set"], "without --recover, which says what is done with them")
    _structured(given)
    if given["layer_sparsity"]:
        given.refuse(["sparsity"], "with --layer-sparsity, by which other layers stay as they are")
    if given["latency"] is not None:
        given.refuse(["sparsity"], "with --latency, which finds a sparsity")
    if given["channel_multiple"] is not None and given["latency"] is None:
        given.refuse(["target"], "with --channel-multiple, which rounds instead")


def _structured(given: Given) -> None:
    if given["structure"]:
        widths = ["channel_multiple", "minimum_channels"]
        given.refuse(
            widths if given["latency"] is not None else ["target", *widths],
            "with --structure: no channels are chosen, and none are rounded",
        )
    if given["latency"] is None or not given["structure"]:
        given.refuse(["timed_by"], "without --latency and --structure, whose zeros it times")


def _quantize(given: Given) -> None:
    data = given["data"]
    if given["calibration"] is not None:
        given.refuse(["dataset", "data"], "with --calibration, which names what ranges are found on")
    arrays = given["dataset"] is None and data is not None and data.endswith((".npy", ".npz"))
    if given["calibration"] is not None or arrays:
        why = "without images or a function of your own: nothing is held back, normalised or measured on tests"
        given.refuse(["test_share", "mean", "std", "workers", "test_images"], why)
    if given["trainable"]:
        given.refuse(["onnx"], "with --trainable, which writes a network in float")


def _compile(given: Given) -> None:
    if not given["check"]:
        given.refuse(["check_input"], "with --no-check")
    if given["on"] is None:
        given.refuse(["key_file"], "without a board on the network, see --on")


def _portfolio(given: Given) -> None:
    if not given["sparsity"]:
        given.refuse(["method", "scope"], "without --sparsity: nothing is pruned")
    if given["dataset"] is None:
        given.refuse(["data", "test_images"], "without --dataset: no accuracy is measured")
    if "int8" not in (given["dtype"] or ()):
        given.refuse(["calibration"], "without --dtype int8, whose ranges are found on it")
    targets = given["target"] or ["host"]
    if "host" not in targets:
        given.refuse(["repeat"], "without the target host: nothing is timed here")
    if targets == ["host"]:
        given.refuse(["estimate"], "for the host alone, whose latency is measured; it is for other targets")


def _on_network(given: Given) -> bool:
    return given["on"] is not None and given["on"] != "qemu"


def _run(given: Given) -> None:
    if Path(given["model"]).is_dir():
        given.refuse(
            ["input"], "for a bundle, which was compiled for its shapes; give arrays as files, without --input"
        )
        if given["files"] or given["data"] is not None:
            given.refuse(["seed"], "for a bundle and given arrays: nothing is random")
    else:
        given.refuse(["public_key"], "for a model; bundles are what is signed")
        if given["on"] is not None:
            given.refuse(["on"], "for a model; compile it, and run the bundle there")
    if not _on_network(given):
        given.refuse(["timeout", "key_file"], "without a board on the network, see --on")


def _bench(given: Given) -> None:
    if Path(given["model"]).is_dir():
        fixed = ["against", "target", "batch", "engine", "input", "seed"]
        given.refuse(fixed, "for a bundle, which is compiled already; bench a model, or compile the bundle so")
    else:
        given.refuse(["public_key"], "for a model; bundles are what is signed")
        if given["on"] is not None:
            given.refuse(["on"], "for a model; compile it, and bench the bundle there")
    if not _on_network(given):
        given.refuse(["timeout", "key_file"], "without a board on the network, see --on")


def _serve(given: Given) -> None:
    policies = given["policy"] or []
    for option, policy in (("objective", "latency"), ("reserve", "memory"), ("queue_high", "queue")):
        if policy not in policies:
            given.refuse([option], f"without --policy {policy}")
    if not set(policies) & set(_AUTOMATIC):
        given.refuse(["dwell"], "where variants are switched by hand, without another --policy")
    if given["unix"] is not None and given["port"] is None:
        given.refuse(["host"], "for a Unix socket; name a --port to listen there as well")
        given.refuse(["control_token", "allow_host"], "for a Unix socket; name a --port to listen there as well")
    if not given["control"]:
        given.refuse(["control_token", "allow_host"], "with --no-control")


def _own_data(given: Given) -> None:
    """What is said of data of a person's own."""
    data, about = given["data"], ("test_share", "mean", "std", "workers")
    if data is None or given["dataset"] is not None:
        given.refuse(about, "without --data that names your own, a folder of images or a function")
    elif ":" in data and not data.startswith("hf:") and not Path(data).exists():
        given.refuse(about[:3], "for a function, which splits and normalises by itself")
    else:
        given.refuse(["workers"], "for images, which are decoded once; it is for --data file.py:function")


def _train(given: Given) -> None:
    _fitted(given)
    _own_data(given)
    if given["keep_zeros"]:
        given.refuse(["masks"], "with --keep-zeros, which takes the model's own zeros as masks")
    if given["compute"] != "equal":
        given.refuse(["dense_macs"], "without --compute equal, which compares with it")


def _train_levels(given: Given) -> None:
    _fitted(given)
    _own_data(given)
    if given["method"] != "iterative":
        given.refuse(["rewind"], "for masks that are found before training: weights start from where they are")


def _shrink(given: Given) -> None:
    _fitted(given)
    _own_data(given)
    if given["rule"] != "rl-pruner":
        given.refuse(["reward"], f"for the rule {given['rule']}, which searches for nothing; it is for rl-pruner")


def _explore(given: Given) -> None:
    _fitted(given)
    _own_data(given)
    if given["variant"] and "mapped" not in given["variant"]:
        given.refuse(["difficulty", "beta"], "without --variant mapped, whose rules they are for")
    if "channels:rl-pruner" not in (given["variant"] or ()):
        given.refuse(["shrinking"], "without --variant channels:rl-pruner, whose steps it is for")
    if given["on"] is None:
        given.refuse(["key_file"], "without a board on the network, see --on")


def _evaluate(given: Given) -> None:
    _own_data(given)
    if Path(given["model"]).is_dir():
        given.refuse(["seed"], "for a bundle: nothing is random")
    else:
        given.refuse(
            ["on", "against", "public_key"], "for a model, whose compiled code runs here; they are for bundles"
        )
    if not _on_network(given):
        given.refuse(["timeout", "key_file"], "without a board on the network, see --on")


def _estimate(given: Given) -> None:
    if given["json"]:
        given.refuse(["all"], "with --json, which has every kernel")


def _times(given: Given) -> None:
    if given["by"] != "time":
        given.refuse(["on"], "without --by time, for which kernels run there")
    if given["on"] is None:
        given.refuse(["key_file"], "without a board on the network, see --on")


_CHECKS: dict[str, Callable[[Given], None]] = {
    "capture": _capture,
    "prune": _prune,
    "train": _train,
    "train-levels": _train_levels,
    "shrink": _shrink,
    "explore": _explore,
    "quantize": _quantize,
    "compile": _compile,
    "portfolio": _portfolio,
    "run": _run,
    "bench": _bench,
    "serve": _serve,
    "estimate": _estimate,
    "times": _times,
    "map": _times,
    "evaluate": _evaluate,
}
"""By the verb's name. The other verbs have no option that something else decides."""
