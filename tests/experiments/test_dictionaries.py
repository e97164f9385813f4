"""Judging, probing, showing and explaining dictionaries, on small random models."""

import dataclasses
import gzip
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ReLUDictionary, close, dictionaries, tiny
from random_text import LENGTH, Words, made

from jaxcirc import experiments, models, viz
from jaxcirc.cli import main
from jaxcirc.cli._sae_judge import Subject
from jaxcirc.dictionaries import PCA, Heads, Identity, TopK, Transcoder, init_coder, init_crosscoder
from jaxcirc.dictionaries.formats import save
from jaxcirc.dictionaries.train import Contexts
from jaxcirc.experiments.dictionaries import (
    Annotation,
    Look,
    OtherWeights,
    Reading,
    collect,
    collect_all,
    evaluate,
    explain,
    feature_json,
    feature_page,
    probe,
    read_annotations,
    write_annotations,
    write_feature_json,
)
from jaxcirc.experiments.dictionaries._baselines import moments
from jaxcirc.experiments.dictionaries._judge import nearest
from jaxcirc.experiments.dictionaries._ngrams import fit_ngrams
from jaxcirc.experiments.dictionaries._probe import _pooled, logistic
from jaxcirc.experiments.dictionaries._runs import located, losses
from jaxcirc.taps import AbstractEdit, ByLayer, Read, Set, Sites, run

BATCH, PLACE = 7, "resid_post.1"


def read(model, contexts: Contexts, layer: int = 1) -> np.ndarray:
    """`resid_post` of a layer, by a run of its own."""
    mask = jnp.asarray(contexts.mask)
    _, records = run(model, jnp.asarray(contexts.tokens), Sites(resid_post=Read()), mask=mask)
    return np.asarray(records.resid_post[layer])


@pytest.fixture(scope="module")
def model():
    return tiny("grouped")


@pytest.fixture(scope="module")
def contexts():
    return made()


@pytest.fixture(scope="module")
def sink(model, contexts) -> float:
    """A norm that a few tokens exceed."""
    return float(np.quantile(np.linalg.norm(read(model, contexts), axis=-1), 0.9))


@pytest.fixture(scope="module")
def keep(model, contexts, sink) -> np.ndarray:
    """Tokens that count, said again."""
    found = contexts.mask & (np.linalg.norm(read(model, contexts), axis=-1) <= sink)
    found[:, 0] = False
    return found


@pytest.fixture(scope="module")
def judged(model, contexts, sink):
    """A result whose baselines know the very text they are judged on."""
    dictionary = dictionaries(16)["topk"]
    return evaluate(
        model,
        dictionary,
        contexts,
        PLACE,
        sink_norm=sink,
        reference=contexts,
        components=(2, 5),
        batch=BATCH,
    )


class Swap(AbstractEdit):
    """x replaced by what a dictionary makes of it, at some tokens."""

    dictionary: eqx.Module
    where: jax.Array

    def __call__(self, x):
        found = self.dictionary.decode(self.dictionary.encode(x))
        return jnp.where(self.where[..., None], found, x), None


def entropies(model, contexts: Contexts, edits: Sites = Sites()) -> np.ndarray:  # noqa: B008
    """Cross-entropy of every token with a real one after it."""
    tokens, mask = jnp.asarray(contexts.tokens), contexts.mask
    logits, _ = run(model, tokens, edits, mask=jnp.asarray(mask))
    told = jax.nn.log_softmax(logits)[:, :-1]
    found = -np.take_along_axis(np.asarray(told), contexts.tokens[:, 1:, None], 2)[..., 0]
    return found[mask[:, :-1] & mask[:, 1:]]


