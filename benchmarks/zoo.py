"""Every architecture of torchvision, and one of every convolutional family of timm: what compaction makes of it.

    python benchmarks/zoo.py [--only resnet18 timm/dla34 ...] [--subset] [--json docs/results/zoo.json] [--markdown ...]

Untrained, all statistics and constants randomised, float64, half of the channels of every prunable group at random, M1
and M2, compared with the masked nn.Module run eagerly. Every network runs in a process of its own, with a time limit;
finished rows are kept in the JSON file, so that a run that was stopped goes on where it was. vit_h_14 takes 23 GB.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import masks_for, randomise, torchvision_models

from reconvene.frontend.base.errors import CaptureError, InputError
from reconvene.frontend.base.files import write_text
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.dependency import DependencyView, dependency_view

TIMM = (
    "resnet18d resnetrs50 resnest14d res2net50_26w_4s skresnet18 dpn68 dla34 dla60_res2net hrnet_w18_small inception_v4 "
    "xception41 nasnetalarge pnasnet5large regnetx_002 regnety_002 ghostnet_100 ghostnetv2_100 mobilenetv1_100 "
    "mobilenetv2_100 mobilenetv3_small_100 mobilenetv4_conv_small mnasnet_100 mixnet_s fbnetc_100 spnasnet_100 tinynet_e "
    "rexnet_100 lcnet_050 efficientnet_lite0 efficientnet_b0 efficientnetv2_rw_t tf_efficientnetv2_b0 efficientvit_b0 "
    "efficientvit_m0 repvgg_a0 repghostnet_050 cspresnet50 cspdarknet53 darknet53 vovnet39a ese_vovnet19b_dw "
    "edgenext_xx_small convnext_atto convnextv2_atto fastvit_t8 mobileone_s0 poolformer_s12 maxvit_tiny_rw_224 "
    "coatnet_0_rw_224 nf_resnet50 dm_nfnet_f0 selecsls42b hardcorenas_a vgg11_bn densenet121 senet154 legacy_seresnet18 "
    "gernet_s resnetv2_50 seresnet50 ecaresnet26t gcresnet33ts visformer_tiny mobilevit_xxs mobilevitv2_050 "
    "focalnet_tiny_srf inception_next_atto starnet_s1 rdnet_tiny hgnet_tiny hgnetv2_b0 repvit_m0_9 mambaout_femto "
    "tresnet_m botnet26t_256 halonet26t lambda_resnet26t deit_tiny_patch16_224 swin_tiny_patch4_window7_224 "
    "mixer_s32_224 resmlp_12_224 pvt_v2_b0 levit_128s"
).split()

EXACT = {torch.float64: 1e-12, torch.float32: 1e-4}
"""Largest difference, relative to the largest output, that counts as rounding. RAFT converts to float32 in its own code,
so it cannot run in float64; and it goes twelve times over the same weights."""

SUBSET = (
    "alexnet mobilenet_v3_small shufflenet_v2_x0_5 squeezenet1_1 regnet_y_400mf densenet121 googlenet swin_t r3d_18 "
    "timm/skresnet18 timm/ghostnet_100 timm/mixnet_s timm/repvgg_a0 timm/dla34"
).split()
"""A few of all kinds."""

_SEGMENTATION_LIKE = ("fcn_", "deeplabv3_", "lraspp_")
_VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b")
_FLOW = ("raft_large", "raft_small")


def names() -> list[str]:
    """All of torchvision's float builders, then timm's families as ``timm/NAME``."""
    models = torchvision_models()
    return [*(name for name in models.list_models() if "quantized" not in name), *(f"timm/{name}" for name in TIMM)]


def build(name: str) -> tuple[nn.Module, list[tuple[int, ...]]]:
    """An untrained network and the input shapes to try, smallest first."""
    torch.manual_seed(0)
    if name.startswith("timm/"):
        torchvision_models()
        import timm

        network = timm.create_model(name.removeprefix("timm/"), pretrained=False)
        own = network.default_cfg["input_size"][-1]
        return network.eval(), [(2, 3, size, size) for size in sorted({64, 128, 224, own}) if size <= max(224, own)]
    models = torchvision_models()
    options: dict[str, Any] = {"weights": None}
    module = name
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    if name.startswith(_SEGMENTATION_LIKE) or "rcnn" in name or name.startswith(("retinanet", "fcos", "ssd")):
        options["weights_backbone"] = None
    network = models.get_model(module, **options).eval()
    if "rcnn" in name or name.startswith(("retinanet", "fcos", "ssd")):
        return network.backbone.eval(), [(2, 3, 128, 128), (2, 3, 320, 320)]
    if name in _VIDEO:
        return network, [(1, 3, 8, 64, 64), (1, 3, 16, 64, 64), (1, 3, 16, 224, 224)]
    if name in _FLOW:
        return network, [(1, 3, 128, 128)]
    return network, [(2, 3, size, size) for size in (64, 128, 224, 288, 384, 512, 518)]


def fitting_inputs(
    network: nn.Module, shapes: list[tuple[int, ...]], dtype: torch.dtype, count: int
) -> tuple[torch.Tensor, ...]:
    """`count` random inputs of the first shape the network runs on."""
    failure: Exception | None = None
    for shape in shapes:
        inputs = tuple(torch.randn(shape, dtype=dtype) for _ in range(count))
        try:
            with torch.no_grad():
                network(*inputs)
            return inputs
        except (RuntimeError, AssertionError, ValueError) as error:
            failure = error
    raise RuntimeError(f"runs on none of {shapes}: {failure}")


def allowed_share(view: DependencyView) -> float:
    """The share of parameters that halving *every* channel would take, were there no barrier: what a row is held against.

    A weight whose rows and columns are both channels keeps a quarter. Only the network's own inputs and outputs stay.
    """
    channel_axes: dict[str, dict[int, int]] = {}
    for group in view.groups:
        if group.reason is None or not group.reason.startswith("the model's"):
            for part in group.slices:
                axes = channel_axes.setdefault(part.parameter, {})
                axes[part.axis] = axes.get(part.axis, 0) + int((part.positions >= 0).sum())
    parameters = dict(view.module.named_parameters())
    kept = 0.0
    for name, parameter in parameters.items():
        left = float(parameter.numel())
        for axis, positions in channel_axes.get(name, {}).items():
            left *= 1 - 0.5 * min(1.0, positions / parameter.shape[axis])
        kept += left
    return 1 - kept / max(1, sum(parameter.numel() for parameter in parameters.values()))


def measure(name: str) -> dict[str, Any]:
    """One row. Never raises for what the library says about a network; anything else is a bug and does."""
    torch.set_num_threads(1)
    network, shapes = build(name)
    dtype = torch.float32 if name in _FLOW else torch.float64
    network = randomise(network.to(dtype))
    inputs = fitting_inputs(network, shapes, dtype, 2 if name in _FLOW else 1)
    row: dict[str, Any] = {"network": name, "input": "x".join(map(str, inputs[0].shape)), "captured": True}
    row["exact"] = EXACT[dtype]
    began = time.perf_counter()
    try:
        module = capture(network, inputs)
    except CaptureError as error:
        return row | {"captured": False, "error": str(error)}
    row["capture_seconds"] = time.perf_counter() - began
    view = dependency_view(canonicalize(module))
    row |= {
        "nodes": len(module.graph.nodes),
        "groups": len(view.groups),
        "prunable_groups": sum(group.prunable for group in view.groups),
        "allowed_share": allowed_share(view),
        "operators": sorted({operation.name for operation in view.operations.values()}),
        "barriers": [[barrier.operator, barrier.reason] for barrier in view.barriers],
    }
    masks = {kind: masks_for(view, kind) for kind in ("M1", "M2")} if row["prunable_groups"] else {"M1": {}, "M2": {}}
    del view
    for kind in ("M1", "M2"):  # In this order: what M1 zeroes, M2 does too, so no copy of the weights is needed.
        row[kind] = compare(network, module, inputs, masks[kind])
    row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return row


def compare(
    network: nn.Module, module: Any, inputs: tuple[torch.Tensor, ...], masks: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """Compacts, then zeroes the same entries in the network itself, for good, and runs it eagerly."""
    found = compact(module, inputs, masks)
    stored = {**dict(network.named_parameters()), **dict(network.named_buffers())}  # A fixed filter is a buffer.
    with torch.no_grad():
        got = pytree.tree_leaves(found.module(*inputs))
        for name, mask in masks.items():
            stored[name].mul_(mask)
        expected = pytree.tree_leaves(network(*inputs))
    pairs = [(a, b) for a, b in zip(expected, got, strict=True) if isinstance(a, torch.Tensor)]
    worst = max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-300)) for a, b in pairs)
    asked = sum(group.asked for group in found.groups)
    return {
        "relative_difference": worst,
        "certificate": found.certificate.max_relative,
        "parameters_before": found.before.parameters,
        "parameters_after": found.after.parameters,
        "channels_asked": asked,
        "channels_got": sum(group.got for group in found.groups),
        "seconds": dict(found.seconds),
        "refusals": list(found.refusals)[:20],
    }


def summary(rows: list[dict[str, Any]]) -> str:
    """The totals as Markdown, with a count of barriers."""
    captured = [row for row in rows if row.get("captured")]
    exact = [row for row in captured if worst_difference(row) <= row["exact"]]
    lines = [
        f"{len(captured)} of {len(rows)} networks captured; {len(exact)} of these {len(captured)} within 1e-12 (RAFT, in "
        "float32 by its own code: 1e-4) for M1 and M2.",
        "",
        "| share of parameters removed | M1 | M2 |",
        "|---|---|---|",
        _shares("median", captured, lambda row, kind: removed(row, kind)),
    ]
    held = [row for row in captured if row["allowed_share"]]
    for name, choose in (("median", median), ("smallest", min)):
        title = f"of what halving every channel would take if nothing held any, {name}"
        lines.append(_shares(title, held, lambda row, kind: removed(row, kind) / row["allowed_share"], choose))
    return "\n".join([*lines, "", *_barrier_lines(captured)])


def _shares(
    title: str,
    rows: list[dict[str, Any]],
    share: Callable[[dict[str, Any], str], float],
    choose: Callable[[list[float]], float] = median,
) -> str:
    return f"| {title} | {' | '.join(f'{choose([share(row, kind) for row in rows]):.1%}' for kind in ('M1', 'M2'))} |"


def table(rows: list[dict[str, Any]]) -> str:
    """All rows as Markdown, under a title and the totals."""
    captured = [row for row in rows if row.get("captured")]
    lines = [
        "# Every network people bring",
        "",
        summary(rows),
        "",
        "Seconds are wall time of one thread, for M1. The last of the three shares is what halving every channel would take "
        "if nothing held any in place but the network's own inputs and outputs.",
        "",
        "| network | input | nodes | groups prunable / all | channels got / asked | parameters removed M1 / M2 / all "
        "channels | difference M1 / M2 | capture s | analysis s | rewrite s | check s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in captured),
    ]
    if len(captured) < len(rows):
        lines += ["", "| not captured | why |", "|---|---|"]
        lines += [f"| {row['network']} | {row['error'][:300]} |" for row in rows if not row.get("captured")]
    return "\n".join(lines)


def removed(row: dict[str, Any], kind: str) -> float:
    """Share of the parameters that a row's compaction removed."""
    share: float = 1 - row[kind]["parameters_after"] / max(1, row[kind]["parameters_before"])
    return share


