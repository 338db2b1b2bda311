"""What every method is: a frozen dataclass whose fields are its options, and what it can be asked for.

`ChannelMethod`s remove channels, `WeightMethod`s say before a training which weights are zero in it, and `TrainingMethod`s
find that out while the network is trained, by hooks which the training loop calls. `pruning.methods.METHODS` names them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, ClassVar, Self

from torch import Tensor, fx, nn

from ....frontend.base.errors import InputError
from ....frontend.base.option_values import of_kind
from ....frontend.graph_module import CapturedModule
from ...canonicalize import canonicalize
from ...outcome import Compaction
from ...recovery.least_squares import Recovery
from ..decisions import AS_WANTED, Widths, check_sparsity
from ..latency import LatencyGoal, LayerTime, check_latency
from ..scores import Evidence, scored_weights
from ..structure_rules import StructureRule, spelled_rules
from ..zeros_latency import Timing, ZerosGoal, ZerosTime
from .sensitivity import Sensitivity

__all__ = [
    "Aim",
    "ChannelMethod",
    "Hooks",
    "Method",
    "Moment",
    "Pruned",
    "SparseMethod",
    "State",
    "TrainingMethod",
    "WeightMethod",
    "Weights",
]

State = dict[str, Tensor]
"""What a method keeps from step to step of a training, by names of its own. The checkpoint has it."""
Weights = Mapping[str, nn.Parameter]
"""Parameters by name, as they are in training: on its device, with gradients after the backward pass."""


@dataclass(frozen=True)
class Method:
    """A way to decide what is zero. The fields of a method are its options; it is never changed."""

    name: ClassVar[str]
    """In Python and on the command line."""
    role: ClassVar[str] = "prunes"
    """What methods of this kind do, for messages."""

    @property
    def scored_by(self) -> str | None:
        """The score of weights that it asks, of `pruning.scores.SCORES`, if it asks one: some need data."""
        return None

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(entry.name for entry in dataclasses.fields(cls))

    def with_options(self, given: Mapping[str, Any]) -> Self:
        """The same method with other options; numbers may be written as text.

        Raises:
            InputError: for an option or a choice that there is not.
        """
        known = {entry.name: str(entry.type) for entry in dataclasses.fields(self)}
        for option in given:
            if option not in known:
                there_are = f"it has {', '.join(known)}" if known else "it has none"
                raise InputError(f"the method {self.name} has no option '{option}'; {there_are}")
        values = {name: of_kind(name, known[name], value) for name, value in given.items()}
        chosen = dataclasses.replace(self, **values)
        chosen.check()
        return chosen

    def check(self) -> None:
        """Raises InputError for an option whose value is none of its choices."""


@dataclass(frozen=True)
class Aim:
    """What a method that removes channels is asked for.

    Attributes:
        sparsity: share to remove, at least 0 and below 1; of what, the method says.
        widths: how wide layers may end.
        latency: share of the dense network's time to reach instead, above 0 and up to 1; the sparsity is then found.
        time: what tells the time of layers, for `latency`.
        zeros_time: what tells the time of the network with zeros inside layers, for `latency` with structures.
        fold: whether batch normalisation is folded into the layers before it, which is for inference only.
        structures: of zeros inside layers, which are then made instead of choosing channels; the share is one of weights.

    Raises:
        InputError: a share is out of range, or something was asked for that has no meaning with structures.
    """

    sparsity: float = 0.5
    widths: Widths = AS_WANTED
    latency: float | None = None
    time: LayerTime | None = None
    zeros_time: ZerosTime | None = None
    fold: bool = False
    structures: tuple[StructureRule, ...] = ()

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        if self.latency is not None:
            check_latency(self.latency)
            if self.widths.shares:
                raise InputError("shares of layers were given with a latency, which finds them; leave one of them out")
        if not self.structures:
            return
        if self.widths.shares:
            raise InputError(
                "with a structure, a layer's own share is said with it, such as {'conv2': 'row-block:4@0.8'}"
            )
        shares = {share for rule in self.structures for share in rule.own_shares}
        spelled = spelled_rules(self.structures)
        if None not in shares and self.latency is not None:
            raise InputError(
                f"{spelled} says its share of zeros itself, so no latency can be aimed at by it; leave the latency out, or"
                " name a structure of any share, such as row-block:4"
            )
        if None not in shares and self.sparsity not in (0.5, *shares):
            raise InputError(
                f"sparsity {self.sparsity} has no meaning with {spelled}, which says its share of zeros itself"
            )

    @property
    def goal(self) -> LatencyGoal | None:
        """The latency that is aimed at, if one is. Raises ValueError where nothing tells the time of layers."""
        if self.latency is None:
            return None
        if self.time is None:
            raise ValueError("a latency is aimed at, and nothing tells the time of layers")
        return LatencyGoal(self.latency, self.time)

    @property
    def zeros_goal(self) -> ZerosGoal | None:
        """The same for zeros inside layers. Raises ValueError where nothing tells the time of the network."""
        if self.latency is None:
            return None
        if self.zeros_time is None:
            raise ValueError("a latency is aimed at, and nothing tells the time of a network with zeros")
        return ZerosGoal(self.latency, self.zeros_time)


@dataclass(frozen=True)
class Pruned:
    """A network without the channels that a method removed."""

    compaction: Compaction
    """Of the removal; its ``plan.origin`` says what was asked. New initial weights, if any, are in its module."""
    sensitivity: Sensitivity | None = None
    """Which layers were found resilient, if the method asks that."""
    reinitialized: tuple[str, ...] = ()
    """Layers with new initial weights."""
    profile: bool = False
    """Whether memory and time before and after are part of the result."""
    recovery: Recovery | None = None
    """Which layers were solved anew, if the method does that."""
    timing: Timing | None = None
    """How a latency was reached by zeros inside layers, if one was aimed at."""


@dataclass(frozen=True)
class ChannelMethod(Method):
    """A method that removes channels."""

    role: ClassVar[str] = "removes channels"
    makes_structures: ClassVar[bool] = False
    """Whether it also gives zeros inside layers a structure."""
    takes_shares: ClassVar[bool] = False
    """Whether layers can be given shares of their own, `Widths.shares`."""

    @property
    def keeps_weights(self) -> bool:
        """Whether what stays has the weights it had, so that a trained network is one afterwards."""
        return True

    @property
    def looks_at_calls(self) -> bool:
        """Whether it looks at what layers give on calibration inputs, `Evidence.calls`."""
        return False

    def check_aim(self, aim: Aim) -> None:
        """Raises InputError if something is asked for that has no meaning for this method."""
        if aim.widths.shares and not self.takes_shares:
            raise InputError(
                f"the method {self.name} shares a sparsity out itself; give it one number, or name a score"
            )
        if aim.structures and not self.makes_structures:
            raise InputError(
                f"the method {self.name} removes channels alone; name a score instead, or layerwise, to have a structure"
            )

    def prune(self, module: fx.GraphModule, evidence: Evidence, aim: Aim) -> Pruned:
        """A smaller network; `module` (captured) is left as it was. What could not be removed is among its refusals.

        Raises:
            InputError: the aim cannot be reached, data are missing, or there is nothing to prune.
            CheckError: the smaller network differs from the masked one.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SparseMethod(Method):
    """A method that leaves layers as they are, with zeros among their weights."""

    role: ClassVar[str] = "zeroes weights"