def test_nats_are_those_of_a_run_with_the_activation_replaced(model, contexts, keep, judged):
    swap = Swap(dictionaries(16)["topk"], jnp.asarray(keep))
    spliced = entropies(model, contexts, Sites(resid_post=ByLayer((swap,), (1,))))
    clean = entropies(model, contexts)
    close(judged.numbers["cross_entropy"].value, clean.mean())
    assert abs(judged.numbers["nats"].value - (spliced - clean).mean()) < 2e-6
    assert judged.numbers["nats"].n == len(clean) and judged.numbers["nats"].clusters == 7
    assert judged.numbers["kl"].value > 0


def test_features_are_counted_over_tokens_that_are_kept(model, contexts, keep, judged):
    dictionary = dictionaries(16)["topk"]
    x = read(model, contexts)[keep]
    features, found = (
        np.asarray(dictionary.encode(x)),
        np.asarray(dictionary.decode(dictionary.encode(x))),
    )
    assert judged.facts["tokens"] == len(x)
    close(judged.arrays["density"], (features != 0).mean(axis=0))
    close(judged.numbers["l0"].value, (features != 0).sum(axis=1).mean())
    assert judged.numbers["dead"].value == ((features != 0).sum(axis=0) == 0).mean()
    error, spread = np.square(x - found).sum(), np.square(x - x.mean(axis=0)).sum()
    close(judged.numbers["fve"].value, 1 - error / spread)
    cosines = (x * found).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(found, axis=1)
    close(judged.numbers["cosine"].value, np.nan_to_num(cosines).mean())


def test_pca_explains_what_its_eigenvalues_say(model, contexts, keep, judged):
    values = np.linalg.eigvalsh(np.cov(read(model, contexts)[keep].T))[::-1]
    for n in (2, 5):
        share = values[:n].sum() / values.sum()
        close(judged.numbers[f"pca_{n}_fve"].value, share, 1e-4)
    names = [row["dictionary"] for row in judged.table]
    assert names == ["dictionary", "pca-2", "pca-5", "random"]
    assert judged.numbers["random_l0"].value == pytest.approx(2, abs=0.05)


def test_predicting_the_mean_explains_exactly_nothing(model, contexts, sink):
    where = located(model, Identity(16), PLACE, sink)
    mean = moments(model, Identity(16), contexts, where, BATCH).mean
    dictionary = PCA(jnp.asarray(mean, jnp.float32), jnp.zeros((1, 16)))
    options = {"sink_norm": sink, "reference": contexts, "components": (), "batch": BATCH}
    found = evaluate(model, dictionary, contexts, PLACE, **options)
    assert found.numbers["fve"].value == 0 and found.numbers["dead"].value == 1


def test_the_identity_costs_nothing(model, contexts):
    found = evaluate(model, Identity(16), contexts, PLACE, components=(), batch=BATCH).numbers
    assert found["fve"].value == 1 and abs(found["nats"].value) < 1e-6 > found["kl"].value
    assert found["cosine"].value == pytest.approx(1) and found["dense"].value == 1


def test_batches_do_not_matter(model, contexts, sink, judged):
    dictionary = dictionaries(16)["topk"]
    options = {"sink_norm": sink, "reference": contexts, "components": (2, 5)}
    other = evaluate(model, dictionary, contexts, PLACE, batch=5, **options)
    for name in ("nats", "kl", "fve", "l0", "pca_5_nats", "random_fve"):
        assert other.numbers[name].value == pytest.approx(judged.numbers[name].value, abs=2e-5)


def test_default_baselines_are_fitted_on_other_documents(model):
    found = evaluate(model, dictionaries(16)["relu"], made(32), PLACE, components=(2,), batch=8)
    assert found.facts["documents"] == 12 and found.facts["contexts"] == 24
    assert "other tokens" in " ".join(found.notes)


