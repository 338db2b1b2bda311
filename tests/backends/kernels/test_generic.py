"""The schedule of operators without a family, for vectors of any width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te

from reconvene.backends.kernels.generic import schedule_foreign
from reconvene.backends.legalizations.extrema import arg_extreme

SHAPE = (2, 3, 16, 16)


def computed(make: Any, image: np.ndarray, lanes: int, kinds: tuple[str, ...]) -> list[np.ndarray]:
    x = te.placeholder(image.shape, "float32", name="x")
    made = make(x)
    results = list(made) if isinstance(made, list | tuple) else [made]
    function = te.create_prim_func([x, *results]).with_attr("global_symbol", "kernel")
    module = schedule_foreign(tvm.IRModule({"kernel": function}), lanes)
    tensors = [
        tvm.runtime.tensor(np.zeros([int(extent) for extent in result.shape], kind))
        for result, kind in zip(results, kinds, strict=True)
    ]
    tvm.compile(module, target="llvm")["kernel"](tvm.runtime.tensor(image), *tensors)
    return [tensor.numpy() for tensor in tensors]


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_a_maximum_and_its_place_are_those_of_each_row(lanes: int, axis: int) -> None:
    image = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    place, value = computed(lambda x: arg_extreme(x, axis, False, True), image, lanes, ("int64", "float32"))
    np.testing.assert_array_equal(place, image.argmax(axis))
    np.testing.assert_array_equal(value, image.max(axis))


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_a_sum_of_vectors_is_that_of_each_row(lanes: int, axis: int) -> None:
    image = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")

    def total(x: Any) -> Any:
        along = te.reduce_axis((0, SHAPE[axis]), name="k")
        shape = [extent for number, extent in enumerate(SHAPE) if number != axis]
        return te.compute(shape, lambda *at: te.sum(x(*at[:axis], along, *at[axis:]), axis=along), name="total")

    (found,) = computed(total, image, lanes, ("float32",))
    np.testing.assert_allclose(found, image.sum(axis), rtol=0, atol=1e-5)
