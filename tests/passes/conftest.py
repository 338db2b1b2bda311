"""One thread: tests run beside each other, and small tensors are not worth a second one."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
