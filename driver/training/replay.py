"""A training step that is recorded once and replayed from then on, so that the CPU launches one thing, not hundreds.

The recording is a CUDA graph: the same kernels at the same addresses. What differs from step to step is copied to where the
recorded step reads it; what does not, such as the rate, is part of the recording, which is made anew when it changes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

__all__ = ["Replay", "is_repeatable", "record_on_cuda"]

Step = Callable[[Tensor, Tensor], None]
Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what is to be recorded and gives what replays it. What it records it need not have done."""

_SETTLED = 3
"""Steps at one rate that are done without recording first: libraries prepare themselves, and momenta come into being."""


def is_repeatable(module: fx.GraphModule) -> bool:
    """Whether a step of the module does the same each time: nothing in its graph draws random numbers."""
    drawing = torch.Tag.nondeterministic_seeded
    return not any(drawing in getattr(node.target, "tags", ()) for node in module.graph.nodes)


def record_on_cuda(step: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of what a step does on the current stream, which is not the default one."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        step()
    replay: Callable[[], None] = graph.replay
    return replay


class Replay:
    """Steps of a training, replayed where they have been at the same rate for a while."""

    def __init__(self, step: Step, record: Recorder) -> None:
        """`step` takes images and labels on the device, and does nothing but operations there."""
        self._step, self._record = step, record
        self._rate: float | None = None
        self._steps = 0
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> None:
        """The next step. `rate` is what the optimizer has been set to."""
        if rate != self._rate:
            self._rate, self._steps, self._replay = rate, 0, None
        if self._steps == _SETTLED:
            self._inputs = inputs = images.clone(), labels.clone()
            self._replay = self._record(lambda: self._step(*inputs))
        self._steps += 1
        if self._replay is None or self._inputs is None:
            self._step(images, labels)
            return
        self._inputs[0].copy_(images)
        self._inputs[1].copy_(labels)
        self._replay()
