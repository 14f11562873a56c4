"""The configuration that a checkpoint of a pruned model has, in a class of stock `transformers`.

Configuration classes validate their values, each in its own way. So the configuration is made before the work as well
(`check_writable`), not only when the result is written.
"""

import copy
from collections.abc import Sequence

from transformers import AutoConfig, PreTrainedConfig

from transact.errors import InvalidPlan
from transact.layers.layer_removal import keep_in_config
from transact.models.loaded_model import LoadedModel
from transact.spec.families import FAMILIES
from transact.spec.kept_layers import only_layers
from transact.spec.model_spec import HEAD_WIDTHS, ModelSpec

# what GraniteConfig adds to a Llama configuration; with these values it computes what Llama computes
_GRANITE_AS_LLAMA = {"embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0}


def stock_config(old: PreTrainedConfig, spec: ModelSpec) -> tuple[PreTrainedConfig, list[str]]:
    """A configuration that stock classes accept for `spec`, made from the model's, and notes on what was changed.

    Raises `InvalidPlan` where its class refuses it.
    """
    family, shape = spec.layout, spec.layers[0]
    values = old.to_dict()
    for name in ("model_type", "architectures", "transformers_version", *HEAD_WIDTHS):
        values.pop(name, None)
    sizes = {
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        family.channels: shape.intermediate_size,
        "head_dim": spec.head_dim,
        "tie_word_embeddings": spec.tie_word_embeddings,
    }
    if family.head_counts == "fixed" and not hasattr(type(old), "head_dim"):  # set in memory; these classes compute it
        values.pop("head_dim", None)
        del sizes["head_dim"]
    values |= {type(old).attribute_map.get(name, name): size for name, size in sizes.items()}
    equivalent = spec.compact_family or family.model_type
    if equivalent == family.model_type:
        return _made(equivalent, values, spec), []
    if equivalent == "granite":
        values |= _GRANITE_AS_LLAMA | {"attention_multiplier": spec.head_dim**-0.5}
    if equivalent == "mistral":
        values |= {"sliding_window": None}
    note = (
        f"{shape.num_attention_heads} heads do not divide the hidden size {spec.hidden_size}, which {family.label}'s "
        f"configuration refuses; it is written as {FAMILIES[equivalent].label}, the same computation."
    )
    return _made(equivalent, values, spec), [note]


def _made(model_type: str, values: dict, spec: ModelSpec) -> PreTrainedConfig:
    try:
        return AutoConfig.for_model(model_type, **values)
    except Exception as error:  # validators of configuration classes raise many types
        shape, reason = spec.layers[0], " ".join(str(error).split()).rstrip(".")
        raise InvalidPlan(
            f"The configuration of {FAMILIES[model_type].label} in transformers refuses {shape.num_attention_heads} "
            f"heads of {spec.head_dim} and {shape.intermediate_size} channels beside what else it holds ({reason}). "
            "Plan another number of heads, or keep them all and cut channels."
        ) from error


def check_writable(loaded: LoadedModel, spec: ModelSpec, kept_layers: Sequence[int] = ()) -> None:
    """Raise `InvalidPlan` where no stock configuration would be taken for `spec`, which `loaded` is to be cut to.

    `kept_layers`: the layers that stay, by default as many of the first ones as `spec` has.
    """
    kept_layers = kept_layers or range(spec.num_hidden_layers)
    config = copy.copy(loaded.model.config)
    keep_in_config(config, loaded.layout, kept_layers)
    stock_config(config, spec.configured_as(only_layers(loaded.spec, kept_layers)).stored)
