"""The discrete-SAE study: areas, sweeps, claims, and the whole of it on small models."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcirc import circuits, experiments, viz, zoo
from jaxcirc.circuits.discrete import DiscreteScores, Settings
from jaxcirc.cli import _reproduce_discrete
from jaxcirc.cli._sections import print_sections
from jaxcirc.experiments.discrete import (
    DiscreteSizes,
    Swept,
    _assumed,
    discrete_sizes,
    study_discrete,
)
from jaxcirc.experiments.discrete._areas import Ranked, area, draws, spread
from jaxcirc.experiments.discrete._assumed import absent_claim, carried_by, within_correlation
from jaxcirc.experiments.discrete._claims import cost_claims, robust_claims, swept_of
from jaxcirc.experiments.discrete._cost import WHOLE, WHOLE_ACDC, task_cost
from jaxcirc.experiments.discrete._known import of_edges, true_pairs
from jaxcirc.experiments.discrete._robust import fewer, spread_rows
from jaxcirc.experiments.feature_circuits import Section
from jaxcirc.models import toy
from jaxcirc.tasks import Contrast, greater_than, ioi

TINY = DiscreteSizes(
    cases=("duplicate",),
    swept_cases=("duplicate",),
    n=12,
    prompts=6,
    seeds=2,
    settings=Settings(features=16, steps=5, examples=4),
    swept=Swept((4,), (3, 6), (16,), (0.0, 0.1), ("absent", "copy"), (0.1,), (1.0,), (1,)),
    tasks=("ioi",),
    texts=8,
    pairs=4,
    judged=4,
    kept=(3, 6),
    model_settings=Settings(features=16, steps=5, examples=4),
    effects=4,
    acdc_edges=3,
    shapes=(),
)


def test_the_area_is_the_mean_over_models_with_components_resampled():
    truth = np.asarray([True, True, False, False, False, False])
    scores = np.asarray([[3.0, 1, 2, 0, 0, 0], [3, 3, 3, 0, 0, 0]])
    ranked = Ranked.of(scores, truth)
    wanted = [circuits.auroc(row, truth) for row in scores]
    np.testing.assert_allclose(ranked.by_trial, wanted)
    assert ranked.n == 6 and Ranked.of(scores, np.ones(6, bool)) is None
    found = area([ranked, Ranked.of(truth.astype(float), truth)])
    assert found.value == pytest.approx((np.mean(wanted) + 1) / 2)
    assert found.low < found.value < found.high <= 1 and found.clusters == 2
    assert area([ranked], [ranked]).high == 0.0
    assert draws([ranked])[0] == pytest.approx(np.mean(wanted))
    worst = Ranked.of(-truth.astype(float), truth)
    assert (spread([[worst], [Ranked.of(truth.astype(float), truth)]]) == 1).all()


def test_negatives_of_the_zoo_lack_the_behaviour():
    induction = zoo.load("induction").contrast(40)
    rows = np.asarray(induction.tokens)
    known = (rows[:, 1:-2] == rows[:, -1:]).any(axis=1)
    assert known[induction.positive].all() and not known[~induction.positive].any()
    names = np.asarray(zoo.load("duplicate").contrast(40).tokens)[:, [1, 3, 5]]
    different = np.asarray([len(set(row)) for row in names.tolist()])
    assert (different[:40] == 2).all() and (different[40:] == 3).all()
    for kind in zoo.NEGATIVES:
        found = zoo.load("hist").contrast(10, negatives=kind)
        ours = {row for row, flag in zip(found.rows(), found.positive, strict=True) if flag}
        assert not ours & {r for r, f in zip(found.rows(), found.positive, strict=True) if not f}
    with pytest.raises(ValueError, match="use one of 'absent', 'corrupt', 'random', 'copy'"):
        zoo.load("hist").contrast(10, negatives="easy")


def test_components_and_pairs_of_a_known_circuit():
    case = zoo.load("duplicate")
    true, known = case.components
    assert np.flatnonzero(true).tolist() == [0, 8, 11] and known.all()
    pairs, sure = true_pairs(case)
    assert [tuple(row) for row in np.argwhere(pairs)] == [(0, 8), (8, 11)]
    assert sure[0, 8] and not sure[8, 0] and not sure[0, 11]  # inside the circuit: not known
    edges = np.zeros(case.wiring.n_edges)
    at = case.wiring.source == 1
    edges[at] = 2.0
    nodes, table = of_edges(case, edges, best=False)
    assert nodes.argmax() == 0 and nodes[0] == 2 * at.sum() and table[0].max() == 2
    assert of_edges(case, edges, best=True)[0][0] == 2


def test_fewer_scored_texts_are_counted_with_the_same_dictionaries():
    codes = np.random.default_rng(0).integers(0, 9, (2, 16, 1, 5)).astype(np.int32)
    none = np.zeros((2, 5))
    own, positive = Settings(features=9), np.arange(16) < 8
    scores = DiscreteScores(none, none[:, None], None, codes, codes > 9, positive, none, own)
    some = fewer(scores, 3)
    for trial in range(2):
        ours, theirs = codes[trial, :3, 0], codes[trial, 8:11, 0]
        wanted = [len(set(ours[:, h]) - set(theirs[:, h])) for h in range(5)]
        np.testing.assert_array_equal(some[trial], wanted)


def test_correlation_within_heads_forgets_what_heads_have_in_common():
    rng = np.random.default_rng(0)
    x, level = rng.random((40, 6)), 10 * np.arange(6)
    same = within_correlation(x, 2 * x + level, np.arange(40) % 4)
    assert same.value == pytest.approx(1) and same.low > 0.99
    none = within_correlation(x, rng.random((40, 6)) + level, np.arange(40) % 4)
    assert abs(none.value) < 0.3


def test_what_is_carried_belongs_to_its_own_prompt(smollm2):
    prompts = ioi(smollm2[1], n=5, corruption="abc")
    texts = Contrast.of(prompts).ordered()
    carries = np.zeros((1, 10, 1, 2), bool)
    ids = Contrast.of(prompts).rows()
    carries[0, texts.rows().index(ids[3]), 0, 1] = True
    none = np.zeros((1, 2))
    scores = DiscreteScores(
        none, none[None], None, carries * 1, carries, texts.positive, none, Settings()
    )
    carried, rows = carried_by(scores, texts, prompts, 5)
    assert rows == list(range(5)) and np.argwhere(carried).tolist() == [[3, 1]]


def test_chance_is_the_share_of_answers_and_no_claim_is_made_below_it(smollm2, monkeypatch):
    prompts = greater_than(smollm2[1], n=6)
    right = [sum(weights > 0) for weights in np.asarray(prompts.answer_weights)]
    wrong = [sum(weights > 0) for weights in np.asarray(prompts.wrong_weights)]
    chance = _assumed.chance_of(prompts)
    np.testing.assert_allclose(chance, np.divide(right, np.add(right, wrong)))
    assert set(_assumed.chance_of(ioi(smollm2[1], n=4))) == {0.5}
    ends = {"clean": np.ones(6), "corrupt": chance}
    monkeypatch.setattr(_assumed, "_accuracy", lambda model, prompts, end: ends[end])
    claim = absent_claim(None, "greater_than", prompts)
    assert claim.found.value == pytest.approx(1) and claim.verdict == "supported"
    ends["clean"] = np.zeros(6)
    claim = absent_claim(None, "greater_than", prompts)
    assert np.isnan(claim.found.value) and claim.verdict == "undecided"


def test_claims_of_sweeps():
    def wins(value):
        return np.full((2, 2, 4), value)

    arrays = {"discrete/examples/5": wins(0.9), "discrete/examples/50": wins(0.7)}
    arrays |= {"discrete/features/25": wins(0.9), "discrete/features/50": wins(0.8)}
    arrays |= {"ACDC/threshold/0.1": wins(0.2), "ACDC/threshold/1.0": wins(0.9)}
    arrays |= {"discrete/end to end/10": wins(0.8)}
    swept = swept_of({"a": Section(arrays=arrays), "b": Section(arrays=arrays)})
    by_text = {claim.text: claim for claim in robust_claims(swept)}
    fragile = by_text["zoo: dictionaries trained on 5 texts do better than on 50"]
    assert fragile.verdict == "supported" and fragile.found.value == pytest.approx(0.2)
    less = by_text["zoo: codes depend less on their settings than ACDC on its threshold"]
    assert less.found.value == pytest.approx(0.6) and less.verdict == "supported"
    assert by_text["zoo, end to end: 10 texts, trained on and scored, tell the circuit"].found.low
    rows = [
        {"method": "a", "setting": "s", "case": c, "value": v, "AUC": x}
        for c, v, x in (("b", "1", 0.5), ("d", "1", 0.7), ("b", "2", 0.9), ("d", "2", 0.9))
    ]
    (row,) = spread_rows(rows)
    assert row["lowest AUC"] == pytest.approx(0.6) and row["best at"] == "2"


def test_claims_of_cost_set_one_dictionary_and_all_against_others():
    seconds = {WHOLE: 10.0, f"{WHOLE}, outputs cached": 8.0, "EAP-IG": 4.0, WHOLE_ACDC: 2000.0}
    codes = {"section": "codes", "seconds": 90.0, "seconds, outputs": 10.0}
    rows = [{"what": what, "seconds": value} for what, value in seconds.items()]
    ten = task_cost([codes | {"dictionaries": 10, "texts": 200}], rows)
    assert [row["times ours"] for row in ten] == [9, 10]
    found = {claim.text.partition(",")[2]: claim for claim in cost_claims([*rows, *ten])}
    one = found[" one dictionary, from texts to heads, in less time than a whole search of ACDC"]
    assert one.found.value == 200 and one.verdict == "supported"
    all_ = found[" 10 dictionaries, from texts to heads, in less time than a whole search of ACDC"]
    assert all_.found.value == 20 and all_.verdict == "contradicted"  # not by a factor of 100
    assert (
        found[" one dictionary, from texts to heads, in less time than EAP-IG"].found.value == 0.4
    )
    assert len(found) == 3


def test_presets_name_their_models():
    assert discrete_sizes("default", "anything").seeds == 10
    paper = discrete_sizes("paper", "openai-community/gpt2")
    assert paper.model_settings.decoder_norm == "reference" and paper.free == 2
    assert discrete_sizes("paper", "attn-only-4l").tasks == ("docstring",)
    with pytest.raises(ValueError, match="preset 'paper' is for gpt2, attn-only-4l, not 'smollm2"):
        discrete_sizes("paper", "smollm2-135m")
    with pytest.raises(ValueError, match="unknown preset 'huge'"):
        discrete_sizes("huge", "gpt2")


@pytest.fixture(scope="module")
def study(smollm2, tmp_path_factory):
    """The whole study of a random model that reads SmolLM2's tokens, and its folder."""
    model = toy(jax.random.key(0), vocab=49152, n_layers=3, d_mlp=16)
    folder = tmp_path_factory.mktemp("study")
    return study_discrete(model, smollm2[1], folder, sizes=TINY), folder, model


