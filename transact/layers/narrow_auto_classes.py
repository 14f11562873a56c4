"""Model classes for narrower heads, so that a checkpoint of them is loaded as any other.

`import transact` registers a model type `transact_<family>` for every family whose heads can be cut, with the stock
configuration and the stock class as their bases: the configuration has `query_key_dim` and `value_dim` beside
`head_dim`, the model `NarrowAttention` in place of attention. So

    import transact
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("path/to/folder")

loads what `ta.save(…, layers="compact")` wrote; without the first line `transformers` refuses the model type.
"""

from functools import cache
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from transact.layers.slicing import shrink
from transact.spec.families import FAMILIES, OWN_PREFIX
from transact.spec.model_spec import HEAD_WIDTHS, ModelSpec


def narrow_config(stock: PreTrainedConfig, spec: ModelSpec) -> PreTrainedConfig:
    """The configuration of our own class for a stock one and heads as wide as those of `spec`."""
    values = stock.to_dict()
    del values["model_type"]
    widths = {name: getattr(spec, name) for name in HEAD_WIDTHS}
    return AutoConfig.for_model(OWN_PREFIX + stock.model_type, **values | widths)


@cache
def _model_class(config_class: type) -> type[Any]:
    """The stock class with narrower heads; made on demand, as it imports the stock one."""
    stock = MODEL_FOR_CAUSAL_LM_MAPPING[config_class.__base__]

    def __init__(self, config: PreTrainedConfig, *arguments, **named):
        stock.__init__(self, config, *arguments, **named)
        spec = ModelSpec.from_config(config)
        whole = spec.with_heads(query_key_dim=spec.head_dim, value_dim=spec.head_dim)
        for layer, shape in zip(self.get_submodule(spec.layout.layers), spec.layers, strict=True):
            shrink(layer, shape, shape, whole, spec)

    members = {"__init__": __init__, "__module__": __name__, "config_class": config_class}
    # FlashAttention needs values as wide as queries and keys
    return type(f"Transact{stock.__name__}", (stock,), members | {"_supports_flash_attn": False})


class _Dispatcher:
    """Registered with the auto classes in place of a model class that is not made yet."""

    config_class: type

    @classmethod
    def from_pretrained(cls, *arguments, **named):
        return _model_class(cls.config_class).from_pretrained(*arguments, **named)

    @classmethod
    def _from_config(cls, config: PreTrainedConfig, **named):
        return _model_class(cls.config_class)._from_config(config, **named)


def _register() -> None:
    for family in FAMILIES.values():
        if family.no_head_dim_pruning_reason is None:
            stock = CONFIG_MAPPING[family.model_type]
            members = {"model_type": OWN_PREFIX + family.model_type, "__module__": __name__}
            config_class = type(f"Transact{stock.__name__}", (stock,), members)
            name = config_class.__name__.replace("Config", "ForCausalLM")
            AutoConfig.register(members["model_type"], config_class, exist_ok=True)
            AutoModelForCausalLM.register(
                config_class, type(name, (_Dispatcher,), {"config_class": config_class}), exist_ok=True
            )


_register()
