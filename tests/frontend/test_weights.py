"""Weights from files of others: under the model's names or refused by name, and nothing of them is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.weights import load_weights, place_and_key


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), fc=nn.Linear(2, 2)))


TRAINED = net(7)


def same(model: nn.Module) -> bool:
    own, trained = model.state_dict(), TRAINED.state_dict()
    return all(torch.equal(own[name], value) for name, value in trained.items() if "num_batches" not in name)


def prefixed(front: str) -> dict[str, torch.Tensor]:
    return {front + name: value for name, value in TRAINED.state_dict().items()}


WRITTEN: dict[str, Any] = {
    "a state dict": TRAINED.state_dict(),
    "a checkpoint": {"epoch": 3, "state_dict": TRAINED.state_dict(), "optimizer": {"state": {}}},
    "another one": {"model_state_dict": TRAINED.state_dict(), "loss": 0.5},
    "one in one": {"model": {"state_dict": TRAINED.state_dict()}},
    "of DataParallel": prefixed("module."),
    "of torch.compile": prefixed("_orig_mod."),
    "of both": prefixed("module._orig_mod."),
    "of a Lightning module": {"state_dict": prefixed("model."), "hyper_parameters": {"rate": 0.1}},
    "of an average": {**prefixed("module."), "n_averaged": torch.tensor(5)},
    "compiled inside": {name.replace("conv.", "conv._orig_mod."): v for name, v in TRAINED.state_dict().items()},
    "without counts": {n: v for n, v in TRAINED.state_dict().items() if not n.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("what", WRITTEN)
def test_what_torch_saves_is_read(what: str, tmp_path: Path) -> None:
    torch.save(WRITTEN[what], tmp_path / "net.pth")
    model = net()
    assert load_weights(model, tmp_path / "net.pth") is model
    assert same(model)


def test_safetensors_and_the_old_format_are_read(tmp_path: Path) -> None:
    save_file(TRAINED.state_dict(), tmp_path / "net.bin")
    assert same(load_weights(net(), tmp_path / "net.bin"))
    torch.save(TRAINED.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_weights(net(), tmp_path / "old.pth"))


def test_wrapped_models_and_tied_weights_take_them(tmp_path: Path) -> None:
    torch.save(TRAINED.state_dict(), tmp_path / "net.pth")
    model = net()
    load_weights(nn.DataParallel(model), tmp_path / "net.pth")
    assert same(model)
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    save_file({"0.weight": torch.eye(2)}, tmp_path / "tied.safetensors")
    load_weights(tied, tmp_path / "tied.safetensors")
    assert torch.equal(tied[1].weight, torch.eye(2))


def test_masks_of_torch_are_applied(tmp_path: Path) -> None:
    pruned = net(7)
    prune.l1_unstructured(pruned.get_submodule("conv"), "weight", amount=0.5)
    torch.save(pruned.state_dict(), tmp_path / "pruned.pth")
    model = load_weights(net(), tmp_path / "pruned.pth")
    assert torch.equal(model.get_parameter("conv.weight"), pruned.get_submodule("conv").weight)
    assert int((model.get_parameter("conv.weight") == 0).sum()) == 9


def test_several_state_dicts_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    torch.save({"model": net(1).state_dict(), "ema": TRAINED.state_dict()}, path)
    with pytest.raises(InputError, match=r"several state dicts, 'model', 'ema'; say which: .*both\.pth:ema"):
        load_weights(net(), path)
    assert same(load_weights(net(), path, key="ema"))
    with pytest.raises(InputError, match="no state dict called 'best'; its entries are 'model', 'ema'"):
        load_weights(net(), path, key="best")
    assert place_and_key(f"{path}:ema") == (str(path), "ema") and place_and_key(str(path)) == (str(path), None)


def misfits() -> dict[str, tuple[dict[str, Any], str]]:
    state = TRAINED.state_dict()
    without = {name: value for name, value in state.items() if not name.startswith("fc.")}
    return {
        "missing": (without, r"2 missing: fc\.weight, fc\.bias;"),
        "unexpected": ({**state, "head.weight": torch.ones(2)}, r"1 unexpected: head\.weight;"),
        "shape": ({**state, "fc.bias": torch.ones(3)}, r"fc\.bias \(float32 3 in the file, float32 2 in the model\)"),
        "type": ({**state, "fc.bias": torch.ones(2, dtype=torch.int64)}, r"fc\.bias \(int64 2 in the file"),
        "all": ({"a": torch.ones(1)}, r"missing: conv\.weight, conv\.bias, norm\.weight \.\.\.; 1 unexpected: a;"),
        "a count alone": ({"n_averaged": torch.tensor(1)}, r"1 unexpected: n_averaged;"),
        "no tensor": ({**state, "epoch": 3}, r"1 unexpected: epoch;"),
        "a dict": ({"net": state, "acc": torch.tensor(0.9)}, r"did you mean '.*net\.pth:net', or key='net'\?$"),
        "a dict alone": ({"net": state, "epoch": 3}, r"say which is the state dict: '.*net\.pth:net', or key='net'$"),
        "twice": ({**state, "fc._orig_mod.bias": state["fc.bias"]}, "have a name twice"),
    }


@pytest.mark.parametrize("what", misfits())
def test_what_does_not_fit_is_named_and_nothing_changed(what: str, tmp_path: Path) -> None:
    state, message = misfits()[what]
    torch.save(state, tmp_path / "net.pth")
    model = net()
    with pytest.raises(InputError, match=message) as caught:
        load_weights(model, tmp_path / "net.pth")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, net().state_dict()[name]) for name, value in model.state_dict().items())


class Ran:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def packed() -> bytes:
    """A state dict whose bytes become more when they are read."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(100_000)}))) as plain,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    return buffer.getvalue()


