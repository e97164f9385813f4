"""jaxcirc: mechanistic interpretability as compiled JAX."""

from .models import load_model as load_model
from .taps import Sites as Sites
from .taps import at as at
from .taps import generate as generate
from .taps import resolve as resolve
from .taps import run as run
