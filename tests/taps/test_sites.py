"""The table of sites is the truth: a run that reads everything has exactly these axes."""

import pytest
from cases import SHAPES, UNLIKE, tiny, tokens

from jaxcirc.taps import AXES, OUTER, Chain, Read, Set, Sites, parse_site, run

LENGTH, BATCH = 5, 2
READERS = ("q_in", "k_in", "v_in")


def read(model, sites):
    edits = Sites(**{site: Read() for site in sites})
    return run(model, tokens(0, BATCH, LENGTH), edits)[1]


def shape(model, site):
    told = {"batch": BATCH, "pos": LENGTH, "dest": LENGTH, "src": LENGTH}
    layers = () if site in OUTER else (model.n_layers,)
    return layers + tuple(told.get(axis) or model.axis_size(axis) for axis in AXES[site])


@pytest.mark.parametrize("name", SHAPES)
def test_axes_are_the_shapes_of_what_a_run_reads(name):
    model = tiny(name)
    sites = [site for site in model.sites() if site not in READERS]
    for site, record in read(model, sites).items():
        assert record.shape == shape(model, site), site
        sites.remove(site)
    assert not sites, "every site that a model claims is met"


@pytest.mark.parametrize("name", UNLIKE)
def test_readers_apart_have_the_shape_of_the_stream(name):
    model = tiny(name)
    for site, record in read(model, READERS).items():
        assert record.shape == shape(model, site), site


@pytest.mark.parametrize("name", SHAPES)
def test_a_site_that_the_model_lacks_is_refused(name):
    model = tiny(name)
    for site in set(AXES) - set(model.sites()):
        with pytest.raises(ValueError, match=f"has no site '{site}': it has embed, resid_pre"):
            read(model, [site])


def test_readers_apart_and_what_they_share_are_refused_together():
    with pytest.raises(ValueError, match="tap attn_in with attn_normed, or the readers"):
        read(tiny("grouped"), ["k_in", "attn_normed"])


def test_axes_and_the_table_name_the_same_sites_in_the_same_order():
    filled = Sites(**dict.fromkeys(AXES, True))
    assert [site for site, _ in filled.items()] == list(AXES)


@pytest.mark.parametrize(
    "name, site, layer",
    [
        ("z", "z", None),
        ("blocks.3.attn.hook_z", "z", 3),
        ("blocks.0.hook_resid_pre", "resid_pre", 0),
        ("blocks.11.attn.hook_attn_scores", "scores", 11),
        ("blocks.1.attn.hook_pattern", "pattern", 1),
        ("blocks.2.attn.hook_rot_q", "rot_q", 2),
        ("blocks.2.attn.hook_result", "head_out", 2),
        ("blocks.2.ln1.hook_scale", "attn_norm_scale", 2),
        ("blocks.2.ln2.hook_normalized", "mlp_normed", 2),
        ("blocks.2.mlp.hook_pre_linear", "mlp_up", 2),
        ("blocks.2.hook_q_input", "q_in", 2),
        ("hook_embed", "embed", None),
        ("ln_final.hook_scale", "final_norm_scale", None),
    ],
)
def test_names_of_transformerlens_are_understood(name, site, layer):
    assert parse_site(name) == (site, layer)


@pytest.mark.parametrize("name", ["zz", "blocks.x.attn.hook_z", "blocks.3.hook_nothing", ""])
def test_unknown_names_are_answered_with_the_known_ones(name):
    with pytest.raises(
        ValueError, match=r"unknown site '.*': (did you mean .*\? )?the sites are embed, resid_pre"
    ):
        parse_site(name)


def test_tables_merge_with_the_left_edit_first():
    merged = Sites(z=Set(1.0), q=Read()) | Sites(z=Set(2.0), k=Read())
    assert isinstance(merged.z, Chain)
    assert [edit.value for edit in merged.z.edits] == [1.0, 2.0]
    assert [site for site, _ in merged.items()] == ["q", "k", "z"]