def of_script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1)), buffer)
    return buffer.getvalue()


def of_a_program() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(1, 1), (torch.ones(1),)), buffer)
    return buffer.getvalue()


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "a whole model": lambda made: saved(TRAINED),
    "code": lambda made: saved({"state_dict": TRAINED.state_dict(), "args": Ran(made)}),
    "code, bare": lambda made: pickle.dumps(Ran(made), protocol=2),
    "TorchScript": lambda made: of_script(),
    "a program": lambda made: of_a_program(),
    "a tensor": lambda made: saved(torch.ones(3)),
    "no tensors": lambda made: saved({"epoch": 3}),
    "nothing": lambda made: b"",
    "text": lambda made: b"weights\n",
    "packed": lambda made: packed(),
    "sparse": lambda made: saved({"w": torch.eye(2).to_sparse()}),
    "safetensors cut off": lambda made: save(TRAINED.state_dict())[:-3],
    "7": lambda made: saved(TRAINED.state_dict())[:7],
    "300": lambda made: saved(TRAINED.state_dict())[:300],
    "2000": lambda made: saved(TRAINED.state_dict())[:2000],
}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a whole model", r"holds objects of Python beside weights.* save its weights alone: torch\.save\("),
        ("code", r"such as '(posix|nt)\.mkdir', and to unpickle them may run code"),
        ("code, bare", "to unpickle them may run code"),
        ("TorchScript", "is a TorchScript program, no weights"),
        ("a program", "is a whole program, no weights"),
        ("a tensor", "holds a Tensor, no state dict"),
        ("no tensors", "holds no state dict; its entries are 'epoch'"),
        ("nothing", "cannot read the weights"),
        ("text", "cannot read the weights"),
        ("packed", "claims more bytes than it holds"),
        ("sparse", "'w' in .* is no plain tensor"),
        ("safetensors cut off", "cannot read the weights"),
        ("7", "cannot read the weights"),
        ("300", "cannot read the weights"),
        ("2000", "cannot read the weights"),
    ],
)
def test_other_files_are_refused_in_one_line_and_run_nothing(what: str, message: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (tmp_path / "net.pth").write_bytes(HOSTILE[what](made))
    with pytest.raises(InputError, match=message) as caught:
        load_weights(net(), tmp_path / "net.pth")
    assert "\n" not in str(caught.value) and not made.exists()


def test_no_file_and_no_regular_file_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_weights(net(), tmp_path / "none.pth")
    with pytest.raises(InputError, match="cannot read"):
        load_weights(net(), tmp_path)


def test_what_is_no_path_no_module_or_too_long_is_one_line(tmp_path: Path) -> None:
    torch.save(TRAINED.state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match="no such file"):
        load_weights(net(), "a" * 5000)
    assert place_and_key("a" * 5000 + ":ema") == ("a" * 5000, "ema")
    given: Any = TRAINED.state_dict()
    with pytest.raises(InputError, match=r"a OrderedDict is no path of one.*load_state_dict"):
        load_weights(net(), given)
    wrong: Any = "net"
    with pytest.raises(InputError, match="cannot load weights into a str"):
        load_weights(wrong, tmp_path / "net.pth")


class Scaled(nn.Module):
    """Has a number that is no tensor, and a layout that changed: files of its first version have `weight` transposed."""

    _version = 2

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.weight = nn.Parameter(torch.zeros(2, 2))
        self.scale = scale

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.scale}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *more: Any) -> None:
        if metadata.get("version", 1) < 2:
            state[prefix + "weight"] = state[prefix + "weight"].t()
        super()._load_from_state_dict(state, prefix, metadata, *more)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel, lambda model: nn.Sequential(model)])
