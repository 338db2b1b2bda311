"""What scores share: the request they answer, the weights they look at, and running the model with other weights.

A score gives every weight of every convolution and linear layer a number; the larger, the dearer the weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from ....frontend.base.errors import InputError
from ....frontend.graph_module import CapturedModule, with_own_graph
from ...operations import layers_of, operations_of
from ...sizes import layer_macs
from ...values import attribute, is_tensor

__all__ = [
    "Batch",
    "Evidence",
    "Loss",
    "Request",
    "Score",
    "Weight",
    "check_scores",
    "gradients",
    "scored_weights",
    "stored_tensors",
    "synthetic_batches",
]

Batch = tuple[tuple[Any, ...], Tensor]
"""The positional inputs of one call and the targets for its outputs."""
Loss = Callable[[Any, Tensor], Tensor]
"""Takes the model's output and the targets; gives a scalar."""
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Weight:
    """A stored weight that scores look at."""

    name: str
    shape: tuple[int, ...]
    convolution: bool
    """Whether a convolution reads it; else a linear layer."""
    macs: int = 0
    """Multiply-accumulates of all calls with it on the example inputs, where they were counted."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Evidence:
    """What a decision may look at beside the weights.

    Attributes:
        inputs: positional inputs of one call; data-free scores take their shapes.
        batches: inputs and targets, for scores that need data.
        loss: for these scores; takes the model's output and the targets.
        seed: of all that is random.
        calls: calibration inputs, the positional inputs of every call, for methods that look at what layers give.
    """

    inputs: tuple[Any, ...] = ()
    batches: Sequence[Batch] = ()
    loss: Loss = F.cross_entropy
    seed: int = 0
    calls: Sequence[tuple[Any, ...]] = ()


@dataclass(frozen=True)
class Request:
    """What a score is asked.

    Attributes:
        module: canonical module in inference mode; it is not changed.
        weights: those to score.
        evidence: example inputs, data and loss.
        masks: what is pruned already, by name, True where a weight is still there.
        generator: of random scores.
    """

    module: fx.GraphModule
    weights: tuple[Weight, ...]
    evidence: Evidence
    masks: Tensors = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def tensor(self, weight: Weight) -> Tensor:
        """The weight as it is now: what is pruned is zero."""
        value: Tensor = attribute(self.module, weight.name).detach()
        mask = self.masks.get(weight.name)
        return value if mask is None else value * mask


@dataclass(frozen=True)
class Score:
    """A way to score weights.

    Attributes:
        name: what `prune` and the command line call it.
        weigh: gives the scores by weight's name, in the weight's shape; may leave pruned entries at anything.
        needs_data: whether it wants `Evidence.batches`.
        rounds: over how many rounds its authors spread the pruning.
    """

    name: str
    weigh: Callable[[Request], dict[str, Tensor]]
    needs_data: bool = False
    rounds: int = 1


def check_scores(name: str, scores: Mapping[str, Tensor]) -> None:
    """Raises InputError if a score is NaN or infinite."""
    for weight, value in scores.items():
        # The sum of scores that are all finite may still be infinite, in float16 beyond 65504.
        if not bool(value.sum().isfinite() or value.isfinite().all()):
            raise InputError(
                f"{name} gives '{weight}' scores that are not finite; check the data, or use another score"
            )


def scored_weights(module: fx.GraphModule) -> tuple[Weight, ...]:
    """The weights of all convolutions and linear layers of a canonical module, in the order they are read."""
    operations = operations_of(module)
    tensors = {name: (attribute(module, name), uses) for name, uses in layers_of(operations).items()}
    macs = layer_macs(module, operations)
    return tuple(
        Weight(name, tuple(tensor.shape), uses[0].convolution, macs[name])
        for name, (tensor, uses) in tensors.items()
        if isinstance(tensor, torch.nn.Parameter)
    )


def stored_tensors(module: fx.GraphModule) -> dict[str, Tensor]:
    """Every tensor the graph reads, detached, by name; buffers are copies, which training mode may write to."""
    found: dict[str, Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr" and is_tensor(node):
            tensor: Tensor = attribute(module, str(node.target))
            trained = isinstance(tensor, torch.nn.Parameter)
            found[str(node.target)] = tensor.detach() if trained else tensor.detach().clone()
    return found


def in_mode(module: fx.GraphModule, training: bool) -> CapturedModule:
    """A module of its own on the same tensors, so that setting its mode does not set the other's."""
    return with_own_graph(module).train(training)


def gradients(
    request: Request, batch: Batch, *, training: bool = True, create_graph: bool = False, temperature: float = 1.0
) -> tuple[list[Tensor], list[Tensor]]:
    """The masked weights, in the order of ``request.weights``, and the loss's gradients by them on one batch.

    Args:
        request: model, weights, masks and the evidence with the loss.
        batch: inputs and targets.
        training: whether normalisation uses the batch's statistics and dropout drops.
        create_graph: whether the gradients can be differentiated again.
        temperature: the outputs are divided by this before the loss.

    Raises:
        InputError: the model does not run on the batch, or the loss is not finite.
    """
    module = in_mode(request.module, training)
    leaves = {weight.name: request.tensor(weight).requires_grad_() for weight in request.weights}
    inputs, targets = batch
    try:
        outputs = torch.func.functional_call(module, stored_tensors(module) | leaves, inputs)
        loss = request.evidence.loss(outputs / temperature if temperature != 1.0 else outputs, targets)
        found = torch.autograd.grad(
            loss, list(leaves.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"the loss cannot be computed on the batches given for scoring: {reason}") from error
    if not bool(loss.isfinite()):
        raise InputError("the loss on the batches given for scoring is not finite; normalise the inputs")
    return list(leaves.values()), list(found)


def synthetic_batches(
    module: Callable[..., Any], inputs: Sequence[Any], *, count: int = 1, size: int = 64, seed: int = 0
) -> tuple[Batch, ...]:
    """Normally distributed inputs of the example's shapes with random labels, for where there are no data.

    Args:
        module: a classifier; its output is (N, classes).
        inputs: example inputs; the first axis of each is the batch.
        count: batches.
        size: examples in each.
        seed: of inputs and labels.

    Raises:
        InputError: the model's output has no axis of classes, or an input is no floating-point tensor.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        output = module(*inputs)
    if not isinstance(output, Tensor) or output.dim() < 2:
        raise InputError(
            "synthetic batches are for classifiers, whose output is (N, classes); give batches of your own"
        )
    if not all(isinstance(value, Tensor) and value.is_floating_point() and value.dim() for value in inputs):
        raise InputError("synthetic batches need floating-point inputs; give batches of your own")
    classes, places = output.shape[1], output.shape[2:]
    return tuple(
        (
            tuple(torch.randn((size, *value.shape[1:]), generator=generator, dtype=value.dtype) for value in inputs),
            torch.randint(classes, (size, *places), generator=generator),
        )
        for _ in range(count)
    )