def worst_difference(row: dict[str, Any]) -> float:
    """The larger of the two relative differences."""
    return max(float(row[kind]["relative_difference"]) for kind in ("M1", "M2"))


def _line(row: dict[str, Any]) -> str:
    first, second = row["M1"], row["M2"]
    seconds = first["seconds"]
    cells = [
        row["network"],
        row["input"],
        row["nodes"],
        f"{row['prunable_groups']} / {row['groups']}",
        f"{first['channels_got']} / {first['channels_asked']}",
        f"{removed(row, 'M1'):.1%} / {removed(row, 'M2'):.1%} / {row['allowed_share']:.1%}",
        f"{first['relative_difference']:.0e} / {second['relative_difference']:.0e}",
        f"{row['capture_seconds']:.1f}",
        *(f"{seconds[phase]:.2f}" for phase in ("analysis", "rewrite", "certificate")),
        f"{row['peak_bytes'] / 1e6:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _barrier_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Every operator that holds channels in place, with its reason, how often and in how many networks."""
    times: Counter[tuple[str, str]] = Counter()
    networks: Counter[tuple[str, str]] = Counter()
    for row in rows:
        found = [(operator, reason) for operator, reason in row["barriers"]]
        times.update(found)
        networks.update(set(found))
    if not times:
        return ["No operator of these networks held any channel in place."]
    return [
        "| barrier | why no exact rule | times | networks |",
        "|---|---|---|---|",
        *(f"| {key[0]} | {key[1]} | {count} | {networks[key]} |" for key, count in times.most_common()),
    ]


def run_one(name: str, limit: int, program: str = __file__) -> dict[str, Any]:
    """A row from a process of its own: that of `program` with ``--one``."""
    try:
        done = subprocess.run(
            [sys.executable, program, "--one", name], capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"network": name, "captured": False, "failed": True, "error": f"took longer than {limit} s"}
    if done.returncode:
        message = (done.stderr.strip().splitlines() or [f"killed, exit status {done.returncode}"])[-1]
        return {"network": name, "captured": False, "failed": True, "error": message}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--subset", action="store_true", help="a few networks of all kinds")
    parser.add_argument("--json", type=Path, help="rows already in it are not run again")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--limit", type=int, default=900, help="seconds a network")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        try:
            print(json.dumps(measure(options.one)))
        except InputError as error:
            print(json.dumps({"network": options.one, "captured": False, "error": str(error)}))
        return
    wanted = options.only or (SUBSET if options.subset else names())
    rows: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        rows = {row["network"]: row for row in json.loads(options.json.read_text())["rows"]}
    for name in wanted:
        if name not in rows:
            rows[name] = run_one(name, options.limit)
            state = rows[name].get("error") or f"{rows[name]['M1']['relative_difference']:.0e}"
            print(f"{name}: {state}", file=sys.stderr, flush=True)
        if options.json:
            setting = {"torch": torch.__version__, "python": platform.python_version(), "dtype": "float64", "seed": 0}
            setting["threads"] = 1
            write_text(options.json, json.dumps({"setting": setting, "rows": list(rows.values())}, indent=1) + "\n")
    chosen = [rows[name] for name in wanted]
    print(table(chosen))
    if options.markdown:
        write_text(options.markdown, table(chosen) + "\n")
    wrong = [
        row
        for row in rows.values()
        if row.get("failed") or (row.get("captured") and worst_difference(row) > row["exact"])
    ]
    sys.exit(f"failed or not exact: {', '.join(row['network'] for row in wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