@pytest.mark.slow
def test_the_study_runs_whole(study, tmp_path, capsys):
    result, _, _ = study
    sections = {row["section"] for row in result.table}
    assert {"claim", "known", "case", "spread", "swept", "codes", "faithful"} <= sections
    assert {"overlap", "cost"} <= sections
    known = {row["method"] for row in result.table if row["section"] == "known"}
    assert {"discrete", "EAP", "EAP-IG", "HISP", "SP", "ACDC", "random"} <= known
    swept = [row for row in result.table if row["section"] == "swept"]
    settings = {row["setting"] for row in swept}
    assert {"examples", "scored", "features", "penalty", "negatives", "end to end"} <= settings
    for setting, both in (("pool", {"mean", "last"}), ("decoder_norm", {"column", "reference"})):
        assert {row["value"] for row in swept if row["setting"] == setting} == both
    written = {path.name for path in viz.write(result, tmp_path)}
    assert {"areas.png", "rocs.png", "sweeps.png", "kept.png", "index.html"} <= written
    assert experiments.load_result(tmp_path).table == list(result.table)
    print_sections(result, _reproduce_discrete.TITLES, _reproduce_discrete.COLUMNS)
    said = capsys.readouterr().out
    assert "models whose circuit is known" in said and "claims" in said and "nan" not in said


