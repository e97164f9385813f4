"""Figures say what the result says: limits centred at 0, every node named, nothing left behind."""

from typing import Any

import matplotlib
import numpy as np
import pytest
from made import DRAWS, HEADS, LAYERS, SIZES, discovered, patched
from matplotlib.collections import QuadMesh
from matplotlib.text import Text

from jaxcirc import viz


def meshes(figure) -> list[Any]:
    return [mesh for axes in figure.axes for mesh in axes.findobj(QuadMesh) if mesh.cmap.N > 2]


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_colours_are_centred_at_zero(scale):
    array = scale * np.random.default_rng(0).normal(2.0, 1.0, (LAYERS, HEADS))
    for mesh in meshes(viz.layer_head_map(array, "title"))[:1]:
        assert mesh.norm.vmin == -mesh.norm.vmax
        assert mesh.norm.vmax == pytest.approx(np.abs(array).max())


def test_strongest_head_is_named():
    array = np.zeros((LAYERS, HEADS))
    array[23, 3] = -1.5
    assert "23.3" in words(viz.layer_head_map(array, "title"))


def test_names_do_not_overlap():
    figure = viz.layer_head_map(np.ones((LAYERS, HEADS)), "title", names=40)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if "." in text.get_text()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("array", [np.zeros((3, 2)), np.full((3, 2), np.nan)])
def test_map_of_nothing(array):
    mesh = meshes(viz.layer_head_map(array, "title"))[0]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)


def test_blue_helps_whatever_the_direction():
    array = np.zeros((3, 2))
    array[1, 1] = 1.0
    shades = {}
    for direction in ("noise", "denoise"):
        mesh = meshes(viz.layer_head_map(array, "title", direction=direction))[0]
        red, _, blue, _ = mesh.cmap(mesh.norm(1.0))
        shades[direction] = blue > red
    assert shades == {"noise": False, "denoise": True}


def test_map_refuses_examples():
    with pytest.raises(ValueError, match=r"layer_head_map\(raw.mean\(axis=0\), title\)"):
        viz.layer_head_map(np.zeros((4, LAYERS, HEADS)), "title")


def test_picture_says_where_how_much_and_what():
    result = discovered()
    said = "\n".join(words(viz.discover_picture(result)))
    for part in (
        "ioi",
        "smollm2-135m",
        "32 prompts",
        "3.41",
        "random sets (5 draws)",
        "end looks at",
    ):
        assert part in said
    assert "MLP" in said


def test_picture_fits_its_frame():
    figure = viz.discover_picture(discovered())
    figure.draw_without_rendering()
    for axes in figure.axes:
        box: Any = axes.get_tightbbox()
        frame = figure.bbox
        assert box.x0 >= frame.x0 and box.x1 <= frame.x1
        assert box.y0 >= frame.y0 and box.y1 <= frame.y1


def test_curve_holds_the_result():
    result = discovered()
    lines = {line.get_marker(): line for line in viz.faithfulness_curve(result).axes[0].lines}
    np.testing.assert_array_equal(lines["o"].get_xdata(), SIZES)
    np.testing.assert_array_equal(lines["o"].get_ydata(), result.arrays["faithfulness_value"])
    np.testing.assert_array_equal(lines["s"].get_ydata(), result.arrays["complement_value"])
    assert result.arrays["random"].shape == (len(SIZES), DRAWS)


@pytest.mark.parametrize("top", [1, 7, 100])
def test_nodes_are_the_strongest(top):
    result = discovered()
    names = [label.get_text() for label in viz.node_effects(result, top).axes[0].get_yticklabels()]
    ranked = sorted(result.table, key=lambda row: -abs(row["exact"]))[:top]
    assert set(names) == {row["node"] for row in ranked}


def test_dwarfing_node_is_cut_and_said():
    result = discovered()
    axes = viz.node_effects(result).axes[0]
    worst = result.table[0]["exact"]
    assert axes.get_xlim()[0] > worst
    assert any(
        "◂" in text.get_text() and f"{worst:.2f}"[1:] in text.get_text() for text in axes.texts
    )


def test_scatter_says_the_correlation():
    result = discovered()
    pairs = [[row[name] for row in result.table] for name in ("exact", "atp")]
    title = viz.exact_against_estimate(result).axes[0].get_title("left")
    assert f"r = {np.corrcoef(pairs)[0, 1]:.2f} over 60 nodes" in title


@pytest.mark.parametrize(
    "axes",
    [("layer",), ("layer", "head"), ("layer", "pos"), ("layer", "kv_head"), ("layer", "d_mlp")],
)
def test_patch_of_any_axes(axes):
    figure = viz.patch_picture(patched(*axes))
    for mesh in meshes(figure)[:1]:
        assert mesh.norm.vmin == -mesh.norm.vmax
    assert "ioi: patching z" in words(figure)
    assert ("d_mlp (the 40 strongest of 200)" in words(figure)) == ("d_mlp" in axes)


def test_patch_of_three_axes_keeps_the_strongest():
    result = patched("layer", "pos", "head")
    mesh = meshes(viz.patch_picture(result))[0]
    largest = np.abs(result.arrays["effects"]).max(axis=-1).T
    np.testing.assert_array_equal(np.abs(mesh.get_array()), largest)


def test_patch_names_positions():
    columns = ["$x_1$", *(f"word{i}" for i in range(14))]
    figure = viz.patch_picture(patched("layer", "pos", columns=columns))
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == columns
    assert not any(label.get_parse_math() for label in labels)


def test_wrong_kind_is_told_the_right_call():
    with pytest.raises(ValueError, match=r"use jaxcirc.viz.patch_picture\(result\)"):
        viz.discover_picture(patched("layer"))


def test_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    viz.faithfulness_curve(discovered())
    assert dict(matplotlib.rcParams) == before
