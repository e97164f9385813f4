"""Circuits of features judged by hand: nodes at their means, nodes that hear some edges only."""

import jax
import jax.numpy as jnp
import numpy as np
from feature_oracle import Case, clean_parts, code, codes, each, flags, live, metric, seen


def means(case: Case):
    """Mean features and errors of the corrupt runs at every place and position."""
    return jax.tree.map(lambda x: x.mean(axis=0), clean_parts(case)[1])


@each
def _ablated(case: Case, one, mean, kept):
    def at(i, x):
        f, e = code(case.basis.dictionaries[i], x)
        f = jnp.where(kept[i][:, :-1], f, mean[i][0])
        e = jnp.where(kept[i][:, -1:], e, mean[i][1])
        return jnp.where(live(one), case.basis.dictionaries[i].decode(f) + e, x)

    return metric(case, one, at)


def ablated(case: Case, kept) -> np.ndarray:
    """The metric with every node that is not kept at its mean; `kept` by place [pos index]."""
    return np.asarray(_ablated(case, means(case), list(map(jnp.asarray, kept))))


@each
def _pruned(case: Case, one, mean, cells, heard):
    clean = seen(case, one, one.clean)

    def run(values, hears):
        """What every place sees and the metric, when these nodes have their values."""
        there = {}

        def at(i, x):
            there[i] = x
            f, e = mean[i]
            on_f, on_e = jax.vmap(lambda cell: flags(f, cell[1], cell[2]))(cells)
            on = (hears & (cells[:, 0] == i))[:, None, None]
            f = jnp.where((on_f & on).any(0), (values[0] * (on_f & on)).sum(0), f)
            e = jnp.where((on_e & on).any(0), (values[1] * (on_e & on)).sum(0), e)
            return jnp.where(live(one), case.basis.dictionaries[i].decode(f) + e, clean[i])

        m = metric(case, one, at)
        return [there[i] for i in range(len(clean))], m

    n = (len(cells), len(clean[0]))
    values = jnp.zeros((*n, mean[0][0].shape[1])), jnp.zeros((*n, clean[0].shape[1]))
    for i in range(len(clean)):

        def hear(hears, i=i, values=values):
            return codes(case, run(values, hears)[0])[i]

        own = (cells[:, 0] == i)[:, None, None]
        found = jax.vmap(hear)(heard[:-1])
        values = jax.tree.map(lambda new, old, own=own: jnp.where(own, new, old), found, values)
    return run(values, heard[-1])[1]


def pruned(case: Case, cells, heard) -> np.ndarray:
    """The metric with nodes that hear some of each other only: `cells` (place, pos, index) in the
    order of a run, `heard` [reader node], the last reader the metric."""
    return np.asarray(_pruned(case, means(case), jnp.asarray(cells), jnp.asarray(heard)))
