"""Hooks of methods: what they see and when, and that their state outlives a kill to the last bit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from training_kills import killed_training, same_state

from reconvene.driver.training.levels import Ladder, train_levels
from reconvene.driver.training.loop import CHECKPOINT, Trained, train
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import load_program
from reconvene.passes.pruning import methods
from reconvene.passes.pruning.methods.base import Hooks, Moment, State, TrainingMethod, Weights
from reconvene.passes.pruning.methods.masked import Masked
from tests.driver.training.growing import Growing
from tests.driver.training.test_loop import PRESET, SHAPE, images, killed_at, network, same

ROOT = Path(__file__).parents[3]


def trained(folder: Path, method: TrainingMethod | None, **options: Any) -> Trained:
    return train(network(), images(), images(32, 1), PRESET, folder, method=method, **options)


def zeros(module: nn.Module) -> dict[str, int]:
    return {name: int((value == 0).sum()) for name, value in module.named_parameters() if value.dim() > 1}


def test_a_method_s_share_of_the_weights_is_zero_at_the_end(tmp_path: Path) -> None:
    done = trained(tmp_path, Growing(sparsity=0.75))
    sizes = {name: value.numel() for name, value in done.module.named_parameters() if value.dim() > 1}
    assert zeros(done.module) == {name: round(0.75 * size) for name, size in sizes.items()}
    log = json.loads((tmp_path / "log.json").read_text())
    assert log["settings"]["method"] == {
        "name": "growing",
        "sparsity": 0.75,
        "ignore": [],
        "decay": 0.01,
        "memory": 0.9,
    }


def test_a_pattern_hides_weights_from_a_method(tmp_path: Path) -> None:
    done = trained(tmp_path, Growing(ignore=("3.*", "9.weight")))
    assert [name for name, count in zeros(done.module).items() if count] == ["0.weight"]
    with pytest.raises(InputError, match="no convolution or linear layer"):
        trained(tmp_path / "all", Growing(ignore=("*",)))


@pytest.mark.parametrize("moment", [1, 2, 7, 12, 17])
def test_a_killed_training_goes_on_with_the_method_s_state(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", Growing())
    with killed_at(moment, monkeypatch):
        trained(tmp_path / "killed", Growing(), checkpoint_every=2)
    assert same(whole, trained(tmp_path / "killed", Growing(), checkpoint_every=2))


def test_the_state_matters(tmp_path: Path) -> None:
    """Or else the test above would show nothing."""

    @dataclass(frozen=True)
    class Forgetful(Growing):
        def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
            return super().after_step(weights, self.begin(weights), moment)

    assert not same(trained(tmp_path / "one", Growing()), trained(tmp_path / "other", Forgetful()))


def test_a_training_that_is_really_killed_ends_in_the_same_bits(tmp_path: Path) -> None:
    script = Path(__file__).with_name("growing.py")
    line = [sys.executable, str(script)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        subprocess.run([*line, str(tmp_path / "whole")], check=True, capture_output=True)
        outcome = killed_training([*line, str(tmp_path / "killed")], tmp_path / "killed", 2, seed=1, most=3)
    assert outcome.kills == 2
    assert same_state(tmp_path / "whole", tmp_path / "killed")


@dataclass(frozen=True)
class Noted(TrainingMethod):
    """Writes down what is called; it may, because it is no method that could be killed."""

    name = "noted"

    def __post_init__(self) -> None:
        CALLS.clear()

    def begin(self, weights: Weights) -> State:
        CALLS.append(("begin", torch.is_grad_enabled(), float(torch.rand(()))))
        return {}

    def penalty(self, weights: Weights, state: State) -> Tensor:
        CALLS.append(("penalty", torch.is_grad_enabled(), all(w.grad is None for w in weights.values())))
        return 1e-3 * sum(weight.square().sum() for weight in weights.values())  # type: ignore[return-value]

    def gradients(self, weights: Weights, state: State) -> None:
        CALLS.append(("gradients", torch.is_grad_enabled(), all(w.grad is not None for w in weights.values())))
        for weight in weights.values():
            weight.grad.zero_()  # type: ignore[union-attr]

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        CALLS.append(("after_step", torch.is_grad_enabled(), moment.progress))
        return state

    def figures(self, weights: Weights, state: State) -> dict[str, float]:
        return {"calls": float(len(CALLS)), "grad": float(torch.is_grad_enabled())}


CALLS: list[tuple[str, bool, Any]] = []


def test_hooks_are_called_in_turn(tmp_path: Path) -> None:
    method = Noted()
    preset = PRESET.changed({"weight_decay": 0.0, "epochs": 1})
    done = train(network(), images(), images(32, 1), preset, tmp_path, method=method)
    steps = [("penalty", True, True), ("gradients", False, True), ("after_step", False, None)]
    shown = [(name, grad, None if name == "after_step" else fact) for name, grad, fact in CALLS[1:]]
    assert shown == steps * 6
    assert [fact for name, _, fact in CALLS if name == "after_step"] == [n / 6 for n in range(1, 7)]
    assert (done.rows[0]["calls"], done.rows[0]["grad"]) == (19.0, 0.0)
    assert (tmp_path / "log.csv").read_text().splitlines()[0].endswith("test_accuracy,calls,grad,seconds")
    assert '"calls"' in (tmp_path / "curves.html").read_text()
    first = network()
    assert all(
        torch.equal(done.module.get_parameter(name), first.get_parameter(name)) for name in method.weights(first)
    )
    assert not torch.equal(done.module.get_parameter("1.weight"), first.get_parameter("1.weight"))
    begin = CALLS[0]
    method = Noted()
    train(network(), images(), images(32, 1), preset, tmp_path / "again", method=method)
    assert CALLS[0] == begin and not begin[1]


@dataclass(frozen=True)
class Bound(TrainingMethod):
    """Hands the shapes of a module to its hooks."""

    name = "bound"

    def bound(self, module: CapturedModule) -> Hooks:
        return Masked.of(module, {"3.weight": torch.arange(8) < round((1 - self.sparsity) * 8)})


def test_a_method_can_have_hooks_for_the_module(tmp_path: Path) -> None:
    done = trained(tmp_path, Bound(sparsity=0.5))
    assert zeros(done.module) == {"0.weight": 0, "3.weight": 4 * 8 * 9, "9.weight": 0}


def test_moments() -> None:
    moments = [Moment(step, 3, 2) for step in range(1, 7)]
    assert [moment.progress for moment in moments] == [step / 6 for step in range(1, 7)]
    assert [moment.epoch for moment in moments] == [0, 0, 1, 1, 1, 2]
    assert [moment.ends_epoch for moment in moments] == [False, False, True] * 2


def test_options_may_be_written_as_text() -> None:
    assert Growing().with_options({"sparsity": "0.5", "decay": 1, "ignore": "fc.*,conv1"}) == Growing(
        0.5, ("fc.*", "conv1"), 1.0
    )
    with pytest.raises(InputError, match="'much' is no value of decay; write a number"):
        Growing().with_options({"decay": "much"})


def test_a_penalty_is_part_of_what_is_learnt(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Shrinking(TrainingMethod):
        name = "shrinking"
        strength: float = 1.0

        def penalty(self, weights: Weights, state: State) -> Tensor:
            return self.strength * torch.stack([weight.square().sum() for weight in weights.values()]).sum()

    plain, small = trained(tmp_path / "plain", None), trained(tmp_path / "small", Shrinking())
    assert small.module.get_parameter("3.weight").norm() < 0.5 * plain.module.get_parameter("3.weight").norm()
    with pytest.raises(InputError, match=r"the penalty is (nan|inf) in epoch 1, step 1"):
        trained(tmp_path / "wild", Shrinking(strength=float("inf")))


def test_what_hooks_must_not_do_is_said(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Aliased(TrainingMethod):
        name = "aliased"

        def begin(self, weights: Weights) -> State:
            return {name: weight.detach() for name, weight in weights.items()}

    with pytest.raises(ValueError, match=r"'0\.weight' is a weight itself.*clone"):
        trained(tmp_path / "alias", Aliased())
    with pytest.raises(InputError, match="masks and the method growing"):
        trained(tmp_path / "both", Growing(), masks={"0.weight": torch.ones(8)})
    trained(tmp_path / "kept", Growing())
    with pytest.raises(InputError, match="another training"):
        trained(tmp_path / "kept", Growing(sparsity=0.5))


@pytest.mark.parametrize("change", ["gone", "renamed", "smaller"])
def test_a_checkpoint_with_another_state_is_damaged(change: str, tmp_path: Path) -> None:
    trained(tmp_path, Growing())
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    value = tensors.pop("method/3.weight")
    if change != "gone":
        tensors["method/x.weight" if change == "renamed" else "method/3.weight"] = (
            value if change == "renamed" else value[:1]
        )
    save_file(tensors, tmp_path / CHECKPOINT, metadata)
    with pytest.raises(InputError, match="damaged"):
        trained(tmp_path, Growing())


def test_levels_of_a_method_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", {**methods.METHODS, "growing": Growing()})
    inputs, ladder = (torch.zeros(SHAPE),), Ladder(levels=2, share=0.5, method="growing", ignore=("9.weight",))
    levels = list(train_levels(network(), inputs, images(), images(32, 1), PRESET, ladder, tmp_path))
    assert [level.weights for level in levels] == [3 * 8 * 9 + 8 * 8 * 9] * 3
    assert [level.zeros / level.weights for level in levels] == [0, 0.5, 0.75]
    module = load_program(levels[2].model)[0]
    assert zeros(module)["9.weight"] == 0 and zeros(module)["0.weight"] == 0.75 * 3 * 8 * 9
