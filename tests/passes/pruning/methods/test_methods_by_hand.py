"""What methods that train do in a step, against their formulas; and ADMM where the solution is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.constraints import Constraint, InsideLayers
from reconvene.passes.pruning.methods.admm import Admm, AdmmHooks
from reconvene.passes.pruning.methods.base import Moment
from reconvene.passes.pruning.methods.constrained import ConstrainedMethod, by_name, relative_distance
from reconvene.passes.pruning.methods.gradual import Gradual
from reconvene.passes.pruning.methods.reweighted import Reweighted, ReweightedHooks
from reconvene.passes.pruning.methods.sr_ste import SrSte
from tests.passes.pruning.methods.hand_driven import Box, Weights, driven
from tests.passes.pruning.test_constraints import network


def weights_of(constraint: Constraint) -> Weights:
    module = network()
    return {name: module.get_parameter(name) for name in constraint.read}


def hooks_of(method: ConstrainedMethod) -> Any:
    return method.bound(network())


@pytest.mark.parametrize("structure", ["2:4", "1:4:4", "row-block:4", "pattern", "unified:4x4"])
def test_sr_ste_s_gradient(structure: str) -> None:
    hooks = hooks_of(SrSte(0.75, structure=structure, strength=0.25))
    weights = weights_of(hooks.constraint)
    dense = {name: weight.detach().clone() for name, weight in weights.items()}
    aims = {name: torch.randn_like(weight) for name, weight in weights.items()}
    with torch.no_grad():
        state = hooks.begin(weights)
    projected = hooks.constraint.projected(dense)
    masks = hooks.constraint.masks(dense)
    assert all(torch.equal(weight, projected[name]) for name, weight in weights.items())
    sum(((weight - aims[name]) ** 4).sum() for name, weight in weights.items()).backward()  # type: ignore[union-attr]
    with torch.no_grad():
        hooks.gradients(weights, state)
    for name, weight in weights.items():
        assert torch.equal(weight, dense[name])  # What the optimizer steps from.
        expected = 4 * (projected[name] - aims[name]) ** 3 + 0.25 * (~masks[name]) * dense[name]
        torch.testing.assert_close(weight.grad, expected)
    with torch.no_grad():
        state = hooks.after_step(weights, state, Moment(1, 1, 2))
    assert state["changed"] == 0 and hooks.figures(weights, state)["mask_changes"] == 0


def test_sr_ste_weights_come_back_and_are_counted() -> None:
    """Of four weights the loss wants the two that are smallest at first."""
    hooks = hooks_of(SrSte(structure={"middle": "2:4"}, strength=0.0))
    weights = {"middle.weight": nn.Parameter(torch.tensor([[4.0, 3.0, 2.0, 1.0]]).expand(12, 2, 4).reshape(12, 8, 1, 1)
                                             .expand(12, 8, 3, 3).double().clone())}  # fmt: skip
    aim = torch.tensor([0.0, 0.0, 5.0, 5.0]).double().repeat(2).reshape(1, 8, 1, 1)
    state = driven(hooks, weights, lambda w: (w["middle.weight"] - aim).square().sum() / 2, 10, 4, 0.1)
    kept = (weights["middle.weight"] != 0).reshape(12, 2, 4, 9)
    assert not kept[:, :, :2].any() and kept[:, :, 2:].all()
    assert hooks.figures(weights, state) == {"sparsity": 0.5, "mask_changes": 0.0}


@pytest.mark.parametrize("rho", [(2.0,), (0.1, 1.0, 4.0)])
def test_admm_reaches_the_solution_of_a_convex_problem(rho: tuple[float, ...]) -> None:
    """Least squares with no weight below 0, which scipy solves. Where rho changes, the scaled duals go along."""
    torch.manual_seed(0)
    matrix, wanted = torch.randn(12, 6).double(), torch.randn(12).double()
    solution, _ = nnls(matrix.numpy(), wanted.numpy())
    assert 0 < (solution == 0).sum() < 6
    method, box = Admm(rho=rho, retrain=0.0), Box()
    hooks = AdmmHooks(box, method, (box,))
    weights = {"w": nn.Parameter(torch.randn(6).double())}
    residuals: list[float] = []

    def loss(values: Any) -> Tensor:
        return (matrix @ values["w"] - wanted).square().sum() / 2

    def seen(*args: Any) -> Any:
        residuals.append(AdmmHooks.figures(hooks, args[0], args[1])["residual"])
        return AdmmHooks.after_step(hooks, *args)

    object.__setattr__(hooks, "after_step", seen)
    driven(hooks, weights, loss, 60, 40, 0.03)
    torch.testing.assert_close(weights["w"].detach(), torch.from_numpy(solution), rtol=0, atol=1e-5)
    assert residuals[-1] < 1e-5 < 1e-3 < residuals[len(residuals) // 20]


def test_admm_draws_weights_to_a_structure_and_prunes() -> None:
    """To two sets at once; the loss holds weights where they were, and rho grows as papers let it."""
    hooks = hooks_of(Admm(0.8, structure="pattern:4", rho=(0.5, 2.0, 8.0), retrain=0.2))
    assert len(hooks.sets) == 2
    weights = weights_of(hooks.constraint)
    first = {name: weight.detach().clone() for name, weight in weights.items()}
    seen: list[dict[str, float]] = []
    nearest: list[dict[str, Tensor]] = []

    def loss(values: Any) -> Tensor:
        return torch.stack([(values[name] - first[name]).square().sum() for name in first]).sum() / 2

    def watched(now: Weights, state: Any, moment: Moment) -> Any:
        nearest.append(hooks.constraint.projected(now))
        state = AdmmHooks.after_step(hooks, now, state, moment)
        seen.append(hooks.figures(now, state))
        return state

    object.__setattr__(hooks, "after_step", watched)
    state = driven(hooks, weights, loss, 20, 10, 0.1)
    assert [step["rho"] for step in seen[::40]] == [0.5, 0.5, 2.0, 8.0, 0.0]
    assert seen[9]["residual"] > 0.3 and seen[158]["residual"] < 0.3 * seen[9]["residual"]
    assert seen[158]["sparsity"] == 0 and seen[-1] == {
        "sparsity": pytest.approx(0.8, abs=0.02),
        "residual": 0,
        "rho": 0,
    }
    masks = by_name("mask", state)
    assert all(torch.equal(value != 0, masks[name]) for name, value in nearest[159].items())
    assert all(not weight[~masks[name]].any() for name, weight in weights.items())


def test_admm_s_gradient() -> None:
    hooks = hooks_of(Admm(0.75, structure="row-block:4", rho=(0.5,)))
    weights = weights_of(hooks.constraint)
    with torch.no_grad():
        state = hooks.begin(weights)
        state |= {name: torch.randn_like(value) for name, value in state.items() if name.startswith("u0/")}
    assert hooks.penalty(weights, state) is None
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    pull = sum((leaves[n] - state[f"z0/{n}"] + state[f"u0/{n}"]).square().sum() for n in leaves) * 0.5 / 2
    pull.backward()  # type: ignore[union-attr]
    with torch.no_grad():
        hooks.gradients(weights, state)
    for name, leaf in leaves.items():
        torch.testing.assert_close(weights[name].grad, leaf.grad)


def test_rho_and_updates_are_schedules() -> None:
    method = Admm(rho=(1.0, 2.0, 4.0), retrain=0.25, every=2)
    assert [method.rho_at(done) for done in (0, 0.24, 0.25, 0.49, 0.5, 0.75, 1)] == [1, 1, 2, 2, 4, 4, 4]
    assert [method.updates_by(step, 5) for step in (9, 10, 19, 20)] == [0, 1, 1, 2]
    assert [Admm(every=0.5).updates_by(step, 3) for step in range(7)] == [0, 0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("structure", ["row-block:4", "channels"])
def test_the_reweighted_penalty_s_gradient(structure: str, squared: bool) -> None:
    method = Reweighted(0.5, structure=structure, strength=0.3, squared=squared, epsilon=0.01)
    hooks = hooks_of(method)
    weights = weights_of(hooks.constraint)
    with torch.no_grad():
        state = hooks.begin(weights)
    for weight in weights.values():
        weight.data.mul_(2)  # Weights of groups are those of another moment.
    penalty = hooks.penalty(weights, state)
    penalty.backward()
    if structure == "channels":
        name, group = "middle.bias", "middle.weight"
        squares = hooks.constraint.groups(weights)[group][0].detach()
        entries = weights[name].detach()
    else:
        name = group = "middle.weight"
        squares = weights[name].detach().reshape(3, 4, 8, 9).square().sum(1, keepdim=True)
        entries = weights[name].detach().reshape(3, 4, 8, 9)
    measure = squares / 4 if squared else squares.sqrt() / 2  # As it was when the weights of groups were found.
    pull = 2 * entries if squared else entries / squares.sqrt()
    expected = 0.3 * pull / (measure + 0.01)
    torch.testing.assert_close(weights[name].grad.reshape(expected.shape), expected)
    total = 0.0
    for kinds in hooks.constraint.groups({name: weight.detach() for name, weight in weights.items()}).values():
        for found in kinds:
            total += float((found / (found / 4 + 0.01) if squared else found.sqrt() / (found.sqrt() / 2 + 0.01)).sum())
    assert float(penalty.detach()) == pytest.approx(0.3 * total)


def test_depgraph_s_weighting_is_of_ranges() -> None:
    hooks = hooks_of(Reweighted(structure="row-block:4", weighting="range"))
    weights = weights_of(hooks.constraint)
    with torch.no_grad():
        found = hooks.begin(weights)["weight/0/middle.weight"]
        norms = hooks.constraint.groups(weights)["middle.weight"][0].sqrt()
    assert float(found.max()) == pytest.approx(16) and float(found.min()) == pytest.approx(1)
    assert torch.equal(found.flatten().argsort(), norms.flatten().argsort(descending=True))


def test_reweighting_makes_small_groups_small_and_large_ones_not() -> None:
    hooks = hooks_of(Reweighted(0.5, structure="row-block:4", strength=5e-3, refreshes=9, retrain=0.1))
    weights = weights_of(hooks.constraint)
    first = {name: weight.detach().clone() for name, weight in weights.items()}
    for name in first:
        first[name][:4] *= 10
    residuals: list[float] = []

    def loss(values: Any) -> Tensor:
        return torch.stack([(values[name] - first[name]).square().sum() for name in first]).sum() / 2

    def watched(*args: Any) -> Any:
        residuals.append(ReweightedHooks.figures(hooks, args[0], args[1])["residual"])
        return ReweightedHooks.after_step(hooks, *args)

    object.__setattr__(hooks, "after_step", watched)
    state = driven(hooks, weights, loss, 10, 10, 0.1)
    assert residuals[88] < 0.3 * hooks_distance(hooks, first) and residuals[-1] == 0
    for name in first:
        torch.testing.assert_close(weights[name][:4], first[name][:4], rtol=0.05, atol=1e-2)
    assert hooks.constraint.sparsity(weights) == pytest.approx(0.5, abs=0.01) and by_name("mask", state)
    shares = {name: float((weight == 0).double().mean()) for name, weight in weights.items()}
    assert shares["middle.weight"] != shares["back.weight"]  # What each layer loses comes out of the one lambda.


def hooks_distance(hooks: Any, values: dict[str, Tensor]) -> float:
    return relative_distance(values, hooks.constraint.projected(values))


def test_no_gradient_of_a_norm_is_infinite() -> None:
    hooks = hooks_of(Reweighted(structure="row-block:4"))
    weights = weights_of(hooks.constraint)
    weights["middle.weight"].data[:4] = 0
    with torch.no_grad():
        state = hooks.begin(weights)
    hooks.penalty(weights, state).backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in weights.values() if weight.grad is not None)


def test_gradual_shares_by_hand() -> None:
    method = Gradual(start=0.2, until=0.7)
    assert [method.grown(done) for done in (0, 0.2, 0.45, 0.7, 1)] == pytest.approx([0, 0, 1 - 0.5**3, 1, 1])
    hooks = hooks_of(Gradual(0.8, structure="row-block:4", until=0.5, every=2))
    weights = weights_of(hooks.constraint)
    shares = []
    with torch.no_grad():
        state = hooks.begin(weights)
        for step in range(1, 11):
            state = hooks.after_step(weights, state, Moment(step, 5, 2))
            shares.append(hooks.constraint.sparsity(weights))
            for weight in weights.values():
                weight.add_(0.01)
    grown = [0, *[0.8 * (1 - (1 - step / 5) ** 3) for step in (2, 2, 4)], *[0.8] * 6]
    assert shares == pytest.approx(grown, abs=0.01)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (Admm(), {"rho": "1,0"}, r"rho is \(1.0, 0.0\); give numbers above 0"),
        (Admm(), {"rho": ""}, "one or several"),
        (Admm(), {"every": 0}, "every 0.0 is no number of epochs"),
        (Admm(), {"retrain": 1}, "retrain 1.0 is no share"),
        (Gradual(), {"until": 0}, "0 <= start < until <= 1"),
        (Gradual(), {"every": 0}, "give 1 or more"),
        (Reweighted(), {"strength": 0}, "strength 0.0 is not a number above 0"),
        (Reweighted(), {"weighting": "none"}, "choose one of inverse, range"),
        (Reweighted(), {"squared": "yes"}, "choose true or false"),
        (Reweighted(), {"refreshes": -1}, "give 0 or more"),
        (Reweighted(), {"retrain": math.nan}, "no share of a training"),
        (SrSte(), {"strength": -1}, "from 0 up"),
        (SrSte(), {"structure": "3:4:"}, "is not spelled as"),
        (SrSte(), {"structure": "2:4", "sparsity": 0.8}, "sparsity 0.8 has no meaning with 2:4, which says its share"),
        (SrSte(), {"scope": "galaxy"}, "choose layer or global"),
    ],
)
def test_options_that_make_no_sense(method: ConstrainedMethod, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        method.with_options(options)


def test_what_is_recorded_of_a_method_keeps_the_order_of_patterns() -> None:
    found = [Admm(structure=dict(pairs)).recorded()["structure"]
             for pairs in ([("a*", "2:4"), ("ab", "1:4")], [("ab", "1:4"), ("a*", "2:4")])]  # fmt: skip
    assert found == [[("a*", "2:4"), ("ab", "1:4")], [("ab", "1:4"), ("a*", "2:4")]]
    assert Admm(structure="2:4").recorded()["structure"] == "2:4"
    assert isinstance(Admm(structure="2:4").with_options({"sparsity": 0.5}).constraint(network()), InsideLayers)
