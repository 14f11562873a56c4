"""The stock configuration that a source's config.json describes, and the spec that follows from it."""

from transformers import AutoConfig, PreTrainedConfig

from transact.errors import CheckpointBroken, ModelUnsupported
from transact.layers import per_layer_config
from transact.models.sources import Source
from transact.spec.config_family import family_of
from transact.spec.model_spec import ModelSpec
from transact.spec.size_limits import excess

_NOT_FROM_FILES = (
    "auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "_experts_implementation", "transformers_weights", "name_or_path", "_name_or_path",
)  # fmt: skip
"""What a config.json may not decide: code to import, kernels to fetch from a hub and run, other files to read."""


def spec_of(source: Source) -> ModelSpec:
    """The spec, with layers of different sizes."""
    overrides = source.config.get(per_layer_config.KEY)
    spec = stock(source)[1]
    return per_layer_config.with_layers(spec, overrides) if overrides else spec


def stock(source: Source) -> tuple[PreTrainedConfig, ModelSpec]:
    """The configuration and the spec as if all layers had the global sizes."""
    family = family_of(source.config)
    left_out = ("model_type", per_layer_config.KEY, *_NOT_FROM_FILES)
    values = {key: value for key, value in source.config.items() if key not in left_out}
    problem = excess(source.config)
    if problem is not None:
        raise ModelUnsupported(f"config.json of {source.name} cannot be right: {problem}. Choose another model.")
    try:
        config = AutoConfig.for_model(source.config["model_type"], **values)
        return config, ModelSpec.from_config(config)
    except ModelUnsupported:
        raise
    except Exception as error:  # validators of configuration classes raise many types
        reason = " ".join(str(error).split())
        raise CheckpointBroken(
            f"config.json of {source.name} is not a valid {family.label} configuration: {reason}"
        ) from None
