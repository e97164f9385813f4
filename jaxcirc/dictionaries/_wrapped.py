"""`Wrapped`: a dictionary around another one of the same width and features. May import `taps`."""

import equinox as eqx

from ..taps import AbstractDictionary


class Wrapped(AbstractDictionary):
    """Tokens come in and go out otherwise; the features are those of `inner`."""

    inner: eqx.AbstractVar[AbstractDictionary]

    @property
    def d_in(self) -> int:
        return self.inner.d_in

    @property
    def d_dict(self) -> int:
        return self.inner.d_dict
