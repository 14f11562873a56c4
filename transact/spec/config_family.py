"""The family of a config.json, or the reason why it has none."""

from transact.errors import ModelUnsupported
from transact.spec.families import FAMILIES, OWN_PREFIX
from transact.spec.family import Family

_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")
_DENSE = (None, 0, 1)
"""What these keys hold where there is one MLP a layer; HunYuan's dense models name one expert."""
_REMEDY = "Choose a decoder of one of these families: {families}."


def family_of(config: dict) -> Family:
    """The family of a raw `config.json`; raises `ModelUnsupported` with the reason if it cannot be pruned.

    A model type of our own belongs to the family that it narrows.
    """
    remedy = _REMEDY.format(families=", ".join(f"{f.label} ({f.model_type})" for f in FAMILIES.values()))
    model_type = config.get("model_type")
    architectures = config.get("architectures") or []
    architectures = [architectures] if isinstance(architectures, str) else architectures
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise ModelUnsupported(
            f"The configuration's architectures are {architectures!r}, not a list of names. {remedy}"
        )
    if not isinstance(model_type, str):
        raise ModelUnsupported(f"The configuration names no model_type, so its layout is unknown. {remedy}")
    if config.get("quantization_config"):
        method = config["quantization_config"]
        method = method.get("quant_method", "unknown") if isinstance(method, dict) else "unknown"
        raise ModelUnsupported(
            f"This {model_type} checkpoint is quantised ({method}); packed weights cannot be sliced. "
            "Choose the unquantised original."
        )
    if config.get("is_encoder_decoder"):
        raise ModelUnsupported(f"{model_type} is an encoder-decoder model, not a decoder. {remedy}")
    if any(config.get(key) not in _DENSE for key in _EXPERT_KEYS) or "moe" in model_type:
        raise ModelUnsupported(
            f"{model_type} is a mixture-of-experts model; its channels are routed and not pruned here. {remedy}"
        )
    if any(name.endswith("ForMaskedLM") for name in architectures):
        raise ModelUnsupported(f"{model_type} is an encoder (masked language model), not a decoder. {remedy}")
    family = FAMILIES.get(model_type.removeprefix(OWN_PREFIX))
    if family is None or (model_type != family.model_type and family.no_head_dim_pruning_reason is not None):
        raise ModelUnsupported(f"The model type {model_type!r} is not supported. {remedy}")
    if architectures and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise ModelUnsupported(
            f"This checkpoint holds {', '.join(architectures)}, which has no language-model head. {remedy}"
        )
    for needed in family.requires:
        value = config.get(needed.key, needed.value)
        if value != needed.value:
            raise ModelUnsupported(
                f"This {family.label} model has {needed.key} = {value!r}: {needed.reason}. {family.label} is supported "
                f"with {needed.key} = {needed.value!r}."
            )
    return family
