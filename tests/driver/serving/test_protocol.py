"""The inference protocol without a network: what goes in comes out, and every mistake is named."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reconvene.backends.tensor_spec import CodeScale, TensorSpec
from reconvene.driver.serving.protocol import RequestError, infer_answer, infer_request, json_object, tensor_metadata

X, SHIFT = TensorSpec("x", (2, 3), "float32"), TensorSpec("shift", (2,), "int64")
Y, FLAGS = TensorSpec("output0", (2, 2), "float32"), TensorSpec("output1", (2,), "bool")
INPUTS, OUTPUTS = (X, SHIFT), (Y, FLAGS)
GOOD = {
    "inputs": [
        {"name": "shift", "shape": [2], "datatype": "INT64", "data": [1, -5]},
        {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [[0, 1, 2], [3.5, 4, 5]]},
    ]
}


def request(value: dict[str, Any], tail: bytes = b"", length: str | None = None) -> Any:
    text = json.dumps(value).encode()
    return infer_request(text + tail, length or (str(len(text)) if tail else None), INPUTS, OUTPUTS)


def test_codes_say_what_they_stand_for() -> None:
    coded = TensorSpec("x", (2, 3), "int8", CodeScale(0.5, -3))
    assert tensor_metadata([coded, SHIFT]) == [
        {"name": "x", "datatype": "INT8", "shape": [2, 3], "parameters": {"scale": 0.5, "zero_point": -3}},
        {"name": "shift", "datatype": "INT64", "shape": [2]},
    ]
    value = {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "INT8", "data": [1, -128, 127, 0, 5, 6]}]}
    (found,) = infer_request(json.dumps(value).encode(), None, (coded,), OUTPUTS).inputs
    assert found.dtype == "int8" and found.tolist() == [[1, -128, 127], [0, 5, 6]]


def test_inputs_come_in_the_models_order() -> None:
    found = request(GOOD)
    np.testing.assert_array_equal(found.inputs[0], np.array([[0, 1, 2], [3.5, 4, 5]], "float32"))
    np.testing.assert_array_equal(found.inputs[1], [1, -5])
    assert [value.dtype.name for value in found.inputs] == ["float32", "int64"]
    assert (found.id, found.outputs) == (None, ((0, False), (1, False)))


def test_binary_inputs_follow_in_the_order_of_the_request() -> None:
    x, shift = np.arange(6, dtype="<f4").reshape(2, 3), np.array([2**40, -1], "<i8")
    value = {
        "id": "a",
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": "shift", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
            {"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}},
        ],
        "outputs": [{"name": "output1", "parameters": {"binary_data": False}}, {"name": "output0"}],
    }
    found = request(value, shift.tobytes() + x.tobytes())
    np.testing.assert_array_equal(found.inputs[0], x)
    np.testing.assert_array_equal(found.inputs[1], shift)
    assert (found.id, found.outputs) == ("a", ((1, False), (0, True)))


def test_answers() -> None:
    y, flags = np.arange(4, dtype="float32").reshape(2, 2) / 3, np.array([True, False])
    body, length = infer_answer("net", "small", request({**GOOD, "id": "7"}), OUTPUTS, (y, flags))
    assert length is None
    assert json.loads(body) == {
        "model_name": "net",
        "model_version": "small",
        "id": "7",
        "outputs": [
            {"name": "output0", "datatype": "FP32", "shape": [2, 2], "data": y.ravel().tolist()},
            {"name": "output1", "datatype": "BOOL", "shape": [2], "data": [True, False]},
        ],
    }
    binary = request({**GOOD, "parameters": {"binary_data_output": True}})
    body, length = infer_answer("net", "small", binary, OUTPUTS, (y, flags))
    assert length is not None
    head = json.loads(body[:length])
    assert [entry["parameters"] for entry in head["outputs"]] == [{"binary_data_size": 16}, {"binary_data_size": 2}]
    assert body[length:] == y.tobytes() + flags.tobytes()


def test_what_json_has_no_form_for() -> None:
    y = np.array([[np.nan, 1], [2, 3]], "float32")
    with pytest.raises(RequestError, match="output 'output0' is not finite; ask for it with binary_data"):
        infer_answer("net", "small", request(GOOD), OUTPUTS, (y, np.zeros(2, bool)))
    binary = request({**GOOD, "outputs": [{"name": "output0", "parameters": {"binary_data": True}}]})
    body, length = infer_answer("net", "small", binary, OUTPUTS, (y, np.zeros(2, bool)))
    assert body[length:] == y.tobytes()


def test_metadata() -> None:
    assert tensor_metadata(INPUTS) == [
        {"name": "x", "datatype": "FP32", "shape": [2, 3]},
        {"name": "shift", "datatype": "INT64", "shape": [2]},
    ]


def changed(index: int, **values: Any) -> dict[str, Any]:
    inputs = [dict(entry) for entry in GOOD["inputs"]]
    inputs[index] = {key: value for key, value in {**inputs[index], **values}.items() if value is not ...}
    return {"inputs": inputs}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "needs 'inputs', an array of objects, got None"),
        ({"inputs": {}}, "needs 'inputs'"),
        ({"inputs": [1]}, "needs 'inputs'"),
        ({"inputs": []}, "input 'x' is missing"),
        ({"inputs": GOOD["inputs"] * 2}, "input 'shift' is given twice"),
        ({**GOOD, "id": 7}, "id is 7, not a string"),
        ({**GOOD, "parameters": []}, r"parameters are \[\], not a JSON object"),
        ({**GOOD, "parameters": {"binary_data_output": 1}}, "binary_data_output is 1, not true or false"),
        ({**GOOD, "outputs": [{"name": "z"}]}, "no output 'z'; it gives output0, output1"),
        ({**GOOD, "outputs": [{"name": "output0"}] * 2}, "output 'output0' is asked for twice"),
        ({**GOOD, "outputs": [{"name": "output0", "parameters": {"classification": 3}}]}, "not supported"),
        (changed(0, name="../x"), r"no input '../x'; it takes x, shift"),
        (changed(0, name=["x"]), "no input"),
        (changed(0, datatype="INT32"), "input 'shift' must be INT64, got 'INT32'"),
        (changed(0, datatype=...), "must be INT64, got None"),
        (changed(1, shape=[3, 2]), r"must be of shape \[2, 3\], got \[3, 2\]"),
        (changed(1, shape=[2.0, 3]), r"must be of shape"),
        (changed(1, shape=[-2, -3]), r"must be of shape"),
        (changed(0, shape=[True, 2]), r"must be of shape"),
        (changed(1, data=...), "needs data, an array, got None"),
        (changed(1, data="abc"), "needs data, an array"),
        (changed(1, data=[1, 2, 3]), r"have the shape \[3\] instead of \[2, 3\] or \[6\]"),
        (changed(1, data=[[1, 2, 3], [4, 5]]), "not nested evenly"),
        (changed(1, data=[[1, 2], [3, 4], [5, 6]]), "have the shape"),
        (changed(1, data=["1"] * 6), "not all of FP32"),
        (changed(1, data=[None] * 6), "not all of FP32"),
        (changed(1, data=[{}] * 6), "not all of FP32"),
        (changed(1, data=[10**400] * 6), "not all of FP32"),
        (changed(1, data=[1e39] * 6), "do not fit FP32"),
        (changed(0, data=[1.5, 2]), "not all of INT64"),
        (changed(0, data=[2**63, 0]), "do not fit INT64|not all of INT64"),
        (changed(0, parameters={"binary_data_size": 16}), "has both data and binary_data_size"),
        (changed(0, data=..., parameters={"binary_data_size": 15}), "has binary_data_size 15 instead of 16"),
        (changed(0, data=..., parameters={"binary_data_size": "16"}), "has binary_data_size '16'"),
        (changed(0, data=..., parameters={"binary_data_size": 16}), "has 0 bytes instead of 16"),
    ],
)
def test_mistakes_are_named(value: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        request(value)
    assert caught.value.status == 400 and "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"a": NaN}', b"[1]", b"7", b'{"a": 1} x'])
def test_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(RequestError):
        json_object(body)


@pytest.mark.parametrize("length", ["-1", "1e3", "99999", "", "٣", " 5", "0"])
def test_lengths_of_the_json_that_are_none(length: str) -> None:
    with pytest.raises(RequestError):
        infer_request(json.dumps(GOOD).encode(), length, INPUTS, OUTPUTS)


def test_bytes_that_nobody_announced() -> None:
    with pytest.raises(RequestError, match="3 bytes follow the last input"):
        request(GOOD, b"abc")


@given(
    value=arrays.arrays("float32", (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    flat=st.booleans(),
)
def test_numbers_survive_json(value: np.ndarray, flat: bool) -> None:
    found = request(changed(1, data=(value.ravel() if flat else value).tolist()))
    assert found.inputs[0].tobytes() == value.tobytes()


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from("inputs outputs name shape datatype data parameters binary_data_size id".split()), inner
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_answered_or_refused(value: Any) -> None:
    with contextlib.suppress(RequestError):
        infer_request(json.dumps(value).encode(), None, INPUTS, OUTPUTS)


def test_a_request_says_each_thing_once_and_in_utf_8() -> None:
    for body in (b'{"inputs": [], "inputs": []}', '{"inputs": []}'.encode("utf-16"), b'{"id": NaN}', b"[" * 100_000):
        with pytest.raises(RequestError, match="the request is not JSON"):
            json_object(body)
