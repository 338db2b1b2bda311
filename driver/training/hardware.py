"""Where and how a training is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import torch

from ...frontend.base.errors import InputError

__all__ = ["Hardware", "computing"]

_NARROW = MappingProxyType({"bfloat16": torch.bfloat16, "float16": torch.float16})


@dataclass(frozen=True)
class Hardware:
    """Where and how it is computed. The same numbers come out only of the same machine settings."""

    device: str = "cpu"
    precision: str = "float32"
    """``float32``; or ``bfloat16`` or ``float16``: autocast, with weights in float32."""
    threads: int | None = None
    """Of PyTorch's pool; None leaves it as it is."""

    def checked(self) -> torch.device:
        """The device. Raises InputError if it is not there, or a choice is unknown."""
        if self.precision not in ("float32", *_NARROW):
            raise InputError(f"there is no precision '{self.precision}'; choose float32, bfloat16 or float16")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"{self.threads} threads compute nothing; give 1 or more")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise InputError(f"there is no device '{self.device}'; choose cpu or cuda") from None
        if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
            raise InputError(f"this machine has no device '{self.device}' that could train; choose cpu")
        return device

    def autocast(self) -> torch.autocast:
        """For the passes forward; it does nothing in float32."""
        device = torch.device(self.device).type
        return torch.autocast(device, _NARROW.get(self.precision), enabled=self.precision in _NARROW)

    def scaler(self) -> torch.amp.GradScaler:
        """What keeps gradients within float16 (Micikevicius et al., 2018, arXiv:1710.03740); elsewhere it does nothing."""
        return torch.amp.GradScaler(torch.device(self.device).type, enabled=self.precision == "float16")


@contextmanager
def computing(machine: Hardware, device: torch.device) -> Iterator[None]:
    """PyTorch set for the machine, and as it was afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    try:
        if machine.threads is not None:
            torch.set_num_threads(machine.threads)
        torch.backends.cudnn.deterministic = True
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = deterministic