def test_ablations_are_the_ends_of_the_share_recovered():
    """On a model that can do something, so that ablation costs something."""
    model, contexts = induced()
    nothing = PCA(jnp.zeros(model.config.d_model), jnp.zeros((1, model.config.d_model)))
    place = f"resid_post.{model.n_layers - 1}"
    found = evaluate(model, nothing, contexts, place, components=(), batch=8).numbers
    assert found["recovered_zero"].value == 0 and found["nats"].value != 0
    whole = evaluate(model, Identity(model.config.d_model), contexts, place, components=(), batch=8)
    assert whole.numbers["recovered_mean"].value == pytest.approx(1, abs=1e-4)


def induced():
    """A trained model and repeated sequences."""
    from jaxcirc import zoo

    case = zoo.load("induction")
    tokens = np.asarray(case.prompts(24).clean)
    numbers = np.arange(len(tokens))
    return case.model, Contexts(tokens, np.ones_like(tokens, bool), numbers, numbers * 0)


def put(contexts: Contexts, values) -> ByLayer:
    """Values by layer, set at every token but padding and the first of a context."""
    where = contexts.mask.copy()
    where[:, 0] = False
    edits = tuple(Set(value, jnp.asarray(where)[..., None]) for value in values.values())
    return ByLayer(edits, tuple(values))


def test_a_transcoder_is_spliced_where_it_writes(model, contexts):
    inner = TopK(init_coder(jax.random.key(3), 16, 24, centred=False), 2)
    own = Transcoder(inner, jax.random.normal(jax.random.key(4), (16, 16)))
    place, options = "mlp_normed.1>mlp_out.1", {"components": (), "reference": contexts}
    found = evaluate(model, own, contexts, place, batch=BATCH, **options)
    assert found.task == "mlp_normed.1-to-mlp_out.1" and found.numbers["l0"].value <= 2
    tokens, mask = jnp.asarray(contexts.tokens), jnp.asarray(contexts.mask)
    _, records = run(model, tokens, Sites(mlp_normed=Read()), mask=mask)
    edits = Sites(mlp_out=put(contexts, {1: own.transcode(records.mlp_normed[1])}))
    nats = (entropies(model, contexts, edits) - entropies(model, contexts)).mean()
    assert abs(nats) > 1e-3 and abs(found.numbers["nats"].value - nats) < 2e-6


def test_a_crosscoder_is_spliced_at_all_its_sites(model, contexts):
    own = init_crosscoder(jax.random.key(3), n_sites=2, d_in=16, d_dict=24)
    place, options = "resid_post.0+resid_post.2", {"components": (), "reference": contexts}
    found = evaluate(model, own, contexts, place, batch=BATCH, **options)
    x = jnp.stack([jnp.asarray(read(model, contexts, layer)) for layer in (0, 2)], axis=-2)
    made = own.decode(own.encode(x))
    edits = Sites(resid_post=put(contexts, {0: made[..., 0, :], 2: made[..., 1, :]}))
    nats = (entropies(model, contexts, edits) - entropies(model, contexts)).mean()
    assert abs(nats) > 1e-3 and abs(found.numbers["nats"].value - nats) < 2e-6


