"""config.json in both spellings: that of `transformers` 5, and beside it what 4.57 reads in its place.

Version 5 keeps all of RoPE in `rope_parameters`, which version 4 does not know: it would silently use its
defaults. Where both spellings are present, version 5 prefers `rope_scaling` to `rope_parameters`, and
`rope_parameters` to `rope_theta`; they are written with equal values.
"""

import json
from pathlib import Path

from transformers import PreTrainedConfig

from transact.spec.families import FAMILIES, OWN_PREFIX

_OUTSIDE_SCALING = ("rope_theta", "partial_rotary_factor", "type")
"""Keys that version 4 has outside `rope_scaling`, or under another name."""


def write_config(config: PreTrainedConfig, folder: Path) -> None:
    """Write config.json into the folder."""
    config.save_pretrained(folder)
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    (values.get("rope_parameters") or {}).pop("type", None)  # left there by a `rope_scaling` of version 4
    file.write_text(json.dumps(values | older_spellings(values), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def needs_eager(config: PreTrainedConfig) -> str | None:
    """The configuration key that `transformers` 4 ignores without `attn_implementation="eager"`; usually None."""
    key = FAMILIES[config.model_type.removeprefix(OWN_PREFIX)].needs_eager
    return key if key is not None and getattr(config, key) else None


def older_spellings(values: dict) -> dict:
    """What `transformers` 4.57 reads in a config.json of version 5 with these values."""
    family = FAMILIES[values["model_type"].removeprefix(OWN_PREFIX)]
    result = {"torch_dtype": values["dtype"]}
    rope = values.get("rope_parameters")
    if not rope:
        return result
    if family.local_rope_theta is not None:
        local, rope = rope["sliding_attention"], rope["full_attention"]
        result[family.local_rope_theta] = local["rope_theta"]
    result |= {name: rope[key] for key, name in family.rope_names if rope.get(key) is not None}
    if rope["rope_type"] == "longrope":
        result["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    return result | {"rope_scaling": _scaling(rope, family.rope_scaling_keys)}


def _scaling(rope: dict, keys: tuple[str, ...]) -> dict | None:
    """`rope_scaling`; `keys` are those that the family's class of version 4 allows, where it allows only some.

    Where they do not cover all values, all are written: version 4 then refuses, and version 5 loses nothing.
    """
    if rope["rope_type"] == "default":
        return None
    values = {key: value for key, value in rope.items() if key not in _OUTSIDE_SCALING and value is not None}
    named = {"type": values["rope_type"], **values}
    beside = {"rope_type"} | ({"original_max_position_embeddings"} if rope["rope_type"] == "longrope" else set())
    return {key: named[key] for key in keys} if named.keys() - beside == set(keys) else values
