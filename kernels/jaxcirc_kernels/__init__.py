"""Pallas kernels, each beside its jnp reference. Imports nothing of jaxcirc; none needed so far."""
