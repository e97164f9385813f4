"""`Keys`: a model's metadata, remembering what was asked of it, so that nothing is overlooked.

A key that changes what a model computes and that no code reads would load the wrong model without a
word. So every key is asked for, known to be harmless, or an error. Imports nothing of jaxcirc.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any

HARMLESS = (
    *("model_type", "architectures", "_name_or_path", "transformers_version", "auto_map"),
    *("torch_dtype", "dtype", "use_cache", "*_token_id", "initializer_range", "init_std"),
    *("*dropout*", "*_pdrop", "summary_*", "_attn_implementation*", "attn_implementation"),
    *("output_*", "return_dict*", "use_return_dict", "id2label", "label2id", "num_labels"),
    *("task_specific_params", "problem_type", "tokenizer_class", "is_decoder", "finetuning_task"),
    *("gradient_checkpointing", "is_encoder_decoder", "chunk_size_feed_forward", "torchscript"),
    *("cache_implementation", "reorder_and_upcast_attn", "pretraining_tp", "use_bfloat16"),
    *("max_window_layers", "sliding_window_pattern", "_sliding_window_pattern", "n_ctx"),
)
"""Keys of a config.json that do not change what a model computes, as patterns."""

_REQUIRED = object()


class Keys:
    """The keys of a model's metadata. Lives only while a file's metadata is read.

    - `values`: key to value; None counts as absent. `where`: the file, for messages.
    - `prefix`: put before every key that is asked for.

    >>> keys = Keys({"n_layer": 12}, "config.json of gpt2")
    >>> keys("n_layer"), keys("n_inner", 3072)
    (12, 3072)
    """

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = ""):
        self._values, self.where, self._prefix = values, where, prefix
        self._asked: set[str] = set()

    def __call__(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value of a key; `ValueError` when it is absent and no default is given."""
        key = self._prefix + key
        self._asked.add(key)
        value = self._values.get(key)
        if value is None and default is _REQUIRED:
            raise ValueError(f"{self.where} has no metadata key {key!r}: convert the model again")
        return default if value is None else value

    def among(self, key: str, known: Mapping[Any, Any], default: Any = _REQUIRED) -> Any:
        """What `known` makes of the value of a key; `ValueError` for a value outside it."""
        value = self(key, default)
        if value not in known:
            raise ValueError(
                f"{self.where} has {self._prefix + key!r} = {value!r}, which is not supported: it"
                f" may be {' or '.join(map(repr, known))}"
            )
        return known[value]

    def only(self, **expected: Any) -> None:
        """`ValueError` for a key that is there with another value than the one expected."""
        for key, value in expected.items():
            self.among(key, {value: value}, value)

    def check(self, harmless: Iterable[str], ignore: Iterable[str] = ()) -> None:
        """Raise `ValueError` for a key that nothing asked for and that is not known as harmless.

        - `harmless`: patterns. `ignore`: keys that the caller takes upon himself.
        """
        known = (*harmless, *ignore)
        for key, value in self._values.items():
            if value is None or key in self._asked or not key.startswith(self._prefix):
                continue
            if not any(fnmatch(key, pattern) for pattern in known):
                text = repr(value)
                raise ValueError(
                    f"{self.where} has {key!r} = {text[:60]}, which this model family does not"
                    f" know: pass ignore=({key!r},) to load_model if it cannot matter"
                )
