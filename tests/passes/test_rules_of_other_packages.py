"""An installed package can bring rules: its entry point is imported with ours, and what it derives from ours is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

RULE = """
from reconvene.passes.rules import Rule, register


@register
class Wave(Rule):
    operators = ("example.wave",)
"""

LAYER = """
import torch
from reconvene.passes.rules import register
from reconvene.passes.rules.linear_map import Linear


@torch.library.custom_op("example::mix", mutates_args=())
def mix(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(input, weight, bias)


@mix.register_fake
def _(input, weight, bias):
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


@register
class Mix(Linear):
    operators = ("example.mix",)
"""

PRUNED = """
import json
import torch
from torch import nn
from torch.nn.utils import prune
import reconvene
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.pruning.scores import scored_weights
import mix_rule


class Mixed(nn.Linear):
    def forward(self, x):
        return torch.ops.example.mix(x, self.weight, self.bias)


model = nn.Sequential(Mixed(6, 16), nn.ReLU(), Mixed(16, 3)).eval()
prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)  # The weight is computed from weight_orig and weight_mask.
with torch.no_grad():
    model[0].bias[~model[0].weight_mask.any(1)] = 0.0
images = torch.randn(4, 6)
canonical = canonicalize(reconvene.capture(model, (images,)))
found = reconvene.compact(model, (images,))
print(json.dumps({
    "stored": [str(node.target) for node in canonical.graph.nodes if node.op == "get_attr"],
    "scored": [weight.name for weight in scored_weights(canonical)],
    "widths": [[layer.name, layer.channels_before, layer.channels_after] for layer in found.report.layers],
    "difference": found.certificate.max_relative,
}))
"""


def run(folder: Path, rule: str, program: str) -> str:
    """Standard output of a program where a package `rule`, of that name, is installed."""
    information = folder / f"{rule}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {rule}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[reconvene.rules]\n{rule} = {rule}_rule\n")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_entry_point_registers_its_rule(tmp_path: Path) -> None:
    (tmp_path / "wave_rule.py").write_text(RULE)
    program = "from reconvene.passes.rules import rule_for; print(type(rule_for('example.wave')).__name__)"
    assert run(tmp_path, "wave", program).strip() == "Wave"


def test_a_layer_of_another_package_is_a_weighted_layer_everywhere(tmp_path: Path) -> None:
    (tmp_path / "mix_rule.py").write_text(LAYER)
    found: dict[str, Any] = json.loads(run(tmp_path, "mix", PRUNED).splitlines()[-1])
    assert sorted(found["stored"]) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert found["scored"] == ["0.weight", "2.weight"]
    assert found["widths"] == [["0", 16, 8], ["2", 3, 3]]
    assert found["difference"] < 1e-6


REPLACED = """
from reconvene.frontend.base.errors import InputError
from reconvene.passes.rules import Rule, register, rule_for

before = rule_for("aten.relu")
try:
    @register
    class First(Rule):
        operators = ("example.new", "aten.relu")
except InputError as error:
    print(error)
print(rule_for("aten.relu") is before, type(rule_for("example.new")).__name__)

@register(replace=True)
class Second(Rule):
    operators = ("aten.relu",)

@register
class Second(Rule):  # The same, defined once more.
    operators = ("aten.relu",)

print(type(rule_for("aten.relu")).__name__)
"""


def test_an_operator_has_one_rule_unless_another_says_that_it_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "wave_rule.py").write_text(RULE)
    message, untouched, last = run(tmp_path, "wave", REPLACED).splitlines()
    assert message.startswith("aten.relu has a rule already, reconvene.passes.rules.elementwise.")
    assert untouched == "True Rule" and last == "Second"
