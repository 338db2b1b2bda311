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
from torch.nn.utils import prune

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
