"""How operators without a kernel of ours are computed, where TVM's own way holds for ordinary values only.

TVM subtracts large numbers (a variance as the mean of squares minus the square of the mean), sums in the order of memory,
takes functions near zero from formulas for elsewhere, and loses NaN in maxima. Here is what takes its place.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..kernels.scattering import LEGALIZED
from .comparisons import COMPARISONS
from .extrema import EXTREMA
from .functions import FUNCTIONS
from .statistics import STATISTICS

__all__ = ["LEGALIZATIONS"]

LEGALIZATIONS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {**LEGALIZED, **COMPARISONS, **EXTREMA, **FUNCTIONS, **STATISTICS}
)
"""From Relax operators to kernels, as ``relax.transform.LegalizeOps`` takes them."""
