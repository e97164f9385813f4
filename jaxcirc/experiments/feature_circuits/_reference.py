"""The paper's own figures, to print beside ours, marked as the paper's. Imports nothing.

Marks et al. 2024 (arXiv 2403.19647): faithfulness figures of Pythia-70M (sites of all 6 blocks) and
Gemma-2-2B (of all 26), means over the four agreement structures.
"""

PAPER = {
    ("features", "default"): ("75", "514"),
    ("features", "removed"): ("never (at most .31)", "never (at most .06)"),
    ("features", "attn+mlp removed"): ("149", "1,033"),
    ("neurons", "default"): ("1,582", "49,351"),
}
"""Nodes at a faithfulness of 0.5 by nodes and errors: on Pythia-70M and on Gemma-2-2B."""


def paper_cells(kind: str, errors: str) -> dict[str, str]:
    """The two columns of a row.

    >>> paper_cells("features", "default")["paper: Pythia-70M"]
    '75'
    """
    pythia, gemma = PAPER.get((kind, errors), ("", ""))
    return {"paper: Pythia-70M": pythia, "paper: Gemma-2-2B": gemma}
