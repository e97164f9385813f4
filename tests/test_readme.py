"""The README's tour runs as it stands."""

import re
from pathlib import Path


def test_the_tour_runs(capsys):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (tour,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    exec(compile(tour, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "(30, 12, 15, 9, 64)"
    assert float(lines[2]) > 0.9, "AtP should rank the heads of IOI"
