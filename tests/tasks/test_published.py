"""Published forms: tiny files of the same shape, made here; errors name the line and the field."""

import json

import numpy as np
import pytest

from jaxcirc.tasks import (
    Drop,
    from_auto_circuit,
    from_eap_ig,
    from_feature_circuits,
    from_mib,
)

LINE = {
    "clean_prefix": "The cooks near the tree",
    "patch_prefix": "The cook near the tree",
    "clean_answer": " are",
    "patch_answer": " is",
    "case": "plural_singular",
}
PROMPT = {
    "clean": "So Ann met Bob, Bob told",
    "corrupt": "So Ann met Bob, Cid told",
    "answers": [" Ann"],
    "wrong_answers": [" Bob", " Cid"],
}
IOI = (
    ",clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n"
    '7,"So, Ann and Bob met. Bob told","So, Ann and Bob met. Cid told",'
    '"So, Ann and Bob met. Ann told",11,12\n'
)
YEARS = "clean,corrupted,label\nFrom 1652 to 16,From 1601 to 16,52\n"
MIB = {
    "templates": [
        "So {name_A} and {name_B} met at the {place}. {name_C} gave a {object} to",
        "{name_A} saw {name_B} with an {object}. {name_C} spoke to",
        "So {name_A} and {name_B} sat together. {name_C} spoke to",
    ],
    "names": ["Ann", "Bob", "Cid", "Dan", "Eve", "Jo-Lee", "Fay"],
    "places": ["lake", "farm"],
    "objects": ["pen", "cap"],
}


