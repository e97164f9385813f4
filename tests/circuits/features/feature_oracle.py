"""Feature circuits by hand: a plain loop over blocks, explicit features and errors, autograd."""

from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from cases import answered, dictionaries, pairs

from jaxcirc.attribution import quadrature
from jaxcirc.circuits.features import Basis
from jaxcirc.models import toy
from jaxcirc.models.lm import LM
from jaxcirc.taps import Node, Sites, Taps, Timeline
from jaxcirc.tasks import Prompts

NONE = Taps(Sites())
WIDTH = 8
SIZES = {"d_model": WIDTH, "n_heads": 2, "n_kv_heads": 1, "d_head": 4, "d_mlp": 12}
MODELS = {
    "serial": {"n_layers": 2},
    "parallel": {"n_layers": 3, "norm": "layer", "gated": False, "parallel": True, "biases": True},
}
PLACES = {
    "serial": ["resid_post.0", "attn_out.1", "mlp_out.1", "resid_post.1"],
    "parallel": ["attn_out.0", "mlp_out.2"],
}
"""Every site of a block and the stream before it; and two with unspliced blocks between and no cut
behind."""
STEPS = 10


class Case(eqx.Module):
    """A model, prompts that differ at column 2, and a basis of random dictionaries."""

    model: LM
    prompts: Prompts
    basis: Basis


@cache
def case(name: str = "serial", pads: int = 0) -> Case:
    build = partial(toy, dtype=jnp.float64, **SIZES, **MODELS[name])
    model = eqx.filter_jit(build)(jax.random.key(0))
    prompts = answered(model, pairs(first=2, batch=3, length=6, pads=pads))
    kinds = dictionaries(WIDTH, jnp.float64)
    spliced = {p: kinds["topk" if p.startswith("mlp") else "relu"] for p in PLACES[name]}
    return Case(model, prompts.arrays(), Basis.of(model, spliced))


def each(function):
    """A function of a case and one of its prompts, for all of them; compiled once a model."""

    @jax.jit
    def run(case: Case, *rest):
        return jax.vmap(lambda one: function(case, one, *rest))(case.prompts)

    return run


def stream(case: Case, tokens, mask, at):
    """Last logits of one prompt, spliced activations x of place i passed through `at(i, x)`."""
    model, places = case.model, case.basis.places
    time = Timeline(jnp.maximum(jnp.cumsum(mask) - 1, 0)[None], mask[None], None)

    def tap(site, layer, x):
        place = Node(site, layer)
        return at(places.index(place), x[0])[None] if place in places else x

    x = model.embedding(tokens[None], time.positions, NONE)
    for layer in range(model.n_layers):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], model.blocks)
        attn = tap("attn_out", layer, block._attend(layer, x, time, NONE))
        mlp = tap("mlp_out", layer, block._transform(x if block.parallel else x + attn, NONE))
        x = tap("resid_post", layer, x + attn + mlp)
    return model.unembedding(x[:, -1:], NONE)[0, 0]


def metric(case: Case, one, at):
    logits = stream(case, one.clean, one.mask, at)
    return logits[one.answers[0]] - logits[one.wrongs[0]]


def seen(case: Case, one, tokens):
    """Activations of a plain run, by place."""
    kept = {}

    def at(i, x):
        kept[i] = x
        return x

    stream(case, tokens, one.mask, at)
    return [kept[i] for i in range(len(kept))]


def code(dictionary, x):
    f = dictionary.encode(x)
    return f, x - dictionary.decode(f)


def codes(case: Case, xs):
    return [code(d, x) for d, x in zip(case.basis.dictionaries, xs, strict=True)]


def live(one):
    return (one.mask & (jnp.cumsum(one.mask) > 1))[:, None]


def steps(case: Case, one):
    """(features, error) of every place: corrupt minus clean, 0 at tokens without nodes."""
    ends = [codes(case, seen(case, one, tokens)) for tokens in (one.corrupt, one.clean)]
    return jax.tree.map(lambda new, old: jnp.where(live(one), new - old, 0), *ends)


def adds(case: Case, i, f, e):
    """What features and error add to an activation of place i."""
    decode = case.basis.dictionaries[i].decode
    return decode(f) - decode(jnp.zeros_like(f)) + e


def value(case: Case, one, nudges):
    """The metric with (features, error) added at every place."""
    return metric(case, one, lambda i, x: x + adds(case, i, *nudges[i]))


def product(one, other):
    """Features times features, error times error, side by side: [place pos feature_and_error]."""
    tables = [
        jnp.concatenate([f * g, (e * h).sum(-1, keepdims=True)], -1)
        for (f, e), (g, h) in zip(one, other, strict=True)
    ]
    return jnp.stack(tables)


def gradients(case: Case, one, step, path):
    """The mean gradient at features and errors of every place, each moved by itself."""
    places = jnp.arange(len(step))

    def of(source):
        def at(alpha):
            on = alpha * (places == source)
            nudges = [(f * a, e * a) for (f, e), a in zip(step, on, strict=True)]
            return jax.grad(lambda nudges: value(case, one, nudges))(nudges)

        found = jax.vmap(at)(path[0])
        return jax.tree.map(lambda g: jnp.tensordot(path[1], g, 1), found)

    every = jax.lax.map(of, places)
    return [jax.tree.map(lambda g, i=i: g[i], every[i]) for i in range(len(step))]


