"""Figures of discrete-SAE circuits, from made-up results."""

import numpy as np
import pytest

from jaxcirc import viz
from jaxcirc.experiments import Result


def result(kind, rows=(), arrays=None, **facts):
    arrays = arrays or {}
    axes = {name: ("layer", "head")[: array.ndim] for name, array in arrays.items()}
    return Result(kind, "ioi", {}, list(rows), arrays, axes, facts, {"total": 1.0})


def test_the_map_of_heads():
    nodes = np.arange(12, dtype=np.float32).reshape(3, 4)
    figure = viz.discrete_heads(result("discover_discrete", arrays={"nodes": nodes}, seeds=3))
    assert "mean over 3 dictionaries" in str([t.get_text() for t in figure.axes[0].texts])
    with pytest.raises(ValueError, match="draws results of kind 'discover_discrete'"):
        viz.discrete_heads(result("patch"))


def test_the_study_draws_what_is_there():
    rows = [
        {"section": "known", "parts ranked": part, "method": method, "AUC": auc}
        | {"AUC low": auc - 0.1, "AUC high": auc + 0.05}
        for part in ("components", "pairs of components")
        for method, auc in (("EAP", 0.9), ("discrete", 0.6))
    ]
    swept = {"section": "swept", "case": "hist", "method": "discrete", "AUC": 0.5, "sd": 0.1}
    rows += [{**swept, "setting": "features", "value": value} for value in ("25", "50")]
    kept = {"section": "faithful", "task": "ioi", "metric": "logit_difference", "CPR": 0.5}
    rows += [{**kept, "method": m, "0 heads": 0.0, "10 heads": 1.0} for m in ("EAP", "random")]
    found = result("study_discrete", rows, {"roc_node_discrete": np.linspace(0, 1, 101)})
    areas = viz.study_areas(found)
    assert [t.get_text() for t in areas.axes[0].get_yticklabels()] == ["discrete", "EAP"]
    sweep = viz.study_sweeps(found).axes[2]
    assert list(sweep.get_lines()[0].get_xdata()) == [0, 1]
    assert [t.get_text() for t in sweep.get_xticklabels()] == ["25", "50"]
    assert viz.study_kept(found).axes[0].get_lines()[0].get_ydata().tolist() == [0, 1]
    assert len(viz.study_rocs(found).axes[0].get_lines()) == 2
    nothing = result("study_discrete")
    for draw in (viz.study_areas, viz.study_sweeps, viz.study_kept, viz.study_rocs):
        draw(nothing)
