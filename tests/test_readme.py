"""The README's tour runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path


def test_the_tour_runs():
    """In a process of its own: without optimisation a real model runs slowly."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (tour,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    flags = os.environ["XLA_FLAGS"].replace("--xla_backend_optimization_level=0", "")
    env = os.environ | {"XLA_FLAGS": flags}
    run = subprocess.run([sys.executable, "-c", tour], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "(30, 8, 15, 9, 64)"
    assert float(lines[2]) > 0.9, "AtP should rank the heads of IOI"
