"""What a preset can say beside epochs and rates: each does what its name says, and outlives a kill to the last bit."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from training_kills import write_images

from reconvene.driver.cli.command_line import main
from reconvene.driver.training.averaging import Average
from reconvene.driver.training.batches import generator_for
from reconvene.driver.training.checkpoint import fingerprint
from reconvene.driver.training.distillation import MATCHINGS
from reconvene.driver.training.finite import first_not_finite
from reconvene.driver.training.hardware import Hardware
from reconvene.driver.training.levels import Ladder, Level, train_levels
from reconvene.driver.training.loop import CHECKPOINT, Trained, train
from reconvene.driver.training.optimizers import OPTIMIZERS
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import FIXED, capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import save_program
from tests.driver.training.growing import Growing
from tests.driver.training.test_loop import PRESET, SHAPE, images, killed_at, network, same, trained, weights

ALL = {
    "adamw": {"optimizer": "adamw", "rate": 0.01, "beta2": 0.99},
    "cosine": {"schedule": "cosine", "warmup": 1},
    "one-cycle": {"schedule": "one-cycle"},
    "clipping": {"clip": 0.1},
    "smoothing": {"label_smoothing": 0.2},
    "average": {"ema": 0.8},
}
TOGETHER: dict[str, Any] = {name: value for settings in ALL.values() for name, value in settings.items()}


@cache
def teacher(width: int = 8, classes: int = 2, fixed: bool = False) -> CapturedModule:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, classes),
    )  # fmt: skip
    return capture(model, (torch.randn(SHAPE),), FIXED if fixed else ({0: torch.export.Dim.DYNAMIC},))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training without any of it."""
    return trained(tmp_path_factory.mktemp("plain"), PRESET.changed({"epochs": 6}))


@pytest.mark.parametrize("name", ALL)
def test_each_option_changes_a_training_that_still_learns(name: str, plain: Trained, tmp_path: Path) -> None:
    done = trained(tmp_path / "with", PRESET.changed(ALL[name] | {"epochs": 6}))
    assert done.rows[-1]["test_accuracy"] > 0.9
    assert not same(done, plain)