@pytest.mark.parametrize("old", [False, True])
def test_extra_state_and_versions_are_heeded(wrap: Callable[[nn.Module], nn.Module], old: bool, tmp_path: Path) -> None:
    trained = Scaled(7.0)
    trained.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    state = wrap(trained).state_dict()
    torch.save(dict(state) if old else state, tmp_path / "net.pth")
    own = Scaled()
    model = nn.Sequential(own) if next(iter(state)).startswith("0.") else own
    load_weights(model, tmp_path / "net.pth")
    assert own.scale == 7.0
    assert torch.equal(own.weight, trained.weight.t() if old else trained.weight)


def test_extra_state_that_is_missing_or_refused_is_said_and_nothing_changed(tmp_path: Path) -> None:
    state = Scaled(7.0).state_dict()
    for extra, message in ((None, "1 missing: _extra_state"), ([3], "cannot be loaded into Scaled: TypeError")):
        given = {name: value for name, value in state.items() if name != "_extra_state"}
        torch.save(given if extra is None else {**given, "_extra_state": extra}, tmp_path / "net.pth")
        own = Scaled(2.0)
        before = own.layer.weight.detach().clone()
        with pytest.raises(InputError, match=message) as caught:
            load_weights(own, tmp_path / "net.pth")
        assert own.scale == 2.0 and torch.equal(own.layer.weight, before) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_names_of_older_weight_norm_are_taken_and_hooks_run(tmp_path: Path) -> None:
    old = weight_norm(nn.Linear(2, 3))
    torch.save(old.state_dict(), tmp_path / "net.pth")
    new = load_weights(parametrizations.weight_norm(nn.Linear(2, 3)), tmp_path / "net.pth")
    x = torch.randn(2, 2)
    torch.testing.assert_close(new(x), old(x))


