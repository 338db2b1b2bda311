"""An installed package can bring rules: its entry point is imported with ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RULE = """
from reconvene.passes.rules import Rule, register


@register
class Wave(Rule):
    operators = ("example.wave",)
"""


def test_an_entry_point_registers_its_rule(tmp_path: Path) -> None:
    (tmp_path / "wave_rule.py").write_text(RULE)
    information = tmp_path / "wave-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: wave\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[reconvene.rules]\nwave = wave_rule\n")
    program = "from reconvene.passes.rules import rule_for; print(type(rule_for('example.wave')).__name__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == "Wave", done.stderr
