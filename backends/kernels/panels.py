"""The weights of a tile of output blocks, in the order in which a convolution reads them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..graph.nodes import Convolution

__all__ = ["by_block", "groups_of"]


def groups_of(first: int, last: int, convolution: Convolution) -> range:
    """The groups that output channels from `first` to before `last` are in."""
    per_group = convolution.weights.kernel.shape[0] // convolution.groups
    return range(first // per_group, (last - 1) // per_group + 1)


def by_block(panel: npt.NDArray[np.float32], rest: int) -> npt.NDArray[np.float32]:
    """Block, KH, KW, channel, output; of the last block only its `rest` channels."""
    ordered = panel.transpose(0, 2, 3, 1, 4)
    if not rest:
        return ordered.reshape(-1)
    return np.concatenate([ordered[:-1].reshape(-1), ordered[-1, :, :, :rest].reshape(-1)])
