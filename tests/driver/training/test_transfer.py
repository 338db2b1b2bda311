"""A removal in the middle of a training: what optimizers and averages keep is sliced, and the next step is the same."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import reconvene
from reconvene.frontend.base.errors import InputError

DEAD = {"0": (1, 4, 5), "3": (0, 2)}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, 0.01),
}


def network() -> nn.Sequential:
    """Float64, with channels whose filter and affine parameters are zero."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    ).double()  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in masks():
                parameter[~masks()[name]] = 0
    return model


def masks() -> dict[str, Tensor]:
    found = {}
    for layer, channels in DEAD.items():
        mask = torch.ones(8 if layer == "0" else 6, dtype=torch.bool)
        mask[list(channels)] = False
        norm = str(int(layer) + 1)
        found |= dict.fromkeys((f"{layer}.weight", f"{norm}.weight", f"{norm}.bias"), mask)
    return found


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield (
            torch.randn(5, 3, 9, 9, dtype=torch.float64, generator=generator),
            torch.randint(4, (5,), generator=generator),
        )


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model.train()(batch[0]), batch[1]).backward()
    optimizer.step()


def kept(name: str, tensor: Tensor, plan: reconvene.Plan) -> Tensor:
    for axis, index in plan.kept.get(name, {}).items():
        tensor = tensor.index_select(axis, index)
    return tensor


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_is_sliced_and_the_next_steps_are_those_of_the_masked_network(name: str) -> None:
    model, data = network(), batches()
    first, second = [p for p in model.parameters() if p.dim() > 1], [p for p in model.parameters() if p.dim() == 1]
    optimizer = OPTIMIZERS[name]([{"params": first}, {"params": second, "lr": 0.02}])
    reconvene.Masks.of(model, masks()).apply(optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    for _ in range(3):
        step(model, optimizer, next(data))
        scheduler.step()
    # The masked network and its optimizer go on beside the smaller one.
    masked, others = copy.deepcopy((model, optimizer))
    reconvene.Masks.of(masked, masks()).apply(others)
    result = reconvene.compact(model, (next(data)[0],))
    assert result.module.get_parameter("0.weight").shape[0] == 5
    assert result.transfer(optimizer) is optimizer
    old, new = dict(masked.named_parameters()), dict(result.module.named_parameters())
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 5]
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in others.param_groups]
    for parameter, value in new.items():
        before, after = others.state[old[parameter]], optimizer.state[value]
        assert before.keys() == after.keys() and before
        for key, state in before.items():
            wanted = kept(parameter, state, result.plan) if isinstance(state, Tensor) and state.dim() else state
            torch.testing.assert_close(after[key], wanted, rtol=0, atol=0)
    for _ in range(3):
        batch = next(data)
        step(masked, others, batch)
        step(result.module, optimizer, batch)
        scheduler.step()
        for parameter, value in new.items():
            torch.testing.assert_close(value, kept(parameter, old[parameter], result.plan), rtol=1e-7, atol=1e-9)
        others.param_groups[0]["lr"], others.param_groups[1]["lr"] = (g["lr"] for g in optimizer.param_groups)


def test_the_state_matters() -> None:
    """Or else the test above would show nothing."""
    model, data = network(), batches()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    reconvene.Masks.of(model, masks()).apply(optimizer)
    for _ in range(3):
        step(model, optimizer, next(data))
    result = reconvene.compact(model, (next(data)[0],))
    anew, batch = OPTIMIZERS["adamw"](result.module.parameters()), next(data)
    step(model, optimizer, batch)
    step(result.module, anew, batch)
    wanted = kept("0.weight", model.get_parameter("0.weight"), result.plan)
    assert (result.module.get_parameter("0.weight") - wanted).abs().max() > 1e-4


@pytest.mark.parametrize("given", ["names", "model", "file"])
def test_names_come_from_the_optimizer_or_from_a_model(given: str, tmp_path: Any) -> None:
    model, data = network(), batches()
    inputs = (next(data)[0],)
    trained = copy.deepcopy(model)
    optimizer = OPTIMIZERS["sgd"](trained.parameters() if given == "model" else trained.named_parameters())
    step(trained, optimizer, next(data))
    momentum = optimizer.state[trained.get_parameter("0.weight")]["momentum_buffer"].clone()
    result = reconvene.compact(model, inputs)
    if given == "model":
        with pytest.raises(InputError, match=r"a parameter of 8x3x3x3 .* model=") as caught:
            result.transfer(optimizer)
        assert "\n" not in str(caught.value)
    result = pickle.loads(pickle.dumps(result)) if given == "file" else result
    result.transfer(optimizer, trained if given == "model" else None)
    found = optimizer.state[result.module.get_parameter("0.weight")]["momentum_buffer"]
    assert torch.equal(found, kept("0.weight", momentum, result.plan))
    assert ("param_names" in optimizer.param_groups[0]) == (given != "model")
    if given != "model":
        assert optimizer.param_groups[0]["param_names"] == [name for name, _ in result.module.named_parameters()]


