"""`Clock`: what is done every so many steps is done in between too, where steps are slow.

May import nothing of the package.
"""

import time

import jax


class Clock:
    """Says when so many seconds have passed. Of several processes each has its own time, and all
    must do the same after the same step: there it never says so.

    >>> Clock(10.0).late
    False
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._since = time.monotonic()

    @property
    def late(self) -> bool:
        """Whether they have passed."""
        alone = jax.process_count() == 1
        return alone and time.monotonic() - self._since > self._seconds