def path(kind: str):
    """Ten points and weights: all at the clean run, or by a rule."""
    if kind == "atp":
        return jnp.zeros(STEPS), jnp.full(STEPS, 1 / STEPS)
    return tuple(map(jnp.asarray, quadrature(STEPS, kind)))


@each
def _node_scores(case: Case, one, path):
    step = steps(case, one)
    return product(step, gradients(case, one, step, path))


def node_scores(case: Case, kind: str = "atp") -> np.ndarray:
    """Every node's score, [example place pos feature_and_error], by autograd at each node."""
    return np.asarray(_node_scores(case, path(kind)))


@each
def clean_parts(case: Case, one):
    """Clean and corrupt codes, and the slopes at the clean run, by place."""
    ends = [codes(case, seen(case, one, tokens)) for tokens in (one.clean, one.corrupt)]
    zero = jax.tree.map(jnp.zeros_like, ends[0])
    return *ends, jax.grad(lambda nudges: value(case, one, nudges))(zero)


def flags(f, pos, index):
    """Where one node of a place stands, among features and in the error; position -1 everywhere."""
    here = ((pos < 0) | (jnp.arange(f.shape[0]) == pos))[:, None]
    return here & (jnp.arange(f.shape[1]) == index), here & (index == f.shape[1])


@each
def _dialled(case: Case, one, cells, dials):
    step = steps(case, one)

    def of(cell):
        def at(dial):
            nudges = []
            for i, (f, e) in enumerate(step):
                on_f, on_e = flags(f, cell[1], cell[2])
                on = dial * (cell[0] == i)
                nudges.append((f * on_f * on, e * on_e * on))
            return value(case, one, nudges)

        return jax.vmap(at)(dials)

    return jax.lax.map(of, cells)


def dialled(case: Case, cells, dials) -> np.ndarray:
    """The metric with one node, (place, pos, index), moved by dials times its step: [cell dial
    example]."""
    found = _dialled(case, jnp.asarray(cells), jnp.asarray(dials))
    return np.moveaxis(np.asarray(found), 0, 2)


@each
def _edge_weights(case: Case, one, path):
    step = steps(case, one)
    slope = gradients(case, one, step, path)
    masked = [tuple(jnp.where(live(one), part, 0) for part in pair) for pair in slope]
    shape = (len(live(one)), step[0][0].shape[1] + 1)

    def told(source, dial):
        """What every node of every place hears, and the metric."""
        heard = {}

        def at(i, x):
            heard[i] = code(case.basis.dictionaries[i], x)
            moved = dial[:, :-1] * step[i][0], dial[:, -1:] * step[i][1]
            free = x + adds(case, i, *moved)
            return jnp.where(source == i, free, jax.lax.stop_gradient(x))

        m = metric(case, one, at)
        return product([heard[i] for i in range(len(step))], masked), m

    def of(source):
        def along(way):
            return jax.jvp(lambda dial: told(source, dial), (jnp.zeros(shape),), (way,))[1]

        return jax.vmap(along)(jnp.eye(shape[0] * shape[1]).reshape(-1, *shape))

    return jax.lax.map(of, jnp.arange(len(step)))


def edge_weights(case: Case, kind: str = "atp") -> tuple[np.ndarray, np.ndarray]:
    """Every edge by autograd: from each node, its place alone free and all others stopped.

    Returns to places [example source_place (pos index) place pos index] and, at the clean run, to
    the metric [example source_place (pos index)].
    """
    to_places, to_metric = _edge_weights(case, path(kind))
    return np.asarray(to_places), np.asarray(to_metric)


@each
def _path_patched(case: Case, one, cells):
    clean, step = seen(case, one, one.clean), steps(case, one)
    base = value(case, one, jax.tree.map(jnp.zeros_like, step))

    def of(cell):
        source, target, heard = cell[:3], cell[3:], {}

        def at(i, x):
            heard[i] = x
            on_f, on_e = flags(step[i][0], source[1], source[2])
            moved = clean[i] + adds(case, i, on_f * step[i][0], on_e * step[i][1])
            return jnp.where(source[0] == i, moved, clean[i])

        direct = metric(case, one, at)
        new, old = codes(case, [heard[i] for i in range(len(clean))]), codes(case, clean)
        nudges = []
        for i, ((f, e), (g, h)) in enumerate(zip(new, old, strict=True)):
            on_f, on_e = flags(f, target[1], target[2])
            on = live(one) & (target[0] == i)
            nudges.append(((f - g) * (on_f & on), (e - h) * (on_e & on)))
        return jnp.where(target[0] < 0, direct, value(case, one, nudges)) - base

    return jax.lax.map(of, cells)


def path_patched(case: Case, cells) -> np.ndarray:
    """Exact effects of edges, [example edge]: a cell is (place, pos, index) of source and reader,
    and the reader's place -1 the metric."""
    return np.asarray(_path_patched(case, jnp.asarray(cells)))
