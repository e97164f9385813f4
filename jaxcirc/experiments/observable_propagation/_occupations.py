"""Occupations: whether a bias runs through the heads of pronouns.

Dunefsky & Cohan 2023 (arXiv 2312.16291), section 4.2: nurse, teacher, secretary against programmer,
doctor, engineer; the cosine with the pronoun's features grows along the path, and one feature
predicts both outputs.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ...observables import Feature, Segment, cosine, propagate, search_paths, segment_of
from ...taps import Node
from ...tasks import Prompts, interval_of
from .._claim import Claim
from .._result import Row
from ..feature_circuits import Section
from ..observe import ranked
from ._look import WHERE, effects_of, explained
from ._pronouns import (
    TOP,
    exactly,
    fitted,
    gap_of,
    head_rows,
    output_claim,
    output_rows,
    shared_rows,
)
from ._rows import pairs_of
from ._subject import Ready


def occupations(ready: Ready) -> Section:
    """Heads, shared features, the path, and one feature for two outputs."""
    rows, _ = head_rows(ready, "occupation")
    shared, _ = shared_rows(ready, "subject", "occupation")
    rows += [*shared, *output_rows(ready, ("occupation",))]
    both, claims = _one_feature(ready)
    path, notes = path_rows(ready)
    arrays = {"norms_occupation": ready.norms("occupation").astype(np.float32)}
    return Section(rows + both + path, arrays, [*claims, *_shared_heads(ready)], notes)


def _one_feature(ready: Ready) -> tuple[list[Row], list[Claim]]:
    """The pronoun's feature read in both sets of prompts, against each set's own observable."""
    layer, head = ready.top("subject")
    vector = ready.features["subject"][layer, head]
    rows: list[Row] = [
        {
            "section": "one feature",
            "feature": f"{layer}.{head} -> {ready.subject.name}",
            "output": ready.observables[name].name,
            "read at": WHERE[where],
            **fitted(ready, name, where, vector, layer),
            "gap of the output": gap_of(
                ready.look(name).outputs[ready.order.index(name)], ready.rows[name].labels
            ),
        }
        for name in ("subject", "occupation")
        for where in WHERE
    ]
    text = "the pronoun's own feature predicts the biased output"
    paper = "0.882, and 0.947 of the pronoun"
    return rows, [output_claim(ready, "occupation", vector, layer, text, paper)]


def _shared_heads(ready: Ready) -> list[Claim]:
    """The cosine at the pronoun's head, and how many of the first heads are the same."""
    layer, head = ready.top("subject")
    pair = [ready.features[name][layer, head] for name in ("subject", "occupation")]
    ends = [propagate(ready.model, ready.observables[n]) for n in ("subject", "occupation")]
    effects = [
        effects_of(ready.look(name), ready.rows[name], ready.order.index(name))
        for name in ("subject", "occupation")
    ]
    common = interval_of(_common, effects, [np.arange(len(each)) for each in effects])
    return [
        Claim(
            f"occupations: bias and pronoun are more alike at {layer}.{head} than at the logits",
            "cosine there; baseline: cosine at the logits",
            exactly(float(cosine(*pair))),
            baseline=float(cosine(*ends)),
            floor=0.1,
            paper="0.966 on the path to 6.6",
        ),
        Claim(
            "occupations: bias and pronoun run through the same heads",
            f"of the first {TOP} heads by direct effect, how many are common",
            common,
            baseline=TOP * TOP / ready.norms("subject").size,
            floor=TOP / 2,
            paper="the same heads",
        ),
    ]


def _common(*means: np.ndarray) -> int:
    """How many of the first heads by direct effect two observables share."""
    one, other = (set(ranked(np.abs(mean))[:TOP]) for mean in means)
    return len(one & other)


def path_rows(ready: Ready) -> tuple[list[Row], list[str]]:
    """The strongest paths of the pronoun, and the cosine with the bias at every step of them."""
    sizes = ready.sizes
    pairs = pairs_of(ready.rows["subject"], sizes.pairs)
    ready.tell("paths")(0, 1)
    found = search_paths(ready.model, ready.subject, pairs, width=sizes.width, depth=sizes.depth)
    ready.tell("paths")(1, 1)
    longer = [branch for branch in found if len(branch.path) > 1][: 2 * sizes.width]
    notes: list[str] = []
    ends = {name: _ends(ready, name) for name in ("subject", "occupation")}
    rows: list[Row] = [
        {
            "section": "path",
            "path": str(branch),
            "direct effect": branch.effect.value,
            "direct effect low": branch.effect.low,
            "direct effect high": branch.effect.high,
            **_along(ready, branch.path, ends, notes),
        }
        for branch in longer
    ]
    return rows, list(dict.fromkeys(notes))


Ends = tuple[Segment, Segment] | None
"""What MLPs read from a man's prompt to a woman's: at the name, and at the end."""


def _along(ready: Ready, path: tuple[Node, ...], ends: dict[str, Ends], notes: list[str]) -> dict:
    """Cosines of both features from the last node to the first."""
    cosines, found = [], {}
    for i in reversed(range(len(path))):
        found = {name: _feature(ready, name, path[i:], ends[name], notes) for name in ends}
        cosines.append(float(cosine(found["subject"], found["occupation"])))
    said = {"cosines with the bias, from the end": " ".join(f"{c:.2f}" for c in cosines)}
    if path[0].site != "z":
        return said
    seen, layer = ready.look("subject"), path[0].layer
    x = seen.read("place")[layer] @ np.asarray(found["subject"].vector)
    y = seen.outputs[ready.order.index("subject")]
    return said | {"r2 with the output, name token": float(explained(x, y))}


def _feature(ready: Ready, name: str, path: tuple[Node, ...], ends: Ends, notes) -> Feature:
    """A path's feature; where the observable has no zero at an MLP, midway between the two."""
    asked = ready.observables[name]
    mlps = [node for node in path if node.site == "mlp_out"]
    if not mlps or ends is None:
        return propagate(ready.model, asked, path)
    segment = _segment(path, *ends)
    try:
        return propagate(ready.model, asked, path, mlp_point=segment)
    except ValueError:
        notes.append(
            f"{asked.name} has no zero between two examples at {mlps[-1]}: the middle is taken"
        )
        middle = (segment.low + segment.high) / 2
        return propagate(ready.model, asked, path, mlp_point=middle)


def _segment(path: tuple[Node, ...], at_name: Segment, at_end: Segment) -> Segment:
    """The name's for MLPs that a head of the path reads, the end's for those behind all heads."""
    last = max((node.layer for node in path if node.site == "z"), default=-1)
    early = (jnp.arange(len(at_name.low)) < last)[:, None]
    return jax.tree.map(lambda a, b: jnp.where(early, a, b), at_name, at_end)


def _ends(ready: Ready, name: str) -> Ends:
    if "mlp_normed" not in ready.model.sites():
        return None
    pairs: Prompts = pairs_of(ready.rows[name], 1)
    kept = np.asarray(pairs.mask[0])
    place = int(np.flatnonzero(np.asarray(pairs.spans["name"][0])[kept])[-1])
    texts = pairs.clean[0][kept], pairs.corrupt[0][kept]
    return segment_of(ready.model, *texts, pos=place), segment_of(ready.model, *texts, pos=-1)