@dataclass(frozen=True)
class WeightMethod(SparseMethod):
    """A method that says before a training which weights are zero in it."""

    follows: ClassVar[bool] = False
    """Whether it looks at weights that were trained with the masks before; else at the untrained ones."""

    def masks(
        self,
        module: fx.GraphModule,
        evidence: Evidence,
        sparsity: float,
        *,
        before: Mapping[str, Tensor] | None = None,
        ignore: tuple[str, ...] = (),
    ) -> dict[str, Tensor]:
        """Masks by parameter name, boolean, True to keep.

        Args:
            module: captured; trained under the masks `before` if the method `follows`.
            evidence: what it may look at.
            sparsity: share of the weights of convolutions and linear layers that are zero, at least 0 and below 1.
            before: masks of a smaller sparsity, which the same training had before.
            ignore: patterns (``fnmatch``) of parameter names that stay whole and do not count.

        Raises:
            InputError: the sparsity is out of range, data are missing, or there is nothing to prune.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Moment:
    """How far a training is.

    Attributes:
        step: steps that are done, of the preset's whole schedule.
        steps: of an epoch.
        epochs: of the preset.
    """

    step: int
    steps: int
    epochs: int

    @property
    def progress(self) -> float:
        """The share of all steps that are done, 1 after the last."""
        return self.step / (self.epochs * self.steps)

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return self.step // self.steps

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was the last of an epoch."""
        return self.step % self.steps == 0