def test_weights_under_torch_s_own_masks_and_what_a_removal_adds() -> None:
    """The filter is zero and its normalisation is not: a constant goes into a bias that the next layer had not."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=False), nn.Flatten()
    )
    prune.random_structured(model[0], "weight", 0.5, dim=0)
    with torch.no_grad():
        model[1].bias.fill_(0.5)
    data = torch.randn(4, 3, 2, 2)
    optimizer = torch.optim.SGD([p for n, p in model.named_parameters() if n != "1.bias"], 0.1, momentum=0.9)
    model(data).square().sum().backward()
    optimizer.step()
    momentum = optimizer.state[model[0].weight_orig]["momentum_buffer"]
    result = reconvene.compact(model, (data,))
    assert "3.bias" in dict(result.module.named_parameters())
    result.transfer(optimizer)
    names = {id(parameter): name for name, parameter in result.module.named_parameters()}
    assert {names[id(p)] for p in optimizer.param_groups[0]["params"]} == set(names.values()) - {"1.bias"}
    found = optimizer.state[result.module.get_parameter("0.weight")]["momentum_buffer"]
    assert found.shape[0] == 3 and torch.equal(found, kept("0.weight", momentum, result.plan))
    assert result.module.get_parameter("3.bias") not in optimizer.state


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.embed(x)))


def test_a_parameter_of_two_names_is_found_under_both() -> None:
    torch.manual_seed(0)
    model, x = Tied(), torch.randint(10, (3, 5))
    optimizer = OPTIMIZERS["adam"](model.parameters())
    model(x).square().sum().backward()
    optimizer.step()
    kind = copy.deepcopy(optimizer.state[model.embed.weight])
    mask = torch.arange(8) % 2 == 0
    result = reconvene.compact(model, (x,), {"inner.0.weight": mask, "inner.0.bias": mask})
    result.transfer(optimizer)
    shared = next(p for p in result.module.parameters() if tuple(p.shape) == (10, 6))
    assert torch.equal(optimizer.state[shared]["exp_avg"], kind["exp_avg"])
    assert len(optimizer.param_groups[0]["params"]) == len(list(result.module.parameters())) == 5


def test_layers_with_new_weights_begin_anew() -> None:
    model, data = network(), batches()
    inputs = (next(data)[0],)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step(model, optimizer, next(data))
    result = reconvene.prune(model, inputs, method="reconvene", sparsity=0.6, score="magnitude", profile=False)
    assert result.reinitialized
    result.transfer(optimizer)
    names = {id(parameter): name for name, parameter in result.module.named_parameters()}
    stateful = {names[id(p)].rpartition(".")[0] for p in optimizer.state}
    assert stateful.isdisjoint(result.reinitialized)
    with pytest.raises(InputError, match="has new initial weights"):
        result.transfer(AveragedModel(model))


def test_what_does_not_fit_is_one_line_and_changes_nothing() -> None:
    model, data = network(), batches()
    result = reconvene.compact(model, (next(data)[0],))
    rows = torch.optim.Adafactor(model.parameters())
    step(model, rows, next(data))
    with pytest.raises(InputError, match=r"'row_var', which the optimizer keeps of '0\.weight'") as caught:
        result.transfer(rows)
    assert "\n" not in str(caught.value)
    assert rows.param_groups[0]["params"][0] is model[0].weight and model[0].weight in rows.state
    other = nn.Sequential(nn.Conv2d(3, 9, 3))
    with pytest.raises(InputError, match="the optimizer is of another model"):
        result.transfer(OPTIMIZERS["sgd"](other.named_parameters()))


def average_of(model: nn.Module, data: Iterator[tuple[Tensor, Tensor]], keep: bool = True) -> AveragedModel:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    if keep:
        reconvene.Masks.of(model, masks()).apply(optimizer)
    for _ in range(3):
        step(model, optimizer, next(data))
        average.update_parameters(model)
    return average


def test_an_average_goes_on_as_that_of_the_masked_network() -> None:
    model, data = network(), batches()
    average = average_of(model, data)
    masked, beside = copy.deepcopy((model, average))
    result = reconvene.compact(model, (next(data)[0],))
    assert result.transfer(average) is average and int(average.n_averaged) == 3
    for name, value in average.module.named_parameters():
        assert torch.equal(value, kept(name, beside.module.get_parameter(name), result.plan))
    one, other = OPTIMIZERS["sgd"](masked.parameters()), OPTIMIZERS["sgd"](result.module.parameters())
    reconvene.Masks.of(masked, masks()).apply(one)
    for _ in range(2):
        batch = next(data)
        step(masked, one, batch)
        step(result.module, other, batch)
        beside.update_parameters(masked)
        average.update_parameters(result.module)
    x = next(data)[0]
    torch.testing.assert_close(average.eval()(x), beside.eval()(x), rtol=1e-7, atol=1e-9)


def test_an_average_with_other_zeros_is_refused() -> None:
    model, data = network(), batches()
    with torch.no_grad():
        for norm in (model[1], model[4]):
            norm.weight.fill_(1)
            norm.bias.fill_(0.1)
    average = average_of(model, data, keep=False)
    before = average.module
    reconvene.Masks.of(model, masks()).set()
    result = reconvene.compact(model, (next(data)[0],))
    with pytest.raises(InputError, match=r"the average cannot follow: .*zeros elsewhere") as caught:
        result.transfer(average)
    assert "\n" not in str(caught.value) and average.module is before
