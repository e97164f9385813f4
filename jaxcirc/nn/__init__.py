"""Parts of a decoder, each with its sites tapped in place."""

from .attention import Attention as Attention
from .block import Block as Block
from .mlp import ACTIVATIONS as ACTIVATIONS
from .mlp import MLP as MLP
from .norm import AbstractNorm as AbstractNorm
from .norm import LayerNorm as LayerNorm
from .norm import RMSNorm as RMSNorm
from .position import Rotary as Rotary