def write(path, *lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    return path


def mib(folder, **changes):
    for name, entries in (MIB | changes).items():
        write(folder / f"ioi_{name}.json", entries)
    return folder


def said(ids, tokenizer):
    return [[tokenizer.decode([i]) for i in row] for row in ids.tolist()]


def test_feature_circuits(words, tmp_path):
    unequal = LINE | {"patch_prefix": "The cook near the big tree"}
    again = LINE | {"patch_answer": " was", "more": 1}
    path = write(tmp_path / "nounpp.json", LINE, "", unequal, again)
    prompts, drops = from_feature_circuits(words, path)
    assert prompts.texts[0] == (LINE["clean_prefix"], LINE["patch_prefix"])
    assert said(prompts.answers, words) == [[" are"], [" are"]]
    assert said(prompts.wrongs, words) == [[" is"], [" was"]]
    assert prompts.templates.tolist() == [0, 0] and prompts.name == "nounpp"
    assert [drop.line for drop in drops] == [3] and prompts.dropped == 1
    assert drops[0].reason.startswith("clean has 5 tokens")


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 2: not JSON ("),
        ([1], "line 2: not an object"),
        ({"clean_prefix": "a"}, "line 2: no 'patch_prefix': it has 'clean_prefix'"),
        (LINE | {"clean_answer": 3}, "line 2: 'clean_answer' is 3: it must be a string"),
    ],
)
def test_errors_of_feature_circuits(words, tmp_path, line, message):
    path = write(tmp_path / "x.json", LINE, line)
    with pytest.raises(ValueError) as caught:
        from_feature_circuits(words, path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def auto(path, *prompts, **more):
    return write(path, json.dumps({"prompts": list(prompts), **more}, indent=1))


def test_auto_circuit(words, tmp_path):
    long = PROMPT | {"answers": [" Ann-Lee"]}
    path = auto(tmp_path / "ioi.json", PROMPT, long)
    prompts, drops = from_auto_circuit(words, path)
    assert prompts.texts == ((PROMPT["clean"], PROMPT["corrupt"]),) and prompts.spans == {}
    assert said(prompts.wrongs, words) == [[" Bob", " Cid"]]
    assert drops == (Drop(2, drops[0].reason),) and '" Ann-Lee" is 2 tokens' in drops[0].reason


@pytest.mark.parametrize("bos", ["always", "never"])
def test_labels_become_spans_where_they_fit(words_with_bos, tmp_path, bos):
    labels = ["BOS", "So", "IO", "met", "S", ",", "S", "told"]
    columns = {"start": 0, "IO": 2, "S2": 6}
    longer = PROMPT | {
        "clean": "So so Ann met Bob, Bob told",
        "corrupt": "So so Ann met Bob, Al told",
    }
    path = auto(tmp_path / "x.json", PROMPT, longer, seq_labels=labels, word_idxs=columns)
    prompts, _ = from_auto_circuit(words_with_bos, path, bos=bos)
    assert set(prompts.spans) == {"IO", "S2"}
    for span, word in (("IO", " Ann"), ("S2", " Bob")):
        flags = np.asarray(prompts.span(span))
        assert words_with_bos.decode(np.asarray(prompts.clean[0])[flags[0]]) == word
        assert not flags[1].any()


@pytest.mark.parametrize(
    "document, message",
    [
        ('{"prompts": [\n{]}', "line 2: not JSON ("),
        ("[]", 'no list under "prompts": give a file of auto-circuit\'s form'),
        ({"prompts": [3]}, "prompt 1: not an object"),
        ({"prompts": [PROMPT, {"clean": "a"}]}, "prompt 2: no 'corrupt': it has 'clean'"),
        (
            {"prompts": [PROMPT | {"clean": [3, 0]}]},
            "prompt 1: 'clean' is [3, 0]: it must be a str",
        ),
        (
            {"prompts": [PROMPT | {"answers": " a"}]},
            "prompt 1: 'answers' is \" a\": it must be a li",
        ),
        (
            {"prompts": [PROMPT | {"answers": [[1]]}]},
            "prompt 1: 'answers' is [[1]]: it must be a li",
        ),
        ({"prompts": [PROMPT], "word_idxs": {"IO": "1"}}, '"word_idxs" an object of whole numbers'),
        ({"prompts": []}, "holds no usable pair"),
    ],
)
def test_errors_of_auto_circuit(words, tmp_path, document, message):
    with pytest.raises(ValueError) as caught:
        from_auto_circuit(words, write(tmp_path / "x.json", document))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("column, second", [("corrupted", "Cid"), ("corrupted_hard", "Ann")])
def test_eap_ig_reads_the_names_off_the_texts(words, tmp_path, column, second):
    path = write(tmp_path / "ioi.csv", IOI + IOI.split("\n")[1].replace("Ann", "Ann-Lee"))
    prompts, drops = from_eap_ig(words, path, corrupt=column)
    assert prompts.texts[0][1] == f"So, Ann and Bob met. {second} told"
    assert said(prompts.answers, words) == [[" Ann"]] and said(prompts.wrongs, words) == [[" Bob"]]
    assert [drop.line for drop in drops] == [3]


def test_eap_ig_years_by_digit(smollm2, tmp_path):
    tokenizer = smollm2[1]
    rows = "From 1697 to 16,From 1601 to 16,97\nFrom 1604 to 16,From 1601 to 16,4"
    prompts, drops = from_eap_ig(tokenizer, write(tmp_path / "gt.csv", YEARS + rows))
    assert said(prompts.answers, tokenizer)[0] == list("6789")
    right = np.asarray(prompts.wrong_weights[0]) > 0
    assert tokenizer.decode(np.asarray(prompts.wrongs[0])[right].tolist()) == "01234"
    assert [drop.line for drop in drops] == [3, 4]


def test_eap_ig_years_by_pair(in_pairs, tmp_path):
    rows = "From 1604 to 16,From 1601 to 16,4"
    prompts, drops = from_eap_ig(in_pairs, write(tmp_path / "gt.csv", YEARS + rows))
    for row, year in enumerate((52, 4)):
        for ids, weights, meant in (
            (prompts.answers, prompts.answer_weights, range(year + 1, 100)),
            (prompts.wrongs, prompts.wrong_weights, range(year + 1)),
        ):
            kept = np.asarray(ids[row])[np.asarray(weights[row]) > 0]
            assert [int(in_pairs.decode([i])) for i in kept] == list(meant)
    assert drops == ()


@pytest.mark.parametrize(
    "text, message",
    [
        ("clean,corrupted\na,b", "line 2: no 'corrupted_hard': it has 'clean', 'corrupted'"),
        (
            "clean,corrupted,corrupted_hard\na b,a c,d e",
            "line 2: 'corrupted_hard' must differ from",
        ),
        ("clean,corrupted,corrupted_hard\na b", "line 2: no 'corrupted': it has"),
        ("clean,corrupted,label\na,b,19x", "line 2: 'label' is '19x': it must be the last two dig"),
        ("", "holds no usable pair"),
    ],
)
def test_errors_of_eap_ig(words, tmp_path, text, message):
    with pytest.raises(ValueError) as caught:
        from_eap_ig(words, write(tmp_path / "x.csv", text))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_mib(words, tmp_path):
    prompts, drops = from_mib(words, mib(tmp_path), n=12)
    assert len(prompts) == 12 and set(prompts.templates.tolist()) == {0, 1}
    assert [drop.line for drop in drops] == [6, 2]
    assert drops[0].reason.startswith('name " Jo-Lee" is 2 tokens')
    assert "fits no object" in drops[1].reason
    rows = np.asarray(prompts.clean)
    for row, (clean, corrupt) in enumerate(prompts.texts):
        spans = {
            span: words.decode(rows[row][np.asarray(flags[row])]).strip()
            for span, flags in prompts.spans.items()
        }
        assert (
            spans["S1"] == spans["S2"] != spans["IO"] == words.decode(prompts.answers[row]).strip()
        )
        assert "Jo-Lee" not in clean + corrupt
    assert ((rows != np.asarray(prompts.corrupt)) == np.asarray(prompts.span("S2"))).all()
    assert from_mib(words, tmp_path, n=12).prompts.hash() == prompts.hash()
    assert from_mib(words, tmp_path, n=12, seed=1).prompts.hash() != prompts.hash()


def test_corruptions_of_mib(words, tmp_path):
    mib(tmp_path, templates=MIB["templates"][:1])
    random = from_mib(words, tmp_path, n=6, corruption="random").prompts
    changed = np.asarray(random.clean != random.corrupt)
    assert (changed == np.asarray(random.span("S2"))).all()
    abc = from_mib(words, tmp_path, n=6, corruption="abc").prompts
    assert (np.asarray(abc.clean != abc.corrupt).sum(axis=1) == 3).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"templates": ["{name_A} and {name_B} {verb} {name_C}"]}, "entry 1: unknown field {verb}"),
        ({"templates": ["{name_A} and {name_B}"]}, "entry 1: {name_C} must occur once"),
        ({"names": ["Ann", 3]}, "ioi_names.json, entry 2: 3 must be a string"),
        ({"places": {}}, "ioi_places.json: not a list of strings: give a file of MIB's form"),
        ({"names": ["Ann", "Bob"]}, "2 names of one token and 2 templates are usable"),
    ],
)
def test_errors_of_mib(words, tmp_path, changes, message):
    with pytest.raises(ValueError) as caught:
        from_mib(words, mib(tmp_path, **changes))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.usefixtures("untyped")
def test_unknown_words(words, tmp_path):
    with pytest.raises(ValueError, match='use corrupt="corrupted" or "corrupted_hard"'):
        from_eap_ig(words, tmp_path / "x.csv", corrupt="hard")
    with pytest.raises(ValueError, match="unknown corruption 'x': use one of 's2_io'"):
        from_mib(words, tmp_path, corruption="x")


@pytest.mark.parametrize("load", [from_feature_circuits, from_auto_circuit, from_eap_ig, from_mib])
def test_absent_files(words, tmp_path, load):
    with pytest.raises(FileNotFoundError, match="there is no file .*: give the path of a"):
        load(words, tmp_path / "nowhere")
