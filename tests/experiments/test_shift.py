"""SHIFT: what it measures, what it ablates, its data, its judge, and the whole of it on a model in
which the right answer is known."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close, dictionaries, tiny
from planted import (
    LABEL_AXIS,
    PRONOUN_AXIS,
    PRONOUNS,
    WIDTH,
    Tokens,
    axes_dictionary,
    embeddings,
    planted_basis,
    planted_model,
    planted_task,
)

from jaxcirc import experiments, models, viz
from jaxcirc.circuits.features import Basis, FeatureNode, nodes
from jaxcirc.cli import _features_shift, main
from jaxcirc.dictionaries.formats import save
from jaxcirc.experiments.shift import (
    METHODS,
    Counts,
    Decisions,
    Head,
    Margin,
    Pool,
    Scoring,
    Sizes,
    WordList,
    bias_in_bios,
    biographies,
    fit,
    placed,
    read_decisions,
    study_shift,
    write_decisions,
)
from jaxcirc.experiments.shift import _study as study
from jaxcirc.experiments.shift._biographies import words_of
from jaxcirc.experiments.shift._concepts import cosines
from jaxcirc.experiments.shift._contexts import Context, activity
from jaxcirc.experiments.shift._head import said
from jaxcirc.experiments.shift._measure import binomial, measured, over_seeds
from jaxcirc.experiments.shift._neurons import neurons_of
from jaxcirc.experiments.shift._rows import Rows, length_of, prompts_of, rows_of
from jaxcirc.experiments.shift._runs import below, drops_of, pooled
from jaxcirc.experiments.shift._texts import deleted
from jaxcirc.taps import Node, Read, Sites, run

COUNTS = Counts(24, 24, 24)
SIZES = Sizes(COUNTS, Scoring(texts=8, features=6, batch=8), seeds=2, judged=24)


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def study_of(model, tmp_path_factory):
    """The whole study on the planted model, and its folder."""
    folder = tmp_path_factory.mktemp("seeds")
    basis, task = planted_basis(model), planted_task()
    found = study_shift(model, Tokens(), basis, folder, tasks=[task], sizes=SIZES)
    return found, folder


# texts


def test_whole_words_are_deleted_in_any_case():
    text = "She thanked Anna's nurse; the shed was hers, she said."
    assert deleted(text, {"she", "anna", "hers"}) == "thanked nurse; the shed was, said."
    assert deleted(text, set()) == text


@pytest.mark.parametrize("confound", ["gender", "tense"])
def test_biographies_are_confounded_in_training_alone(confound):
    task = biographies(confound)
    splits = task.draw(3, Counts(40, 40, 40))
    assert (splits.ambiguous.label == splits.ambiguous.attribute).all()
    for part in (splits.balanced, splits.test):
        assert np.bincount(part.cell).tolist() == [10] * 4
    assert splits.test.texts == task.draw(3, Counts(40, 40, 40)).test.texts
    assert not set(splits.test.texts) & set(task.draw(4, Counts(40, 40, 40)).test.texts)
    clauses = {text.split(". ")[1] for text in splits.test.texts}
    assert not clauses & {text.split(". ")[1] for text in splits.ambiguous.texts}


def test_what_a_confound_is_made_of():
    gender = biographies("gender").draw(0, Counts(40, 4, 4)).ambiguous
    for text, female in zip(gender.texts, gender.attribute, strict=True):
        words = set(text.lower().replace(".", "").replace(",", "").split())
        assert bool(words & {"she", "her"}) == bool(female) != bool(words & {"he", "his"})
    tense = biographies("tense").draw(0, Counts(40, 4, 4)).ambiguous
    past = {"taught", "gave", "played", "lived", "ran"}
    assert all(a for t, a in zip(tense.texts, tense.attribute, strict=True) if past & {*t.split()})
    assert {"teaches", "taught", "sings", "sang"} <= words_of("tense")
    assert "she" not in words_of("tense") and "she" in words_of("gender")


def bios(n=12):
    """A small file: every pair of profession and gender, and a profession that is not meant."""
    return [
        {"hard_text": f"text {i}", "profession": (21, 13, 2)[i % 3], "gender": i // 3 % 2}
        for i in range(3 * n)
    ]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_bias_in_bios_is_read_and_split(tmp_path):
    task = bias_in_bios(write_lines(tmp_path / "bios.jsonl", bios(16)))
    splits = task.draw(0, Counts(4, 8, 8))
    assert splits.ambiguous.cell.tolist().count(0) == splits.ambiguous.cell.tolist().count(3) == 2
    assert np.bincount(splits.test.cell).tolist() == [2] * 4
    every = [text for part in vars(splits).values() for text in part.texts]
    assert len(set(every)) == 20
    number = int(splits.test.texts[0].split()[1])
    assert splits.test.label[0] == number % 3 and splits.test.attribute[0] == number // 3 % 2


def test_parquet_says_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist(bios(16))
    parquet.write_table(table, tmp_path / "bios.parquet")
    paths = tmp_path / "bios.parquet", write_lines(tmp_path / "bios.jsonl", bios(16))
    draws = [bias_in_bios(path).draw(0, Counts(4, 8, 8)) for path in paths]
    assert draws[0].test.texts == draws[1].test.texts


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.jsonl", '{"hard_text": "x"}\n', r'a.jsonl, row 1: write {"hard_text"'),
        ("a.jsonl", "not json\n", "a.jsonl, line 1 is no JSON"),
        ("a.jsonl", '{"hard_text": "x", "profession": 21, "gender": 7}\n', "row 1: write"),
        ("a.jsonl", '{"hard_text": "x", "profession": 5, "gender": 1}\n', "no text of profession"),
        ("a.csv", "x", "read from .jsonl"),
        ("a.parquet", "no parquet at all", "a.parquet"),
    ],
)
def test_files_that_are_no_biographies(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        bias_in_bios(tmp_path / name)
    assert "\n" not in str(error.value)


def test_more_texts_asked_for_than_there_are(tmp_path):
    task = bias_in_bios(write_lines(tmp_path / "bios.jsonl", bios(8)))
    with pytest.raises(ValueError, match="texts of .* left for the test part, which asks for 100"):
        task.draw(0, Counts(4, 4, 400))
    with pytest.raises(ValueError, match="ambiguous=6: give a multiple of 4"):
        Counts(6)
    with pytest.raises(FileNotFoundError, match="no file nowhere.jsonl"):
        bias_in_bios("nowhere.jsonl")
    with pytest.raises(ValueError, match='confound=\'age\': use "gender" or "tense"'):
        biographies("age")  # type: ignore[arg-type]


# numbers


def test_measures_by_hand():
    label, attribute = np.asarray([0, 0, 0, 0, 1, 1, 1, 1]), np.asarray([0, 0, 1, 1, 0, 0, 1, 1])
    found = measured(np.asarray([0, 0, 1, 0, 0, 0, 1, 1]), label, attribute)
    assert found.profession == 62.5 and found.attribute == 87.5
    assert found.groups.tolist() == [100, 50, 0, 100] and found.worst == 0 and found.size == 2
    with pytest.raises(ValueError, match="a group of the test has no texts"):
        measured(label, label, label)
    assert binomial(50.0, 100) == pytest.approx(5.0)
    assert over_seeds([98.0, 100.0, 100.0]).high <= 100


def test_concepts_are_cosines_about_a_centre():
    rng = np.random.default_rng(0)
    x, concepts = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    found = cosines(x, x.mean(axis=0), concepts)
    moved = x[2] - x.mean(axis=0)
    hand = moved @ concepts[1] / np.sqrt((moved @ moved) * (concepts[1] @ concepts[1]))
    assert found.shape == (5, 3) and found[2, 1] == pytest.approx(hand)


def test_a_head_learns_what_is_linear_whatever_its_scale():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 5)) + np.outer(2 * y - 1, [2, 0, 0, 0, 0])
    answers = [said(fit(scale * x + 7, y, seed=1), scale * x + 7) for scale in (1.0, 1e3)]
    np.testing.assert_array_equal(*answers)
    assert (answers[0] == y).mean() > 0.9


# runs


def case():
    """A random model with two spliced places, rows of two lengths, and a head behind them."""
    model, kinds = tiny("grouped"), dictionaries(16)
    basis = Basis.of(model, {"mlp_out.0": kinds["topk"], "resid_post.1": kinds["relu"]})
    rng = np.random.default_rng(0)
    mask = np.ones((3, 7), bool)
    mask[0, :2] = False
    rows = Rows(rng.integers(0, 50, (3, 7)).astype(np.int32), mask)
    weights = jnp.asarray(rng.normal(size=16), jnp.float32)
    head = Head(weights, jnp.asarray(0.3), jnp.zeros(16), jnp.asarray(2.0))
    return model, basis, rows, head, Pool(jnp.asarray(jnp.inf), Node("resid_post", 2))


@pytest.mark.slow
def test_exact_scores_of_a_margin_are_what_ablating_does():
    """The engine patches one feature at all positions; so does an ablation."""
    model, basis, rows, head, pool = case()
    label = np.asarray([1, 0, 1])
    options = {"patch": "zero", "by_position": False, "method": "exact"}
    scores = nodes(model, prompts_of(rows, label), basis, Margin(head, pool), **options)
    stream = below(model, rows, 0)

    def margin(drops) -> np.ndarray:
        x = pooled(model, rows, stream, basis, pool, drops)
        return (2 * label - 1) * np.asarray(head(jnp.asarray(x)))

    close(scores.base, margin(None), 1e-5)
    for node in scores.nodes(scores.active[[0, 3, -2]]):
        if not node.is_error:
            change = margin(drops_of(basis, [node])) - margin(None)
            column = scores.layout.column(node)
            close(scores.raw[:, [column]].toarray().ravel(), change, 2e-4)
    assert scores.sign == -1


def test_neurons_lie_about_their_means():
    model, basis, rows, *_ = case()
    neurons = neurons_of(model, rows, below(model, rows, 0), basis, batch=2)
    tokens, mask = jnp.asarray(rows.tokens), jnp.asarray(rows.mask)
    _, records = run(model, tokens, Sites(mlp_out=Read(), resid_post=Read()), mask=mask)
    live = rows.mask & (rows.mask.cumsum(axis=1) > 1)
    for dictionary, x in zip(
        neurons.dictionaries, (records.mlp_out[0], records.resid_post[1]), strict=True
    ):
        close(dictionary.centre, np.asarray(x)[live].mean(axis=0))
        close(
            dictionary.decode(dictionary.encode(x) * 0), np.broadcast_to(dictionary.centre, x.shape)
        )


def test_errors_are_no_features_to_ablate():
    model, basis, *_ = case()
    with pytest.raises(ValueError, match="errors are kept, leave it out"):
        drops_of(basis, [FeatureNode("mlp_out", 0, "error")])
    with pytest.raises(ValueError, match="no node"):
        drops_of(basis, [FeatureNode("mlp_out", 2, 0)])


def test_where_the_head_reads():
    model, basis, *_ = case()
    assert placed(model, basis)[0] == Node("resid_post", 2)
    head, kept = placed(model, basis, "resid_post.1")
    assert head == Node("resid_post", 1) and kept.places == (Node("mlp_out", 0),)
    for place, message in (
        ("mlp_out.1", "give a residual, as in resid_post"),
        ("resid_post.9", "give a residual"),
        ("resid_pre.0", "no dictionary lies below resid_pre.0"),
    ):
        with pytest.raises(ValueError, match=message):
            placed(model, basis, place)


# the planted model


def test_ablating_the_planted_feature_takes_away_its_axis_and_nothing_else(model):
    basis, split = planted_basis(model), planted_task().draw(0, COUNTS).test
    rows = rows_of(Tokens(), split.texts, length_of(Tokens(), split.texts, 48))
    table = embeddings()
    hand = np.stack([table[Tokens().encode(text)[1:]].mean(axis=0) for text in split.texts])
    pool = Pool(jnp.asarray(jnp.inf), Node("resid_post", 1))
    stream = below(model, rows, 0)
    close(pooled(model, rows, stream, basis, pool), hand, 1e-6)
    both = [FeatureNode("resid_post", 0, PRONOUN_AXIS + i * WIDTH) for i in range(2)]
    found = pooled(model, rows, stream, basis, pool, drops_of(basis, both))
    hand[:, PRONOUN_AXIS] = 0
    close(found, hand, 1e-6)


def test_deleted_words_leave_the_mean_of_the_others(model):
    split = planted_task().draw(0, COUNTS).test
    basis, table = planted_basis(model), embeddings()
    rows = rows_of(Tokens(), split.without(PRONOUNS).texts, 8)
    left = [[t for t in text.split()[1:] if t not in PRONOUNS] for text in split.texts]
    hand = np.stack([table[Tokens().encode(" ".join(words))].mean(axis=0) for words in left])
    pool = Pool(jnp.asarray(jnp.inf), Node("resid_post", 1))
    close(pooled(model, rows, below(model, rows, 0), basis, pool), hand, 1e-6)


def test_shift_restores_the_head(study_of):
    found, _ = study_of
    rows = {row["method"]: row for row in found.result.table if row["section"] == "shift"}
    assert set(rows) == set(METHODS)
    assert rows["original"]["worst"] < 10 and rows["original"]["attribute"] > 90
    for method in ("SHIFT", "SHIFT + retrain", "oracle", "word deletion", "feature skyline"):
        assert rows[method]["worst"] == 100 and rows[method]["attribute"] == 50, method
    assert rows["SHIFT, lowest places left out"]["worst"] == 100
    assert rows["SHIFT, lowest places alone"]["worst"] == rows["original"]["worst"], "MLPs are 0"
    assert rows["neuron skyline"]["worst"] == 100
    assert rows["random features"]["worst"] < 60
    assert rows["SHIFT"]["seeds"] == 2 and rows["SHIFT"]["group"] == 6
    for row in rows.values():
        assert row["worst low"] <= row["worst"] <= row["worst high"]


def test_the_judge_goes_by_the_words_at_peaks(study_of):
    found, _ = study_of
    page = found.pages[0]
    gone = {(s.node.index % WIDTH, s.verdict.ablate) for s in page.features}
    assert (PRONOUN_AXIS, True) in gone and (LABEL_AXIS, False) in gone
    assert (PRONOUN_AXIS, False) not in gone and (LABEL_AXIS, True) not in gone
    features = [row for row in found.result.table if row["section"] == "feature"]
    assert {row["verdict"] for row in features} == {"ablate", "keep"}
    assert any(row["peaks"].startswith("she (10)") for row in features)


def test_a_study_goes_on_where_it_was(study_of, model, monkeypatch):
    found, folder = study_of
    basis, task = planted_basis(model), planted_task()

    def never(*_):
        raise AssertionError("done before")

    monkeypatch.setattr(study, "found", never)
    monkeypatch.setattr(study, "judged", never)
    again = study_shift(model, Tokens(), basis, folder, tasks=[task], sizes=SIZES)
    assert again.result.table == found.result.table
    assert again.result.name == found.result.name
    with pytest.raises(AssertionError, match="done before"):
        study_shift(model, Tokens(), basis, folder, tasks=[task], sizes=SIZES, sink_norm=50.0)


def test_decisions_take_the_place_of_the_word_list(study_of, model, tmp_path):
    found, folder = study_of
    names = [str(shown.node) for shown in found.pages[0].features]
    kept = Decisions("planted", "toy", dict.fromkeys(names, False))
    path = write_decisions(kept, tmp_path / "decisions.json")
    read = read_decisions(path)
    assert read.ablate == kept.ablate and read.key == kept.key
    options = {"tasks": [planted_task()], "sizes": SIZES}
    basis = planted_basis(model)
    again = study_shift(model, Tokens(), basis, folder, decisions=[read], **options)
    rows = {row["method"]: row for row in again.result.table if row["section"] == "shift"}
    assert rows["SHIFT"]["worst"] == rows["original"]["worst"] < 10
    assert "no feature was judged to be about the attribute" in " ".join(again.result.notes)
    few = Decisions("planted", "toy", {})
    with pytest.raises(ValueError, match="decisions.json says nothing of resid_post"):
        study_shift(model, Tokens(), basis, folder, decisions=[few], **options)
    for other, message in (("gender", "is on 'gender', run are planted"), ("planted", "is about")):
        with pytest.raises(ValueError, match=message):
            wrong = Decisions(other, "gpt2", {})
            study_shift(model, Tokens(), basis, folder, decisions=[wrong], **options)


@pytest.mark.parametrize(
    "text, message",
    [
        ("no json", "holds no decisions"),
        ('{"version": 2, "decisions": {}}', "version 2"),
        ('{"version": 1, "task": "a", "model": "b", "decisions": {"x": "keep"}}', "no node 'x'"),
        (
            '{"version": 1, "task": "a", "model": "b", "decisions": {"mlp_out.1/2": "drop"}}',
            "'drop', where",
        ),
    ],
)
def test_files_that_hold_no_decisions(text, message, tmp_path):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_decisions(tmp_path / "d.json")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_decisions(tmp_path / "none.json")


def test_words_are_put_together_from_tokens():
    words = (" She", " super", "vis", "es", ",", " and")
    assert Context(words, np.zeros(6), 2).word == "supervises"
    assert Context(words, np.zeros(6), 0).word == "she"
    judge, node = WordList({"she"}), FeatureNode("mlp_out", 0, 1)
    contexts = [Context(words, np.zeros(6), peak) for peak in (0, 0, 2)]
    assert judge(node, contexts).ablate and not judge(node, contexts[1:] + contexts[2:]).ablate
    assert not judge(node, []).ablate


def test_activity_is_what_the_dictionary_says():
    model, basis, rows, *_ = case()
    found = activity(model, Tokens(), Rows(rows.tokens % 20, rows.mask), basis, batch=2)
    tokens, mask = jnp.asarray(rows.tokens % 20), jnp.asarray(rows.mask)
    _, records = run(model, tokens, Sites(mlp_out=Read(), resid_post=Read()), mask=mask)
    live = rows.mask & (rows.mask.cumsum(axis=1) > 1)
    hand = np.asarray(basis.dictionaries[0].encode(records.mlp_out[0]))[..., 4] * live
    close(found.of(FeatureNode("mlp_out", 0, 4)), hand, 1e-5)


# results


def test_a_study_is_drawn_written_and_read_back(study_of, tmp_path):
    found, _ = study_of
    written = {path.name for path in viz.write(found.result, tmp_path)}
    assert {"result.json", "table.csv", "shift.png", "index.html"} <= written
    again = experiments.load_result(tmp_path)
    assert again.table == found.result.table
    assert again.numbers["planted/SHIFT/worst"].n == 2
    published = [row for row in again.table if row["section"] == "published"]
    assert {row["model"] for row in published} == {"Pythia-70m", "Gemma-2-2B"}
    assert all("notebook" in row["source"] for row in published)
    claims = {row["claim"]: row for row in again.table if row["section"] == "claim"}
    assert claims["planted: SHIFT frees the head"]["verdict"] == "supported"
    page = viz.write_judge(found.pages[0], tmp_path / "judge.html").read_text(encoding="utf-8")
    data = page.split('id="data">')[1].split("</script>")[0]
    features = json.loads(data)["features"]
    assert [f["n"] for f in features] == [str(s.node) for s in found.pages[0].features]
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def own_suite(folder):
    """The planted dictionaries as files, and a small Bias in Bios in the planted words."""
    for place in ("resid_post.0", "resid_post.1"):
        card = {"place": place, "model": "toy", "sink_norm": 1e3}
        save(axes_dictionary(), folder / "own" / f"{place}.safetensors", card)
    rows = [
        {"hard_text": f"the {a} {b} f{i % 10}", "profession": p, "gender": g}
        for i in range(6)
        for p, a in ((21, "paper"), (13, "ward"))
        for g, b in enumerate(PRONOUNS)
    ]
    write_lines(folder / "bios.jsonl", rows)


FEW = ["--ambiguous", "4", "--balanced", "8", "--test", "8", "--seeds", "1", "--scored", "4"]
COMMAND = ["features", "shift", "--suite", "own", "--bios", "bios.jsonl", *FEW]


def test_the_command_asks_for_a_study_and_writes_its_page(
    study_of, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_model", lambda name: (model, Tokens()))
    own_suite(tmp_path)
    asked = {}

    def study_shift(model, tokenizer, basis, folder, **options):
        asked.update(options, places=basis.places, norms=basis.sink_norms)
        return study_of[0]

    monkeypatch.setattr(_features_shift, "study_shift", study_shift)
    main([*COMMAND, "--features", "4", "--method", "ig"])
    jax.config.update("jax_compilation_cache_dir", None)
    assert asked["places"] == (Node("resid_post", 0), Node("resid_post", 1))
    assert np.asarray(asked["norms"]).tolist() == [1e3, 1e3]
    assert asked["sizes"].counts == Counts(4, 8, 8) and asked["sizes"].seeds == 1
    assert asked["sizes"].scoring == Scoring("ig", texts=4, features=4)
    assert [task.name for task in asked["tasks"]] == ["bias-in-bios"]
    told = capsys.readouterr().out
    assert "SHIFT + retrain" in told and "Pythia-70m" in told
    (page,) = (tmp_path / "runs").glob("shift-*/judge-planted.html")
    assert page.with_name("result.json").is_file()


@pytest.mark.slow
def test_the_command_runs_a_study(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_model", lambda name: (model, Tokens()))
    monkeypatch.setattr(study, "_setting", small_setting)
    own_suite(tmp_path)
    main(COMMAND)
    jax.config.update("jax_compilation_cache_dir", None)
    assert "SHIFT + retrain" in capsys.readouterr().out
    assert list((tmp_path / "runs").glob("shift-*/judge-bias-in-bios.html"))


def small_setting(model, tokenizer, basis, pool, task, sizes, above):
    """The same with concepts that the planted tokenizer knows."""
    own = dataclasses.replace(task, concepts=("paper", "ward", "pulse"))
    counts = sizes.counts
    return study.Setting(model, tokenizer, basis, pool, own, counts, sizes.scoring, 8, above)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--suite", "nowhere"], "no folder nowhere"),
        (["--test", "6"], "test=6: give a multiple of 4"),
        (["--seeds", "0"], "seeds=0: give 1 or more"),
        (["--features", "0"], "features=0: give 1 or more"),
        (["--bios", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["--decisions", "nowhere.json"], "no file nowhere.json"),
    ],
)
def test_what_the_command_refuses(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(["features", "shift", *arguments])
    jax.config.update("jax_compilation_cache_dir", None)
