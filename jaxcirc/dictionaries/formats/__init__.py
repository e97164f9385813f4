"""Dictionaries as files: the library's own, and those of other libraries."""

from ._file import sha256_of as sha256_of
from ._load import Format as Format
from ._load import check as check
from ._load import format_of as format_of
from ._load import load_dictionary as load_dictionary
from ._load import save_dictionary as save_dictionary
from ._shipped import shipped as shipped
from ._shipped import shipped_places as shipped_places
from ._shipped import shipped_suites as shipped_suites
from .circuit_tracer import CrossLayer as CrossLayer
from .circuit_tracer import read_circuit_tracer as read_circuit_tracer
from .circuit_tracer import write_circuit_tracer as write_circuit_tracer
from .dictionary_learning import read_dictionary_learning as read_dictionary_learning
from .dictionary_learning import write_dictionary_learning as write_dictionary_learning
from .gemma_scope import read_gemma_scope as read_gemma_scope
from .gemma_scope import read_gemma_scope_2 as read_gemma_scope_2
from .gemma_scope import write_gemma_scope as write_gemma_scope
from .gemma_scope import write_gemma_scope_2 as write_gemma_scope_2
from .llama_scope import read_llama_scope as read_llama_scope
from .llama_scope import write_llama_scope as write_llama_scope
from .native import load as load
from .native import save as save
from .saelens import read_saelens as read_saelens
from .saelens import write_saelens as write_saelens
from .sparsify import read_sparsify as read_sparsify
from .sparsify import write_sparsify as write_sparsify