class Hooks:
    """What the training loop calls at every step. Each does nothing unless a method says otherwise.

    A training that was killed goes on from its last checkpoint, and ends in the same bits, if the hooks depend on their
    arguments alone: what is to last goes into the state. Random numbers of PyTorch's own generator repeat, too.
    """

    def weights(self, module: CapturedModule) -> dict[str, nn.Parameter]:
        """The parameters that the other hooks see; unless said otherwise the weights of convolutions and linear layers.

        Raises:
            InputError: the method does not fit this module.
        """
        return {weight.name: module.get_parameter(weight.name) for weight in scored_weights(canonicalize(module))}

    def begin(self, weights: Weights) -> State:
        """The state before the first step. It may change weights in place; gradients are off."""
        return {}

    def penalty(self, weights: Weights, state: State) -> Tensor | None:
        """A scalar that is added to the loss before the backward pass; None for none."""
        return None

    def gradients(self, weights: Weights, state: State) -> None:
        """May change ``weight.grad`` in place, after the backward pass and before the optimizer's step; gradients are off."""

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        """The state after the optimizer's step. It may change weights in place; gradients are off.

        Args:
            weights: after the step.
            state: of the step before.
            moment: how far the training is, this step included.
        """
        return state

    def settle(self, average: Weights, weights: Weights, state: State) -> None:
        """Takes a moving average of the weights to what the hooks leave: what is zero is zero in it. Gradients are off."""
        for name, weight in weights.items():
            average[name].mul_(weight != 0)

    def figures(self, weights: Weights, state: State) -> Mapping[str, float]:
        """What the log says of an epoch that is over, always by the same names; gradients are off."""
        return {}


@dataclass(frozen=True)
class TrainingMethod(SparseMethod, Hooks):
    """A method that finds out which weights are zero while the network is trained.

    Attributes:
        sparsity: share of the weights that are zero at the end, at least 0 and below 1.
        ignore: patterns (``fnmatch``) of parameter names that the hooks do not see.
    """

    role: ClassVar[str] = "finds zeros in training"

    sparsity: float = 0.9
    ignore: tuple[str, ...] = field(default=())

    def check(self) -> None:
        check_sparsity(self.sparsity)

    def bound(self, module: CapturedModule) -> Hooks:
        """The hooks for a module that is about to be trained, its weights being those before the first step.

        They may depend on the module: a training that is taken up again binds its method to the same one.

        Raises:
            InputError: the method does not fit this module.
        """
        return self

    def masks_in(self, trained: CapturedModule) -> dict[str, Tensor]:
        """Masks of the zeros that a training with it left, by parameter name, boolean, for another training to keep."""
        return {name: weight.detach() != 0 for name, weight in self.weights(trained).items()}

    def left_alone(self, module: CapturedModule) -> tuple[str, ...]:
        """One line for what of a module gets no zeros, with the reason, where the method has one."""
        return ()

    def recorded(self) -> dict[str, Any]:
        """What a log says of it: name and options. Two trainings of which it is the same are trained alike."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def weights(self, module: CapturedModule) -> dict[str, nn.Parameter]:
        seen = {
            name: weight
            for name, weight in super().weights(module).items()
            if not any(fnmatch(name, pattern) for pattern in self.ignore)
        }
        if not seen:
            raise InputError("this model has no convolution or linear layer whose weights could be pruned")
        return seen
