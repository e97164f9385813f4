"""The words that the commands on dictionaries share: places, widths, the settings of a run."""

import dataclasses

import pytest
import tyro

from jaxcirc.cli._acts import Acts
from jaxcirc.cli._plan import Plan
from jaxcirc.cli._recipe import Recipe
from jaxcirc.cli._sae_judge import Eval, Page
from jaxcirc.cli._sae_table import Table
from jaxcirc.cli._sae_train import Train
from jaxcirc.cli._where import Where, split
from jaxcirc.dictionaries import Config

COMMANDS = {Train: [], Acts: ["save"], Eval: ["x"], Page: ["x"], Table: ["x"], Plan: []}
"""Every command that acts somewhere, with what it must have."""


@pytest.mark.parametrize(
    "words, places",
    [
        ("", ["resid_post.12"]),
        ("--layer 3", ["resid_post.3"]),
        ("--site z mlp_out --layer 1 2", ["z.1", "z.2", "mlp_out.1", "mlp_out.2"]),
        ("--site mlp_normed>mlp_out --layer 3", ["mlp_normed.3>mlp_out.3"]),
        ("--site hook_resid_post --layer 3", ["resid_post.3"]),
        ("--place z.3 mlp_normed.3>mlp_out.3", ["z.3", "mlp_normed.3>mlp_out.3"]),
        ("--place resid_post.1+blocks.2.hook_resid_post", ["resid_post.1+resid_post.2"]),
    ],
)
def test_places_are_said_alike_in_every_command(words, places):
    for command, first in COMMANDS.items():
        parsed = tyro.cli(command, args=[*first, *words.split()])
        assert getattr(parsed, "subject", parsed).where.places() == places


@pytest.mark.parametrize(
    "where, said",
    [
        (Where(("z.1",), ("z",)), "--place says it all: --place z.1, no --site"),
        (Where(("z1",)), 'place "z1": write a site and a layer, as in "resid_post.12"'),
        (Where(("resid_pots.1",)), "unknown site 'resid_pots': did you mean 'resid_post'"),
        (Where(site=("z.1",)), "--site z.1: a site with its layer is a place, --place z.1"),
    ],
)
def test_what_is_no_place_is_one_line(where, said):
    with pytest.raises(ValueError, match=said) as caught:
        where.places()
    assert "\n" not in str(caught.value)


def test_one_place_of_several_ways():
    assert Where().one() is None and Where(layer=(3,)).one() == "resid_post.3"
    assert Where(site=("z",), layer=(1, 2)).places(crossed=True) == ["z.1+z.2"]
    with pytest.raises(ValueError, match="z.1 and z.2: one place is read here, --place z.1"):
        Where(("z.1", "z.2")).one()
    assert split("mlp_normed.3>mlp_out.3") == ("mlp_normed", 3, "mlp_out")
    for place in ("z.1+z.2", "z.1>z.2"):
        with pytest.raises(ValueError, match="one site is read here, or two at one"):
            split(place)


@pytest.mark.parametrize("word", ["--d-dict", "--width"])
def test_the_width_has_two_names(word):
    assert tyro.cli(Train, args=[word, "40"]).recipe.configs(100, 10)[0].d_dict == 40
    assert tyro.cli(Plan, args=[word, "40"]).width == 40


def test_every_setting_of_a_run_has_its_word():
    words = "--warmup .1 --decay .3 --k-start 50 --anneal .2 --optimiser adamw --weight-decay .01"
    parsed = tyro.cli(Train, args=[*words.split(), "--k", "20"])
    wanted = {"warmup": 0.1, "decay": 0.3, "k_start": 50, "anneal": 0.2, "weight_decay": 0.01}
    (config,) = parsed.recipe.configs(100, 10)
    assert config == Config(optimiser="adamw", k=20, tokens=100, batch=10, **wanted)
    assert tyro.cli(Train, args=[]).recipe.configs(9, 3) == [Config(tokens=9, batch=3)]
    named = {field.name for field in dataclasses.fields(Recipe)} | {"tokens", "batch"}
    assert named == {field.name for field in dataclasses.fields(Config)}