@pytest.mark.parametrize("moment", [2, 11])
def test_a_killed_training_with_all_of_it_goes_on_to_the_same_bits(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = PRESET.changed({**TOGETHER, "matched": "0", "augment": "crop-flip"})
    options: dict[str, Any] = {"teacher": teacher(), "method": Growing(), "checkpoint_every": 2}
    whole = trained(tmp_path / "whole", preset, **options)
    with killed_at(moment, monkeypatch, torch.optim.AdamW):
        trained(tmp_path / "killed", preset, **options)
    again = trained(tmp_path / "killed", preset, **options)
    assert same(whole, again)
    strip = [[{**row, "seconds": 0} for row in done.rows] for done in (whole, again)]
    assert strip[0] == strip[1]


@pytest.mark.parametrize("change", ["gone", "smaller"])
@pytest.mark.parametrize("place", ["mean/0.weight", "average/module.1.running_mean"])
def test_a_checkpoint_that_lacks_some_of_it_is_damaged(place: str, change: str, tmp_path: Path) -> None:
    preset = PRESET.changed({**TOGETHER, "epochs": 1})
    trained(tmp_path, preset)
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    value = tensors.pop(place)
    if change == "smaller":
        tensors[place] = value.reshape(-1)[:0]
    save_file(tensors, tmp_path / CHECKPOINT, metadata)
    with pytest.raises(InputError, match="damaged"):
        trained(tmp_path, preset)


def test_one_step_of_all_of_it_by_hand(tmp_path: Path) -> None:
    """Against the same step written with PyTorch's own parts."""
    preset = PRESET.changed({"epochs": 1, "clip": 0.1, "label_smoothing": 0.1})
    data, model, guide = images(8), network(), teacher().eval()
    done = train(model, data, data, preset, tmp_path, teacher=guide)
    order = torch.randperm(8, generator=generator_for(0, 0, 0))
    first = torch.from_numpy(np.random.default_rng(0).permutation(8))
    batch, labels = data.batch()[first][order], torch.from_numpy(data.labels)[first][order]
    hand = network().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    torch.manual_seed(generator_for(0, 1, 0, 0).initial_seed())
    batch = batch.contiguous(memory_format=torch.channels_last)  # Dropout draws in the order of memory.
    answers = hand(batch)
    soft = nn.KLDivLoss(reduction="batchmean")((answers / 4).log_softmax(1), (guide(batch).detach() / 4).softmax(1))
    (0.9 * 16 * soft + 0.1 * F.cross_entropy(answers, labels, label_smoothing=0.1)).backward()
    norm = nn.utils.clip_grad_norm_(hand.parameters(), 0.1)
    assert norm > 0.1
    torch.optim.SGD(hand.parameters(), 0.05, weight_decay=1e-4).step()
    for name, value in hand.state_dict().items():
        torch.testing.assert_close(done.module.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_an_optimizer_is_told_what_the_preset_says() -> None:
    preset = PRESET.changed({"optimizer": "adamw", "momentum": 0.8, "beta2": 0.9, "weight_decay": 0.1})
    optimizer = OPTIMIZERS["adamw"](network().parameters(), preset.optimization)
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.05, (0.8, 0.9), 0.1)


def test_an_average_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    model = network()
    average, hand = Average.of(model, 0.75), {}
    for step in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(model)
        now = {name: value.detach().clone() for name, value in model.named_parameters()}
        hand = {name: 0.75 * hand[name] + 0.25 * value for name, value in now.items()} if step else now
    for name, value in average.module.named_parameters():
        torch.testing.assert_close(value.detach(), hand[name])


def test_what_a_method_zeroed_late_is_zero_in_the_average(tmp_path: Path) -> None:
    done = trained(tmp_path, PRESET.changed({"ema": 0.9}), method=Growing(sparsity=0.75))
    for name, value in done.module.named_parameters():
        if value.dim() > 1:
            assert int((value == 0).sum()) == round(0.75 * value.numel()), name
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        last = file.get_tensor("model/0.weight")
    assert not torch.equal(last, done.module.get_parameter("0.weight"))


def test_a_teacher_is_learnt_from(tmp_path: Path) -> None:
    """Its answers say the opposite of the labels."""
    known = train(teacher(), images(), images(32, 1), PRESET.changed({"epochs": 8}), tmp_path / "teacher")
    assert known.rows[-1]["test_accuracy"] > 0.9
    with torch.no_grad():
        known.module.get_parameter("5.weight").neg_()
        known.module.get_parameter("5.bias").neg_()
    guide, before = known.module, weights(known)
    assert isinstance(guide, CapturedModule)
    preset = PRESET.changed({"epochs": 6, "teacher_share": 1.0, "temperature": 1.0})
    done = trained(tmp_path / "student", preset, teacher=guide)
    assert done.rows[-1]["test_accuracy"] < 0.1
    assert all(torch.equal(before[name], value) for name, value in guide.state_dict().items())
    log = json.loads((tmp_path / "student" / "log.json").read_text())
    assert log["settings"]["teacher"] == fingerprint({}, guide, {}) and log["settings"]["teacher_share"] == 1.0


@pytest.mark.parametrize(("way", "width"), [("features", 8), ("similarities", 8), ("similarities", 5)])
def test_matched_layers_become_like_the_teacher_s(way: str, width: int, tmp_path: Path) -> None:
    guide, x = teacher(width), images(32, 1).batch()

    def distance(module: nn.Module) -> float:
        seen: list[torch.Tensor] = []
        handles = [
            part.get_submodule("0").register_forward_hook(lambda *a: seen.append(a[2])) for part in (module, guide)
        ]
        with torch.no_grad():
            module.eval()(x), guide(x)
        for handle in handles:
            handle.remove()
        return float(MATCHINGS[way](*seen))

    settings = {"epochs": 6, "matched": "0", "matching": way, "milestones": ""}
    ends = [
        distance(
            trained(
                tmp_path / str(weight), PRESET.changed({**settings, "matching_weight": weight}), teacher=guide
            ).module
        )
        for weight in (0.0, 1.0 if way == "features" else 20.0)
    ]
    assert ends[1] < 0.5 * ends[0]


def test_similarities_do_not_depend_on_the_width() -> None:
    torch.manual_seed(0)
    one = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q[:, :3]
    other = torch.einsum("oc,nchw->nohw", rotation, one)
    assert float(MATCHINGS["similarities"](one, other)) < 1e-25 < float(MATCHINGS["similarities"](one, other.relu()))


@pytest.mark.parametrize(
    ("guide", "settings", "message"),
    [
        (lambda: teacher(classes=3), {}, "the teacher gives 3 classes and the model 2 classes"),
        (lambda: teacher(fixed=True), {}, "the teacher cannot be asked: .*size 8 along axis 0"),
        (teacher, {"matched": "conv*"}, "is called 'conv\\*'; there are 0, 1, 3, 4"),
        (lambda: teacher(5), {"matched": "0"}, "'0' gives 8x8x8 and 5x8x8 .*similarities"),
        (teacher, {"matched": "9"}, "no layer that model and teacher both have"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(
    guide: Any, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        trained(tmp_path, PRESET.changed(settings), teacher=guide())
    assert "\n" not in str(caught.value) and not (tmp_path / CHECKPOINT).exists()


def test_another_teacher_is_another_training(tmp_path: Path) -> None:
    trained(tmp_path, teacher=teacher())
    for options in ({}, {"teacher": teacher(4)}, {"teacher": teacher(), "preset": PRESET.changed({"temperature": 2})}):
        with pytest.raises(InputError, match="another training"):
            trained(tmp_path, **options)


def test_the_command_line_takes_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(Path("data"), count=8)
    for name in ("model", "teacher"):
        save_program(teacher(4, 10), (torch.zeros(2, 3, 32, 32),), f"{name}.pt2")
    line = ["train", "model.pt2", "--data", "data", "--preset", "smoke", "--set", "train_images=0"]
    line += ["--set", "test_images=8", "--set", "epochs=1", "--set", "temperature=2", "--set", "matched=0"]
    assert main([*line, "--teacher", "teacher.pt2", "-o", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["teacher"] == "teacher.pt2" and told["settings"]["temperature"] == 2.0
    assert main([*line, "-o", "other"]) == 2
    assert "no meaning without --teacher" in capsys.readouterr().err


class Dividing(nn.Module):
    """Divides by the range of an image's values, behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spread = x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True)
        return self.second(self.first(x) / spread)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_that_is_no_number_names_epoch_step_and_layer(precision: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        trained(tmp_path, PRESET.changed({"rate": 1e30}), machine=Hardware(precision=precision), checkpoint_every=1)
    text = str(caught.value)
    assert "\n" not in text and "choose a smaller rate" in text and "in epoch 1, step " in text
    assert "checkpoint before it is kept" in text


def test_the_first_value_that_is_no_number_is_found() -> None:
    torch.manual_seed(0)
    model, images = capture(Dividing(), (torch.randn(2, 3, 4, 4),)), torch.randn(2, 3, 4, 4)
    assert first_not_finite(model, (images,)) is None
    assert "in the output of div" in str(first_not_finite(model, (torch.ones(2, 3, 4, 4),)))
    assert first_not_finite(model, (images * float("nan"),)) == "in the inputs"
    with torch.no_grad():
        model.get_parameter("first.weight").mul_(100)
        model.get_parameter("second.weight").fill_(3e38)
        assert "in the output of layer 'second', conv2d" in str(first_not_finite(model, (images,)))
        model.get_parameter("second.weight").mul_(1e38)
    assert first_not_finite(model, (images,)) == "in 'second.weight'"


def test_levels_have_a_teacher_too(tmp_path: Path) -> None:
    ladder, inputs = Ladder(levels=1, share=0.5), (torch.zeros(SHAPE),)
    preset = PRESET.changed({"epochs": 1, "ema": 0.5})

    def levels(**options: Any) -> list[Level]:
        return list(train_levels(network(), inputs, images(), images(32, 1), preset, ladder, tmp_path, **options))

    first = levels(teacher=teacher())
    log = json.loads((tmp_path / "level-01" / "log.json").read_text())
    assert log["settings"]["teacher"] == fingerprint({}, teacher(), {})
    assert levels(teacher=teacher()) == first
    for options in ({}, {"teacher": teacher(4)}):
        with pytest.raises(InputError, match="levels of another model"):
            levels(**options)
