"""What both parts of the demo measure: two networks compiled, compared image by image with PyTorch, and timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...frontend.base.progress import stage, track
from .. import api
from ..reports.latency import measure
from ..reports.report import Fact, Latency

if TYPE_CHECKING:
    from ...backends.built import Built

__all__ = ["THREADS", "Variants", "compiled", "compiled_agrees", "hits", "scores", "timed"]

THREADS = 1

Variants = Mapping[str, torch.fx.GraphModule]
"""By name, ``dense`` and ``compacted``."""


def compiled(variants: Variants, image: Tensor) -> dict[str, Built]:
    """Every variant compiled, once for both the comparison and the timing."""
    made = {}
    for name, module in variants.items():
        with stage(f"compiling the {name} network"):
            made[name] = api.compile(module, (image,), "host", threads=THREADS)
    return made


def timed(
    variants: Variants, built: Mapping[str, Built], image: Tensor, repeat: int, engines: tuple[str, ...]
) -> list[Latency]:
    """Latency of one image on one thread, by engine and variant."""
    calls = {name: (module, (image,)) for name, module in variants.items()}
    return measure(calls, threads=THREADS, repeat=repeat, engines=engines, built=built)


def compiled_agrees(built: Mapping[str, Built], outputs: Mapping[str, Tensor], images: Tensor) -> Fact:
    """How many predictions the compiled networks share with PyTorch's `outputs`, image by image."""
    shares = []
    for name in ("dense", "compacted"):
        expected = outputs[name].argmax(1)
        agree = sum(
            int(first(built[name].run(images[index : index + 1])).argmax()) == int(expected[index])
            for index in track(range(len(images)), f"checking the compiled {name} network")
        )
        shares.append(f"{agree}/{len(images)}")
    return Fact("Predictions of TVM that equal PyTorch's", shares[0], shares[1])


def scores(module: nn.Module, images: Tensor) -> Tensor:
    """Outputs (N, classes), one image at a time, as they are compiled for.

    On one thread: PyTorch's threads wait for each other in every layer, which beside another program takes
    longer by far than the network does.
    """
    from ...backends.measure import torch_threads

    with torch.inference_mode(), torch_threads(THREADS):
        return torch.cat([first(module(image[None])) for image in images])


def first(outputs: object) -> Tensor:
    """The only output of a classifier, whether it comes alone or in a tuple."""
    found = outputs[0] if isinstance(outputs, list | tuple) else outputs
    return torch.as_tensor(found)


def hits(outputs: Tensor, labels: Tensor, most: int = 1) -> str:
    """How many labels are among the `most` largest outputs: ``18/20``."""
    found = (outputs.topk(most).indices == labels[:, None]).any(1)
    return f"{int(found.sum())}/{len(labels)}"
