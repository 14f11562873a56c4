"""How large the sizes in a configuration, a plan or a file of scores may be: far above every published model.

They are checked before anything is built from them: a configuration class makes lists of any length it is given, so
that a config.json of a few bytes would fill the memory.
"""

from collections.abc import Mapping

MAX_PARAMETERS = 10**13
"""More than any machine holds: 20 TB at two bytes each."""
_LAYERS, _WIDTH, _HEADS, _HEAD_DIM = 4096, 2**20, 4096, 2**14
_CHANNELS, _WORDS, _POSITIONS = 2**24, 2**24, 2**31 - 1
LARGEST: dict[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer"), _LAYERS),
    **dict.fromkeys(("hidden_size", "n_embd", "word_embed_proj_dim"), _WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_key_value_heads"), _HEADS),
    **dict.fromkeys(("head_dim", "query_key_dim", "value_dim"), _HEAD_DIM),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), _CHANNELS),
    "vocab_size": _WORDS,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "sliding_window"), _POSITIONS),
    "num_labels": 100_000,
}
"""By the names that the configurations of all families have; `num_labels` is of classifiers, but every configuration
makes a name for each."""
_ONE_PER_LAYER = ("layer_types", "no_rope_layers", "per_layer_config")


def excess(values: Mapping[str, object]) -> str | None:
    """What is too large in a configuration, as "num_hidden_layers is 5,000; at most 4,096 are read"; None if nothing.

    Values that are no numbers are left to the configuration class.
    """
    for name, most in LARGEST.items():
        value = values.get(name)
        if isinstance(value, int | float) and value > most:
            return f"{name} is {_shown(value)}; at most {most:,} are read"
    for name in _ONE_PER_LAYER:
        value = values.get(name)
        if isinstance(value, list | dict) and len(value) > _LAYERS:
            return f"{name} has {len(value):,} entries; at most {_LAYERS:,} layers are read"
    return None


def excess_in_all(parameters: int) -> str | None:
    """As `excess`, for the number of all parameters."""
    if parameters <= MAX_PARAMETERS:
        return None
    return f"its sizes come to {_shown(parameters)} parameters; no machine holds more than {MAX_PARAMETERS:,}"


def checked_size(name: str, value) -> int:
    """`value` where it can be the size `name` (a key of `LARGEST`); raises `ValueError` for anything else."""
    return from_one_to(LARGEST[name], value)


def from_one_to(most: int, value) -> int:
    """`value` where it is a whole number from 1 to `most`; raises `ValueError` for anything else."""
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{str(value)[:40]} is not a whole number from 1 to {most}")
    return value


def from_zero_to(most: int, value) -> int:
    """As `from_one_to`, or 0."""
    return 0 if type(value) is int and value == 0 else from_one_to(most, value)


def _shown(value: float) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if value < 10**20 else "a number of many digits"
