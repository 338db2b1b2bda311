"""One line keeps masks in loops of others: PyTorch, Lightning, the Trainer of Hugging Face."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import reconvene
from reconvene.frontend.base.errors import InputError


def network() -> nn.Sequential:
    """With a half of its weights zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[::2] = 0 if parameter.dim() > 1 else parameter[::2]
    return model


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(place)
        return {"x": torch.randn(6, generator=generator), "labels": torch.tensor(place % 3)}


def check(model: nn.Module, before: dict[str, Tensor]) -> None:
    """The rows that were zero are, the others are not; biases of such rows were trained."""
    for name, parameter in model.named_parameters():
        value, first = parameter.detach().cpu(), before[name]
        assert not torch.equal(value, first)
        if value.dim() > 1:
            assert not value[::2].any() and bool((value[1::2] != first[1::2]).any())


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.LBFGS])
def test_in_a_loop_of_pytorch(kind: Any) -> None:
    model = network()
    before, optimizer = state(model), kind(model.parameters(), lr=0.1)
    handle = reconvene.Masks.of(model).apply(optimizer)

    batches = list(DataLoader(Rows(), 8))

    def step(batch: dict[str, Tensor]) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch["x"]), batch["labels"])
            loss.backward()
            return loss

        optimizer.step(closure)

    for batch in batches:
        step(batch)
    check(model, before)
    handle.remove()
    step(batches[0])
    assert model[0].weight[::2].any()


def test_given_masks_may_be_of_channels() -> None:
    model = network()
    masks = reconvene.Masks.of(model, {"0.weight": torch.arange(8) < 3, "0.bias": torch.arange(8) < 3})
    assert model[0].weight[3].any()
    masks.apply(torch.optim.SGD(model.parameters(), 0.1))
    assert not model[0].weight[3:].any() and not model[0].bias[3:].any() and model[2].weight.any()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"1.weight": torch.ones(3)}, "no parameter '1.weight'"),
        ({"0.weight": torch.ones(3)}, "mask of '0.weight' is 3, but the parameter is 8x6"),
        ({"0.weight": torch.full((8, 6), 0.5)}, "entries other than 0 and 1"),
        ({}, "nothing to keep"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_line(masks: dict[str, Tensor], message: str) -> None:
    model = network()
    before = state(model)
    with pytest.raises(InputError, match=message) as caught:
        reconvene.Masks.of(model, masks)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_an_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="trains none of the masked parameters"):
        reconvene.Masks.of(network()).apply(torch.optim.SGD(network().parameters(), 0.1))


def test_in_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning", reason="pip install pytorch-lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def training_step(self, batch: dict[str, Tensor], place: int) -> Tensor:
            return F.cross_entropy(self.model(batch["x"]), batch["labels"])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 0.05)

    module = Module()
    before, masks = state(module.model), reconvene.Masks.of(module.model)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, callbacks=[masks.lightning_callback()], **quiet
    )
    trainer.fit(module, DataLoader(Rows(), 8))
    check(module.model, before)


class Answering(nn.Module):
    """A network as the Trainer of Hugging Face wants it: it gives its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layers(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def test_in_the_trainer_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It looks for a package of the name that one of our benchmarks has.
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place).name != "benchmarks"])
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    transformers = pytest.importorskip("transformers", reason="pip install transformers accelerate")
    pytest.importorskip("accelerate", reason="pip install transformers accelerate")
    model = Answering()
    before, masks = state(model.layers), reconvene.Masks.of(model)
    options = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=8, learning_rate=0.05, report_to="none",
        use_cpu=True, save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model, options, train_dataset=Rows(), callbacks=[masks.trainer_callback()])
    trainer.train()
    check(model.layers, before)


def test_without_these_packages_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    masks = reconvene.Masks.of(network())
    with pytest.raises(InputError, match="pip install lightning"):
        masks.lightning_callback()
    with pytest.raises(InputError, match="pip install transformers"):
        masks.trainer_callback()