@pytest.mark.slow
def test_a_killed_study_goes_on(study, smollm2, monkeypatch):
    result, folder, model = study
    from jaxcirc.experiments.discrete import _study

    made = []
    for name in ("known_section", "robust_section", "model_section", "cost_section"):
        monkeypatch.setattr(_study, name, lambda *a, name=name: made.append(name))
    (lost,) = folder.glob("ioi.json")
    lost.unlink()
    with pytest.raises(AttributeError):
        study_discrete(model, smollm2[1], folder, sizes=TINY)
    assert made == ["model_section"]
    with pytest.raises(ValueError, match="holds another study"):
        study_discrete(model, smollm2[1], folder, sizes=dataclasses.replace(TINY, seeds=3))
    assert result.kind == "study_discrete"


@pytest.mark.slow
def test_the_paper_preset_scores_against_published_circuits(smollm2, tmp_path):
    model = toy(
        jax.random.key(0), vocab=49152, n_layers=12, n_heads=12, n_kv_heads=12, d_mlp=16, d_head=4
    )
    sizes = dataclasses.replace(
        discrete_sizes("paper", "gpt2"),
        **{"seeds": 2, "texts": 6, "pairs": 4, "judged": 4, "effects": 4, "tasks": ("ioi",)},
        model_settings=Settings(features=16, steps=3, examples=4, decoder_norm="reference"),
        shapes=(),
    )
    result = study_discrete(model, smollm2[1], tmp_path, sizes=sizes)
    found = [row for row in result.table if row["section"] == "found"]
    assert {row["reference"] for row in found} == {"ioi/acdc", "ioi/discrete_sae"}
    assert all(0 <= row["AUC"] <= 1 and row["heads"] == 26 for row in found)
