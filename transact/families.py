"""What is known of each model family, as data.

A family says where the projections of a layer live, by *role*, and which of them carry a bias; nothing
else in the package knows a module's name. Adding a family is one entry here and one line in the table of
`tests/tiny_models.py`.

Sources: the modeling and configuration files of `transformers` 5.23 for each model type.
"""

from dataclasses import dataclass

from transact.errors import ModelUnsupported

ConfigFlag = bool | str
"""A fixed answer, or the name of the configuration key that holds it."""


@dataclass(frozen=True)
class Family:
    """Where things are in one `model_type`.

    `query` ... `down` are paths relative to a decoder layer, `layers` is relative to the causal-LM model.
    `qkv_bias`, `output_bias`, `mlp_bias`: whether these projections have a bias.
    `heads_divide_hidden`: the configuration class refuses head counts that do not divide `hidden_size`.
    `compact_without_bias`, `compact_with_bias`: the model type that computes the same function from the
    same tensor names and takes any head count; None where there is none.
    `residual_multiplier`: the configuration key of what a module's output is scaled with; None where nothing is.
    """

    model_type: str
    label: str
    qkv_bias: ConfigFlag = False
    output_bias: ConfigFlag = False
    mlp_bias: ConfigFlag = False
    heads_divide_hidden: bool = False
    compact_without_bias: str | None = None
    compact_with_bias: str | None = None
    residual_multiplier: str | None = None
    layers: str = "model.layers"
    embeddings: str = "model.embed_tokens"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    output: str = "self_attn.o_proj"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "llama",
            "Llama",
            qkv_bias="attention_bias",
            output_bias="attention_bias",
            mlp_bias="mlp_bias",
            heads_divide_hidden=True,
            compact_without_bias="mistral",
            compact_with_bias="granite",
        ),
        Family("mistral", "Mistral"),
        Family("qwen2", "Qwen2", qkv_bias=True),
        Family(
            "granite",
            "Granite",
            residual_multiplier="residual_multiplier",
            qkv_bias="attention_bias",
            output_bias="attention_bias",
            mlp_bias="mlp_bias",
        ),
    )
}

_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")
_REMEDY = "Choose a decoder of one of these families: {families}."


def family_of(config: dict) -> Family:
    """The family of a raw `config.json`; raises `ModelUnsupported` with the reason if it cannot be pruned."""
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
    if any(config.get(key) for key in _EXPERT_KEYS) or "moe" in model_type:
        raise ModelUnsupported(
            f"{model_type} is a mixture-of-experts model; its channels are routed and not pruned here. {remedy}"
        )
    if any(name.endswith("ForMaskedLM") for name in architectures):
        raise ModelUnsupported(f"{model_type} is an encoder (masked language model), not a decoder. {remedy}")
    if model_type not in FAMILIES:
        raise ModelUnsupported(f"The model type {model_type!r} is not supported. {remedy}")
    if architectures and not any(name.endswith("ForCausalLM") for name in architectures):
        raise ModelUnsupported(
            f"This checkpoint holds {', '.join(architectures)}, which has no language-model head. {remedy}"
        )
    return FAMILIES[model_type]
