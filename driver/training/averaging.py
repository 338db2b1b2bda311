"""The moving average of a network in training, which is tested and given instead of its last weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...frontend.graph_module import CapturedModule

__all__ = ["Average"]


@dataclass(frozen=True, eq=False)
class Average:
    """``decay * average + (1 - decay) * network`` of weights and statistics after every step; the first step is copied."""

    model: AveragedModel = field(repr=False)
    """Its tensors are all that lasts from step to step."""

    @classmethod
    def of(cls, module: CapturedModule, decay: float) -> Average:
        """Of a network that is not trained yet. `decay`: from 0 to below 1."""
        return cls(AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True))

    def update(self, module: CapturedModule) -> None:
        """After a step."""
        self.model.update_parameters(module)

    @property
    def module(self) -> CapturedModule:
        """The average as a network."""
        module = self.model.module
        assert isinstance(module, CapturedModule)
        return module