class Held(nn.Module):
    """A buffer behind weights."""

    def __init__(self, buffer: torch.Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.inner = nn.Module()
        self.inner.register_buffer("b", buffer)


@pytest.mark.parametrize(
    ("there", "stored", "message"),
    [
        (
            torch.zeros(2, dtype=torch.uint8),
            torch.tensor([1, 300]),
            r"1 out of range: inner\.b \(int64 2 into uint8 2\)",
        ),
        (torch.zeros(2, dtype=torch.uint8), torch.tensor([-1, 3], dtype=torch.int8), "1 out of range"),
        (torch.zeros(2, dtype=torch.int64), torch.tensor([1, 2**63], dtype=torch.uint64), "1 out of range"),
        (torch.zeros(2, dtype=torch.float16), torch.tensor([1.0, 1e6]), r"inner\.b \(float32 2 into float16 2\)"),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), torch.tensor([1.0, 1e4]), "1 out of range"),
        (torch.zeros(2, dtype=torch.complex64), torch.tensor([1, 1e300], dtype=torch.complex128), "1 out of range"),
        (torch.zeros(2), torch.tensor([1, 2]), r"of another shape or type: inner\.b \(int64 2 in the file"),
        (torch.zeros(1).expand(2), torch.ones(2), "cannot be loaded into Held.*inner.b"),
    ],
)
def test_numbers_that_would_change_are_refused_and_nothing_is_loaded(
    there: torch.Tensor, stored: torch.Tensor, message: str, tmp_path: Path
) -> None:
    torch.save(Held(stored).state_dict(), tmp_path / "net.pth")
    model = Held(there)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        load_weights(model, tmp_path / "net.pth")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_numbers_that_are_rounded_at_most_are_taken(tmp_path: Path) -> None:
    stored = torch.tensor([0.1, float("inf"), float("nan"), 60000.0])
    torch.save(Held(stored).state_dict(), tmp_path / "net.pth")
    model = load_weights(Held(torch.zeros(4)).half(), tmp_path / "net.pth")
    torch.testing.assert_close(model.get_buffer("inner.b"), stored.half(), rtol=0, atol=0, equal_nan=True)
    torch.save({**Held(torch.tensor([0, 255])).state_dict()}, tmp_path / "whole.pth")
    whole = load_weights(Held(torch.zeros(2, dtype=torch.uint8)), tmp_path / "whole.pth")
    assert whole.get_buffer("inner.b").tolist() == [0, 255]


def test_models_without_numbers_and_tied_ones_that_differ_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"'weight' of Linear is on the meta device.*to_empty"):
        load_weights(nn.Linear(2, 2, device="meta"), tmp_path / "net.pth")
    with pytest.raises(InputError, match="'weight' of LazyLinear has no shape yet"):
        load_weights(nn.LazyLinear(2), tmp_path / "net.pth")
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    before = tied[0].weight.detach().clone()
    torch.save({"0.weight": torch.eye(2), "1.weight": torch.ones(2, 2)}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"1 tied to another that differs: 1\.weight \(is 0\.weight in the model\)"):
        load_weights(tied, tmp_path / "net.pth")
    assert torch.equal(tied[0].weight, before)
    torch.save({"0.weight": torch.eye(2), "1.weight": torch.eye(2)}, tmp_path / "net.pth")
    assert torch.equal(load_weights(tied, tmp_path / "net.pth")[1].weight, torch.eye(2))


@pytest.mark.parametrize("new", [True, False])
def test_keys_that_would_take_for_ever_to_hash_are_refused(new: bool, tmp_path: Path) -> None:
    key: Any = ()
    for _ in range(64):
        key = (key, key)
    torch.save({"weight": torch.ones(1), "more": [key]}, tmp_path / "list.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(InputError, match="tuples in tuples that would take for ever to read, which torch never writes"):
        load_weights(net(), tmp_path / "list.pth")


def test_what_a_model_does_not_say_itself_is_found(tmp_path: Path) -> None:
    class Silent(nn.Linear):
        def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
            super().load_state_dict(state, strict=False)

    torch.save({"weight": torch.eye(2), "bias": torch.ones(2)}, tmp_path / "net.pth")
    assert torch.equal(load_weights(Silent(2, 2), tmp_path / "net.pth").weight, torch.eye(2))
    torch.save({"weight": torch.eye(2), "more": torch.ones(2)}, tmp_path / "net.pth")
    model = Silent(2, 2)
    before = model.weight.detach().clone()
    with pytest.raises(InputError, match="1 missing: bias; 1 unexpected: more"):
        load_weights(model, tmp_path / "net.pth")
    assert torch.equal(model.weight, before)


def test_copies_by_swapping_are_looked_at_too(tmp_path: Path) -> None:
    torch.save({"weight": torch.full((2, 2), 1e6), "bias": torch.ones(2)}, tmp_path / "net.pth")
    model = nn.Linear(2, 2).half()
    before = model.weight.detach().clone()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with pytest.raises(InputError, match=r"1 out of range: weight"):
            load_weights(model, tmp_path / "net.pth")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert torch.equal(model.weight, before)
