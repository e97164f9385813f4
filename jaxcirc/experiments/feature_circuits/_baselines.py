"""Other bases at the same places: neurons, random directions at equal k, principal directions.

May import `circuits`, `dictionaries`.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from ...circuits.features import Basis
from ...dictionaries import Heads, Identity, pca_of, random_directions
from ...dictionaries.train import Contexts
from ...taps import AbstractDictionary
from ..dictionaries._baselines import Moments, equal_k, moments_of
from ..dictionaries._runs import located

KINDS = ("features", "neurons", "hidden", "random dictionary", "PCA")
"""Features; the coordinates of the same places; the same with the MLP's hidden layer instead of its
output; a frozen random dictionary at equal k; all principal directions."""


def names_of(basis: Basis) -> list[str]:
    """The places of a basis as names: ["resid_post.11", ..]."""
    return [f"{place.site}.{place.layer}" for place in basis.places]


def norms_of(basis: Basis) -> dict[str, float]:
    """The sink norms of a basis by the names of its places."""
    return dict(zip(names_of(basis), map(float, basis.sink_norms), strict=True))


def bases_of(
    model, basis: Basis, contexts: Contexts, *, batch: int = 8, seed: int = 0
) -> dict[str, Basis]:
    """The basis of features and all that it is compared with, by kind.

    - `contexts`: text that means, covariances and the number of active features come from.

    Sinks pass every one alike. "hidden" is left out where the MLP's output has no dictionary.

    >>> bases_of(model, basis, contexts)["PCA"].dictionaries[0].d_dict
    576
    """
    names, norms = names_of(basis), norms_of(basis)
    pairs = [
        (_flat(dictionary), located(model, _flat(dictionary), name, norms[name]))
        for name, dictionary in zip(names, basis.dictionaries, strict=True)
    ]
    with jax.default_matmul_precision("highest"):
        found = dict(zip(names, moments_of(model, pairs, contexts, batch), strict=True))
    random = {
        name: _random(jax.random.fold_in(jax.random.key(seed), i), pairs[i][0], found[name])
        for i, name in enumerate(names)
    }
    principal = {name: _principal(one) for name, one in found.items()}
    bases = {"features": basis, "neurons": _like(model, basis, _identities(basis))}
    hidden = hidden_places(names)
    if hidden != names:
        at = dict(zip(hidden, names, strict=True))
        widths = {name: _width(model, basis, name, at) for name in hidden}
        own = {new: norms[old] for new, old in at.items() if new == old}
        bases["hidden"] = Basis.of(model, {n: Identity(d) for n, d in widths.items()}, own)
    bases["random dictionary"] = _like(model, basis, random)
    bases["PCA"] = _like(model, basis, principal)
    return bases


def hidden_places(names: Sequence[str]) -> list[str]:
    """The same places with the MLP's hidden layer for its output.

    >>> hidden_places(["mlp_out.3", "resid_post.3"])
    ['mlp_post.3', 'resid_post.3']
    """
    return [name.replace("mlp_out.", "mlp_post.") for name in names]


def _width(model, basis: Basis, name: str, at: Mapping[str, str]) -> int:
    if name != at[name]:
        return model.axis_size("d_mlp")
    return basis.dictionaries[names_of(basis).index(name)].d_in


def _flat(dictionary: AbstractDictionary) -> AbstractDictionary:
    """The dictionary of a token's numbers side by side."""
    return dictionary.inner if isinstance(dictionary, Heads) else dictionary


def _like(model, basis: Basis, others: Mapping[str, AbstractDictionary]) -> Basis:
    """Other dictionaries at the places of a basis, with its sinks."""
    pairs = zip(others.items(), basis.dictionaries, strict=True)
    fitted = {
        name: Heads(new, old.n_heads) if isinstance(old, Heads) else new
        for (name, new), old in pairs
    }
    return Basis.of(model, fitted, norms_of(basis))


def _identities(basis: Basis) -> dict[str, AbstractDictionary]:
    pairs = zip(names_of(basis), basis.dictionaries, strict=True)
    return {name: Identity(dictionary.d_in) for name, dictionary in pairs}


def _random(key, dictionary: AbstractDictionary, found: Moments) -> AbstractDictionary:
    mean = jnp.asarray(found.mean, jnp.float32)
    k = equal_k(dictionary, found)
    return random_directions(key, len(found.mean), dictionary.d_dict, k, mean)


def _principal(found: Moments) -> AbstractDictionary:
    return pca_of(found.mean, found.covariance, len(found.mean))
