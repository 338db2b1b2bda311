"""What pruning and compaction give to a person."""

from __future__ import annotations

import os
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from torch import fx
from torch.optim.swa_utils import AveragedModel

from ..frontend.data.facts import facts_of
from ..frontend.program_file import save_program
from ..frontend.stored_compute import compute_of
from ..passes.outcome import Certificate
from ..passes.plan import Plan
from ..passes.pruning.methods.sensitivity import Sensitivity
from ..passes.recovery.least_squares import Recovery
from .reports.report import Report
from .training.transfer import Origin, Removal, names_in, transferred_average, transferred_optimizer

__all__ = ["Result", "weights_sum"]

Training = TypeVar("Training", torch.optim.Optimizer, AveragedModel)


@dataclass(frozen=True)
class Result:
    """A smaller model, with what was done, what it is worth, and the check that it computes the same.

    Printed, it is what became of its parameters, and its certificate: the rest runs to thousands of lines.
    """

    module: fx.GraphModule = field(repr=False)
    """The compacted graph; trainable, `.train()` and `.eval()` work."""
    plan: Plan = field(repr=False)
    """Which channels stay, by parameter name; ``save(path)``, and apply it to a fresh copy of the model."""
    report: Report = field(repr=False)
    """What was asked, got and refused, sizes before and after; ``to_json()``, ``to_html()``."""
    certificate: Certificate
    """The comparison with the masked model that was run."""
    sensitivity: Sensitivity | None = field(default=None, repr=False)
    """Of the method ``reconvene``: which layers its evaluator found resilient."""
    reinitialized: tuple[str, ...] = field(default=(), repr=False)
    """Of the method ``reconvene``: layers that have new initial weights."""
    recovery: Recovery | None = field(default=None, repr=False)
    """Of `recover`: which layers were solved anew, and how far their outputs are from those before."""
    origin: Origin | None = field(default=None, repr=False, compare=False)
    """Which parameters the model had."""
    folded: bool = field(default=False, repr=False)
    """Whether batch normalisation was folded."""
    example_inputs: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    """Of one call of `module`, by position."""
    checked_sum: int | None = field(default=None, repr=False, compare=False)
    """`weights_sum` of `module` as the certificate was given."""

    def __repr__(self) -> str:
        before, after = self.report.before.parameters, self.report.after.parameters
        said = [f"{before:,} parameters to {after:,}"]
        said += [note for note in self.report.notes if note.startswith("nothing was removed")]
        if self.report.refusals:
            said.append(f"{len(self.report.refusals)} refusals, such as {self.report.refusals[0]}")
        return f"Result({'; '.join(said)}; {self.certificate})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the module as a ``.pt2`` file, which `reconvene.load` and the command line read, with its example inputs.

        The certificate goes with it unless the weights were changed since, by training, say.

        Raises:
            InputError: the file cannot be written. An older file of that name is then untouched.
        """
        checked = self.checked_sum is not None and self.checked_sum == weights_sum(self.module)
        save_program(
            self.module,
            self.example_inputs,
            path,
            certificate=asdict(self.certificate) if checked else None,
            compute=compute_of(self.module),
            data=facts_of(self.module),
        )

    def transfer(self, training: Training, model: torch.nn.Module | None = None) -> Training:
        """Puts what trained the model to work on `module`: its state is that of what was kept, to the last bit.

        Args:
            training: an optimizer, or an average (``torch.optim.swa_utils.AveragedModel``) of the model. It is changed, so
                that schedulers that hold it go on; move `module` to its device first.
            model: whose parameters the optimizer has, if that is not the very model that was given (but, say, a copy) and
                the optimizer was not made of ``named_parameters()``.

        Returns:
            `training` itself.

        Raises:
            InputError: it is of another model, or what it keeps cannot be taken apart; nothing is changed then.
            CheckError: the smaller average does not compute what it did.
        """
        removal = Removal(self.module, self.plan, self.reinitialized, self.folded)
        if isinstance(training, AveragedModel):
            transferred_average(training, removal)
        else:
            transferred_optimizer(
                training, names_in(training, self.origin if model is None else Origin(model)), removal
            )
        return training


def weights_sum(module: torch.nn.Module) -> int:
    """A checksum of all parameters and buffers, by which changed ones are told."""
    found = 0
    for tensor in module.state_dict().values():
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        found = zlib.crc32(plain.view(torch.uint8).numpy().data, found)
    return found