def test_nearest_directions():
    rows = np.random.default_rng(0).normal(size=(23, 6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(23)
    close(nearest(jnp.asarray(rows, jnp.float32), chunk=5), cosines.max(axis=1))


def test_losses_do_not_depend_on_the_chunk(model):
    streams = jax.random.normal(jax.random.key(0), (3, 2, 6, 16))
    tokens = jax.random.randint(jax.random.key(1), (2, 6), 0, 50)
    whole, parts = (losses(model, streams[0], streams[1:], tokens, chunk=c) for c in (64, 3))
    assert whole.kl.shape == (2, 2, 5)
    jax.tree.map(close, whole, parts)
    same = losses(model, streams[0], streams[:1], tokens)
    assert not np.asarray(same.kl).any() and (same.spliced[0] == same.clean).all()


def transcoder(d_out: int = 16) -> Transcoder:
    return Transcoder(TopK(init_coder(jax.random.key(0), 16, 24, d_out, centred=False), 2))


ACROSS, BOTH = "mlp_normed.1>mlp_out.1", init_crosscoder(jax.random.key(0), 2, 16, 24)

BAD = {
    "transcoder": ({"dictionary": transcoder()}, "a transcoder at resid_post.1: say where it"),
    "sites": ({"place": ACROSS}, "an autoencoder at mlp_normed.1>mlp_out.1: give one site, as mlp"),
    "crosscoder": ({"dictionary": BOTH}, "a crosscoder of 2 sites at resid_post.1: join 2"),
    "heads": ({"dictionary": Heads(Identity(16), 4)}, "give the dictionary inside, heads.inner"),
    "target": ({"dictionary": transcoder(6), "place": ACROSS}, "gives 6 numbers, mlp_out.1 of"),
    "width": ({"dictionary": Identity(9)}, "takes 9 numbers, resid_post.1 of"),
    "site": ({"place": "pattern.1"}, "dictionaries act on sites"),
    "layer": ({"place": "resid_post.7"}, "this model has layers 0..2"),
    "no text": ({"contexts": made().take(slice(0, 0))}, "one context is not enough"),
    "all sinks": ({"sink_norm": 1e-9}, "every token is masked"),
    "other length": (
        {"reference": dataclasses.replace(made(), tokens=np.zeros((2, 3), np.int32))},
        "pack both with length=10",
    ),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(model, contexts, change, message):
    given = {"dictionary": Identity(16), "contexts": contexts, "place": PLACE} | change
    with pytest.raises(ValueError, match=message):
        evaluate(model, **given, components=(), batch=BATCH)


def test_numbers_that_are_not_finite_are_refused(model, contexts):
    broken = ReLUDictionary(jnp.full((16, 24), jnp.nan), jnp.zeros(24))
    with pytest.raises(ValueError, match="not finite"):
        evaluate(model, broken, contexts, PLACE, components=(), batch=BATCH)
    sick = eqx.tree_at(lambda m: m.embed, model, model.embed.at[contexts.tokens[0, 3]].set(jnp.inf))
    with pytest.raises(ValueError, match="check the model's weights"):
        evaluate(sick, Identity(16), contexts, PLACE, components=(), batch=BATCH)


def test_other_weights_are_said(model, contexts):
    card = {"sha256": "ab" * 32, "model": "another", "array": np.zeros(3)}
    options = {"components": (), "batch": BATCH, "card": card}
    line = r"abab.* \(another\), used on .*: FVE 1.000 there\.$"
    with pytest.warns(OtherWeights, match=line) as said:
        found = evaluate(model, Identity(16), contexts, PLACE, **options)
    assert found.notes[0] == str(said[0].message) and "\n" not in found.notes[0]
    assert f"{model.config.sha256[:12]}... ({model.config.name})" in found.notes[0]
    assert found.facts["card"] == {"sha256": "ab" * 32, "model": "another"}


def test_a_result_is_drawn_and_read_back(judged, tmp_path):
    written = {path.name for path in viz.write(judged, tmp_path)}
    assert {"dictionary.png", "index.html", "result.json"} <= written
    assert experiments.load_result(tmp_path).numbers["nats"] == judged.numbers["nats"]
    text = (tmp_path / "index.html").read_text()
    assert "nats added by the splice" in text and "logit difference" not in text


# Probing.


def labelled() -> tuple[Contexts, np.ndarray]:
    """Contexts that hold token 7 or do not, a document each."""
    tokens = np.random.default_rng(0).integers(8, 50, (60, LENGTH)).astype(np.int32)
    labels = np.arange(60) % 2
    tokens[labels == 1, 4:6] = 7
    numbers = np.arange(60)
    return Contexts(tokens, np.ones_like(tokens, bool), numbers, numbers * 0), labels


def test_a_feature_that_is_the_label_is_found_alone(model):
    contexts, labels = labelled()
    rows = np.random.default_rng(1).normal(size=(20, 16)) * 0.02
    rows[11] = np.asarray(model.embed[7]) / np.linalg.norm(model.embed[7])
    told = PCA(jnp.zeros(16), jnp.asarray(rows, jnp.float32))
    found = probe(model, told, contexts, labels, "resid_pre.0", ks=(1, 3), batch=20)
    first = found.table[0]
    assert first["k"] == 1 and first["features"] == "11"
    assert first["accuracy"] > 0.9 > 0.8 > first["chance"]
    assert found.numbers["dense"].n == 18 and first["coordinates"] < first["accuracy"]


def test_labels_of_nothing_cannot_be_told(model):
    contexts, _ = labelled()
    labels = np.random.default_rng(5).integers(0, 2, len(contexts))
    own = dictionaries(16)["relu"]
    found = probe(model, own, contexts, labels, "resid_pre.0", ks=(2,), batch=20).numbers
    assert all(found[name].low < 0.6 for name in ("dictionary_2", "coordinates_2", "dense"))


@pytest.mark.parametrize("pool", ["mean", "max", "last"])
def test_features_of_a_context_are_pooled_over_its_kept_tokens(model, contexts, sink, keep, pool):
    own, x = dictionaries(16)["relu"], read(model, contexts)
    coded, raw = _pooled(model, own, contexts, PLACE, sink, pool, BATCH)
    for found, each in ((coded, np.asarray(own.encode(x))), (raw, x)):
        rows = [row[kept] for row, kept in zip(each, keep, strict=True)]
        over = {"mean": lambda row: row.mean(0), "max": lambda row: row.max(0)}
        close(found, np.stack([over.get(pool, lambda row: row[-1])(row) for row in rows]))


def test_the_regression_is_at_its_minimum():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (200, 3))
    y = (x @ [1.0, -2.0, 0.0] + 2 + rng.logistic(size=200) > 0).astype(int)
    weights, bias = logistic(x, y)

    def loss(w, b):
        sign = 2 * y - 1
        ridge = 1e-3 / 2 * np.square(w * x.std(axis=0)).sum()
        return np.logaddexp(0, -sign * (x @ w + b)).mean() + ridge

    best = loss(weights, bias)
    for i in range(4):
        for move in (-0.02, 0.02):
            step = np.eye(4)[i] * move
            assert loss(weights + step[:3], bias + step[3]) > best
    assert weights[0] > 0.5 and weights[1] < -1


def test_probes_refuse_what_they_cannot_split(model, contexts):
    with pytest.raises(ValueError, match="give one for each of 14"):
        probe(model, Identity(16), contexts, [0, 1], PLACE)
    with pytest.raises(ValueError, match="labels of 3 kinds"):
        probe(model, Identity(16), contexts, np.arange(14) % 3, PLACE)
    with pytest.raises(ValueError, match="use one of mean, max, last"):
        probe(model, Identity(16), contexts, np.arange(14) % 2, PLACE, pool="sum")
    with pytest.raises(ValueError, match="too few"):
        probe(model, Identity(16), contexts, np.arange(14) == 3, PLACE)


# Activations and the page.


@pytest.fixture(scope="module")
def codes(model, contexts, sink):
    return collect(model, dictionaries(16)["relu"], contexts, PLACE, sink_norm=sink, batch=BATCH)


def test_codes_are_the_activations_of_kept_tokens(model, contexts, keep, codes):
    found = np.asarray(dictionaries(16)["relu"].encode(read(model, contexts)))
    dense = np.stack([codes.dense(i) for i in range(24)], axis=-1)
    close(dense, np.where(keep[..., None], found, 0))
    close(codes.density, (found[keep] != 0).mean(axis=0))


def test_codes_of_some_features(model, contexts, sink, codes):
    some = collect(
        model,
        dictionaries(16)["relu"],
        contexts,
        PLACE,
        sink_norm=sink,
        features=[9, 2],
        batch=BATCH,
    )
    assert some.features.tolist() == [9, 2]
    close(some.dense(0), codes.dense(9))
    with pytest.raises(ValueError, match="features 0..23"):
        collect(model, dictionaries(16)["relu"], contexts, PLACE, features=[24])


def test_several_readings_share_one_run(model, contexts, sink, codes):
    relu = dictionaries(16)["relu"]
    asked = [Reading(relu, PLACE, sink), Reading(relu, PLACE, sink, [9, 2])]
    whole, some = collect_all(model, asked, contexts, batch=BATCH)
    np.testing.assert_array_equal(whole.value, codes.value)
    close(some.dense(1), codes.dense(2))


@pytest.fixture(scope="module")
def page(model, contexts, sink):
    return feature_page(
        model,
        Words(),
        dictionaries(16)["relu"],
        contexts,
        PLACE,
        sink_norm=sink,
        look=Look(examples=3, quantiles=2, each=2, before=4, after=2, logits=5),
        batch=BATCH,
        annotations=[
            *(Annotation(5, "a rule", place=PLACE), Annotation(5, "fives", place=PLACE)),
            *(Annotation(6, "no", place="z.0"), Annotation(7, "no", model="another")),
        ],
    )


def test_examples_are_the_strongest_contexts_first(page, codes):
    for i, feature in enumerate(page.features):
        dense = codes.dense(i)
        peaks = np.sort(dense.max(axis=1))[::-1]
        assert feature.largest == pytest.approx(peaks[0])
        shown = [e.values[e.peak] for _, group in feature.quantiles for e in group]
        count = min(3, int((peaks > 0).sum()))
        np.testing.assert_array_equal(shown[:count], peaks[:count])
        for name, group in feature.quantiles:
            values = [e.values[e.peak] for e in group]
            assert values == sorted(values, reverse=True), name
        assert sum(feature.histogram) == int((dense > 0).sum())
    assert [feature.note for feature in page.features[5:8]] == ["fives", "", ""]


def test_examples_show_the_text_around_the_peak(page, contexts, codes):
    for i, feature in enumerate(page.features):
        for _, group in feature.quantiles:
            for example in group:
                row = page.tokens[example.context]
                (own,) = np.flatnonzero((contexts.tokens == row).all(axis=1))
                part = slice(example.start, example.start + len(example.values))
                np.testing.assert_array_equal(example.values, codes.dense(i)[own, part])
                assert contexts.mask[own, part].all() and len(example.values) <= 7


def test_logits_are_those_of_the_direction(model, page):
    """The slope of centred logits along the direction, at a final norm of scale 1."""
    gain = np.asarray(model.final_norm.weight) + model.final_norm.offset
    directions = np.asarray(dictionaries(16)["relu"].directions)
    logits = directions * gain @ np.asarray(model.embed).T
    logits -= logits.mean(axis=1, keepdims=True)
    for i, feature in enumerate(page.features):
        order = np.argsort(-logits[i])
        assert [word for word, _ in feature.top] == [f" {token}" for token in order[:5]]
        assert [word for word, _ in feature.bottom] == [f" {t}" for t in order[::-1][:5]]
        close([value for _, value in feature.top], logits[i][order[:5]])


def test_features_become_json_that_viewers_read(page, tmp_path):
    path = write_feature_json(page, tmp_path / "features.jsonl.gz")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    records = [json.loads(line) for line in lines]
    assert records == json.loads(json.dumps(list(feature_json(page))))
    five = records[5]
    assert five["index"] == 5 and five["explanation"] == "fives"
    assert five["examples_quantiles"][0]["quantile_name"] == "Top activations"
    example = five["examples_quantiles"][0]["examples"][0]
    assert len(example["tokens"]) == len(example["tokens_acts_list"])
    best = max(example["tokens_acts_list"])
    assert example["tokens_acts_list"][example["train_token_ind"]] == best == five["act_max"]
    assert len(five["top_logits"]) == len(five["bottom_logits"]) == 5
    again = write_feature_json(page, tmp_path / "again.jsonl.gz")
    assert again.read_bytes() == path.read_bytes()


def test_annotations_go_out_and_come_in(tmp_path):
    notes = [Annotation(3, 'days "of" the week\n', "m", PLACE, "me", 0.9), Annotation(1, "é")]
    path = write_annotations(notes, tmp_path / "new" / "notes.jsonl")
    assert read_annotations(path) == notes
    path.write_text('{"feature": 2, "text": "x", "other": 1}\n\n{"text": "no number"}\n')
    with pytest.raises(ValueError, match="notes.jsonl, line 3: write"):
        read_annotations(path)


# Explanations.


def spoken(n: int = 120) -> tuple[Contexts, np.ndarray]:
    """Contexts, and activations of three features: on token 3; on 5 after 4; on chance."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, (n, 8)).astype(np.int32)
    numbers = np.arange(n)
    contexts = Contexts(tokens, np.ones_like(tokens, bool), numbers, numbers * 0)
    pairs = np.zeros_like(tokens, bool)
    pairs[:, 1:] = (tokens[:, 1:] == 5) & (tokens[:, :-1] == 4)
    values = np.stack([tokens == 3, pairs, rng.random(tokens.shape) < 0.05], axis=-1)
    values[:, 0] = False
    return contexts, values.astype(np.float32)


def codes_of(contexts: Contexts, values: np.ndarray):
    """`Codes` of given activations."""
    from jaxcirc.experiments.dictionaries import Codes

    feature, context, pos = np.nonzero(values.transpose(2, 0, 1))
    starts = np.searchsorted(feature, np.arange(values.shape[2] + 1))
    found = values[context, pos, feature]
    numbers = np.arange(values.shape[2])
    return Codes(contexts, numbers, starts, context, pos, found, int(contexts.mask.sum()))


def test_rules_tell_what_tokens_tell(model):
    codes = codes_of(*spoken())
    found = explain(model, Words(), codes, PLACE, window=4, least=2)
    rows = {row["feature"]: row for row in found.table}
    assert rows[0]["AUROC"] == 1 and rows[0]["explanation"].startswith("active on ' 3'")
    assert rows[1]["AUROC"] > 0.95 and "' 4 5'" in rows[1]["explanation"]
    assert rows[2]["AUROC"] < 0.75
    assert all(row["shuffled"] < 0.75 for row in found.table)
    assert found.numbers["auroc"].value > found.numbers["shuffled"].value


def test_explainers_and_scorers_can_be_plugged_in(model):
    seen = []

    class Told:
        def explain(self, feature, windows):
            seen.append((feature, windows.text(0)))
            return "the number three"

        def score(self, explanation, windows):
            assert explanation == "the number three"
            return (windows.tokens[:, 1:] == 3).any(axis=1)

    codes = codes_of(*spoken())
    found = explain(model, Words(), codes, PLACE, explainer=Told(), scorer=Told(), window=8)
    rows = {row["feature"]: row for row in found.table}
    assert rows[0]["AUROC"] == 1 and rows[0]["explanation"] == "the number three"
    assert found.facts["explainer"] == "Told" and seen[0][1].startswith(" ")

    class Wrong(Told):
        def score(self, explanation, windows):
            return np.zeros(3)

    with pytest.raises(ValueError, match="give one number for each of"):
        explain(model, Words(), codes, PLACE, explainer=Told(), scorer=Wrong())
    with pytest.raises(ValueError, match="active in 1000 windows"):
        explain(model, Words(), codes, PLACE, least=1000)


def test_longer_rules_back_off_to_shorter_ones():
    tokens = np.asarray([[1, 2, 3, 2], [4, 2, 1, 2]])
    active = np.asarray([[0, 1, 0, 0], [0, 0, 0, 1]], bool)
    rules = fit_ngrams(tokens, active, np.ones_like(active), str, order=2)
    assert rules.density == 0.25 and rules.seen[(2,)] == 4 and rules.active[(1, 2)] == 2
    one = (2 + 0.25) / (4 + 1)
    assert rules.chance(np.asarray([9, 2]), 1) == pytest.approx(one)
    assert rules.chance(np.asarray([1, 2]), 1) == pytest.approx((2 + one) / (2 + 1))
    assert rules.chance(np.asarray([7]), 0) == 0.25


# The command line.


@pytest.fixture
def trained(model, tmp_path, monkeypatch):
    """A dictionary's file, a folder of text, and the model under the card's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_model", lambda name: {"tiny": (model, Words())}[name])
    card = {"model": "tiny", "site": "resid_post", "layer": 1, "sink_norm": 1e3, "context": 8}
    dictionary = TopK(init_coder(jax.random.key(0), 16, 24), 3)
    texts = tmp_path / "text"
    texts.mkdir()
    rng = np.random.default_rng(0)
    lines = [{"text": " ".join(map(str, rng.integers(1, 50, 40)))} for _ in range(12)]
    (texts / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield save(dictionary, tmp_path / "d.safetensors", card), texts
    jax.config.update("jax_compilation_cache_dir", None)


def test_eval_writes_a_result(trained, tmp_path, capsys):
    path, texts = trained
    main(["sae", "eval", str(path), "--text", str(texts), "--tokens", "160", "--components", "2"])
    (folder,) = (tmp_path / "runs").iterdir()
    result = experiments.load_result(folder)
    assert result.kind == "dictionary" and result.facts["place"] == PLACE
    assert result.facts["context"] == 8 and result.facts["sink_norm"] == {PLACE: 1e3}
    assert "pca-2" in capsys.readouterr().out


def test_page_writes_html_and_json(trained, tmp_path):
    path, texts = trained
    given = ["sae", "page", str(path), "--text", str(texts), "--tokens", "400"]
    main(given)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == f"features-{Subject(path).name}"
    assert "explanation" not in saved(folder)[1]
    people = [Annotation(i, "said by hand") for i in range(0, 24, 2)]
    notes = write_annotations(people, folder / "annotations.jsonl")
    main([*given, "--notes", str(notes), "--explain", "24"])
    assert read_annotations(notes) == people
    rules = {note.feature: note for note in read_annotations(folder / "explanations.jsonl")}
    assert {note.by for note in rules.values()} == {"n-gram rules"} and len(rules) > 12
    shown = [each.get("explanation") for each in saved(folder)]
    told = [rules[i].text if i in rules else None for i in range(24)]
    assert shown == ["said by hand" if i % 2 == 0 else told[i] for i in range(24)]
    assert "said by hand" in (folder / "features.html").read_text()


def saved(folder) -> list[dict]:
    """The features written beside a page."""
    lines = gzip.decompress((folder / "features.jsonl.gz").read_bytes()).splitlines()
    return [json.loads(line) for line in lines]


def test_folders_of_one_name_are_told_apart(tmp_path):
    for name in ("a/layers.10", "a/layers.11", "b/layers.10"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "resid_post.12.safetensors").touch()
    folders = [path for path in tmp_path.rglob("*") if "." in path.name]
    names = [Subject(path).name for path in sorted(folders)]
    starts = [name.rpartition("-")[0] for name in names]
    assert starts == ["layers.10", "layers.11", "layers.10", "resid_post.12"]
    assert len(set(names)) == 4 and Subject(Path("suite/resid_post.3")).name == "suite-resid_post.3"


def test_a_file_that_names_no_place_is_asked_for_one(trained, tmp_path):
    dictionary = TopK(init_coder(jax.random.key(0), 16, 24), 3)
    path = save(dictionary, tmp_path / "bare.safetensors", {"model": "tiny"})
    with pytest.raises(SystemExit, match="--place resid_post.12"):
        main(["sae", "eval", str(path), "--text", str(trained[1])])
