"""The table of model families.

An entry says how a family differs from the layout of Llama (see `Family`); nothing else in the package knows a module's
name. Adding a family is one entry here and one line in the table of `tests/tiny_models.py`.

Sources: the modeling and configuration files of `transformers` 5.23 for each model type.
"""

from typing import Any

from transact.spec.family import Family, Requirement

_ATTENTION_BIAS: dict[str, Any] = {"qkv_bias": "attention_bias", "output_bias": "attention_bias"}
_NORMED = "it norms its queries and keys, which would be other norms over fewer dimensions"
_HEAD_NORMS: dict[str, Any] = {
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "no_head_dim_pruning_reason": _NORMED,
}
_NO_ROPE = "it learns its positions and has no RoPE pairs"
_NARROW: dict[str, Any] = {"no_head_dim_pruning_reason": None}
_PACKED_GATE: dict[str, Any] = {"gate": "mlp.gate_up_proj", "up": "mlp.gate_up_proj"}
_HELD_COUNTS: dict[str, Any] = {
    "attention_sizes": (("num_attention_heads", "heads"), ("num_key_value_heads", "groups"))
}
_POST_NORMS: dict[str, Any] = {"post_attention": "post_attention_layernorm", "post_mlp": "post_feedforward_layernorm"}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "llama",
            "Llama",
            **_ATTENTION_BIAS,
            **_NARROW,
            mlp_bias="mlp_bias",
            head_counts="divisors",
            compact_without_bias="mistral",
            compact_with_bias="granite",
        ),
        Family("mistral", "Mistral", **_NARROW, windows="all"),
        Family("qwen2", "Qwen2", **_NARROW, qkv_bias=True, windows="layer_types"),
        Family("qwen3", "Qwen3", **_ATTENTION_BIAS, **_HEAD_NORMS, windows="layer_types"),
        Family(
            "gemma2",
            "Gemma 2",
            **_ATTENTION_BIAS,
            **_POST_NORMS,
            head_counts="divisors",
            no_head_dim_pruning_reason="it caps the logits of its attention, which ours does not",
            needs_eager="attn_logit_softcapping",
            layer_norms=4,
            windows="layer_types",
        ),
        Family(
            "gemma3_text",
            "Gemma 3",
            **_ATTENTION_BIAS,
            **_POST_NORMS,
            **_HEAD_NORMS,
            head_counts="divisors",
            layer_norms=4,
            windows="layer_types",
            local_rope_theta="rope_local_base_freq",
        ),
        Family(
            "olmo2",
            "OLMo 2",
            **_ATTENTION_BIAS,
            **_POST_NORMS,
            **_HEAD_NORMS,
            head_norms="joint",
            rope_scaling_keys=("type", "factor"),
        ),
        Family(
            "olmo3",
            "OLMo 3",
            **_ATTENTION_BIAS,
            **_POST_NORMS,
            **_HEAD_NORMS,
            head_norms="joint",
            windows="layer_types",
            local_rope_theta="rope_theta",
        ),
        Family("ministral", "Ministral", **_NARROW, windows="layer_types"),
        Family(
            "ministral3",
            "Ministral 3",
            lowest_transformers="5.0",
            no_head_dim_pruning_reason="it scales its queries by their positions, which ours does not",
            windows="all",
        ),
        Family(
            "seed_oss",
            "Seed-OSS",
            **_NARROW,
            **_HELD_COUNTS,
            qkv_bias="attention_bias",
            output_bias="attention_out_bias",
            mlp_bias="mlp_bias",
        ),
        Family(
            "arcee", "Arcee (AFM)", **_ATTENTION_BIAS, **_NARROW, mlp_bias="mlp_bias", head_counts="divisors", gate=None
        ),
        Family(
            "cwm",
            "CWM",
            **_NARROW,
            lowest_transformers="5.0",
            mlp_bias="mlp_bias",
            head_counts="divisors",
            windows="layer_types",
        ),
        Family(
            "olmo",
            "OLMo",
            **_ATTENTION_BIAS,
            no_head_dim_pruning_reason="it may clip its queries, keys and values, which ours does not",
            norm_weights=False,
            rope_scaling_keys=("type", "factor"),
        ),
        Family("gemma", "Gemma", **_ATTENTION_BIAS, **_NARROW),
        Family(
            "phi3",
            "Phi-3",
            attention_sizes=(("num_key_value_heads", "groups"),),
            attention_reads_config=True,
            rope_scaling_keys=("type", "short_factor", "long_factor"),
            no_head_dim_pruning_reason="its queries, keys and values are packed in one projection",
            windows="all",
            fixed_with_rope=("longrope",),
            query="self_attn.qkv_proj",
            key="self_attn.qkv_proj",
            value="self_attn.qkv_proj",
            **_PACKED_GATE,
        ),
        Family(
            "granite",
            "Granite",
            **_ATTENTION_BIAS,
            **_NARROW,
            mlp_bias="mlp_bias",
            residual_multiplier="residual_multiplier",
        ),
        Family(
            "smollm3",
            "SmolLM3",
            **_ATTENTION_BIAS,
            **_NARROW,
            mlp_bias="mlp_bias",
            windows="layer_types",
            layer_lists=("layer_types", "no_rope_layers"),
        ),
        Family(
            "stablelm",
            "StableLM",
            qkv_bias="use_qkv_bias",
            head_counts="fixed",
            no_head_dim_pruning_reason="it turns a part of each head alone, and may norm its queries and keys",
            attention_sizes=(("num_heads", "heads"), ("num_key_value_heads", "groups")),
            norm_bias=True,
            parallel="use_parallel_residual",
            parallel_norms=1,
            query_norm="self_attn.q_layernorm",
            key_norm="self_attn.k_layernorm",
            head_norms="each",
            has_head_norms="qk_layernorm",
        ),
        Family(
            "starcoder2",
            "Starcoder2",
            **_NARROW,
            qkv_bias="use_bias",
            output_bias="use_bias",
            mlp_bias="use_bias",
            windows="all",
            norm_bias=True,
            gate=None,
            up="mlp.c_fc",
            down="mlp.c_proj",
        ),
        Family(
            "gpt_neox",
            "GPT-NeoX (Pythia)",
            **_ATTENTION_BIAS,
            mlp_bias=True,
            head_counts="fixed",
            no_head_dim_pruning_reason=(
                "its queries, keys and values are packed head by head, and a part of each is turned"
            ),
            grouped_queries=False,
            norm_bias=True,
            parallel="use_parallel_residual",
            packed_by_head=True,
            rope_names=(("rope_theta", "rotary_emb_base"), ("partial_rotary_factor", "rotary_pct")),
            file_names=(("lm_head.weight", "embed_out.weight"),),
            layers="gpt_neox.layers",
            embeddings="gpt_neox.embed_in",
            query="attention.query_key_value",
            key="attention.query_key_value",
            value="attention.query_key_value",
            output="attention.dense",
            gate=None,
            up="mlp.dense_h_to_4h",
            down="mlp.dense_4h_to_h",
        ),
        Family(
            "gpt2",
            "GPT-2",
            qkv_bias=True,
            output_bias=True,
            mlp_bias=True,
            head_counts="fixed",
            no_head_dim_pruning_reason=_NO_ROPE,
            grouped_queries=False,
            attention_sizes=(("num_heads", "heads"), ("split_size", "width")),
            norm_bias=True,
            channels="n_inner",
            needs_eager="scale_attn_by_inverse_layer_idx",
            index_scale="scale_attn_by_inverse_layer_idx",
            position_rows=0,
            requires=(Requirement("add_cross_attention", False, "its cross-attention reads another model's text"),),
            transposed=True,
            layers="transformer.h",
            embeddings="transformer.wte",
            query="attn.c_attn",
            key="attn.c_attn",
            value="attn.c_attn",
            output="attn.c_proj",
            gate=None,
            up="mlp.c_fc",
            down="mlp.c_proj",
        ),
        Family(
            "opt",
            "OPT",
            qkv_bias="enable_bias",
            output_bias="enable_bias",
            mlp_bias="enable_bias",
            head_counts="fixed",
            no_head_dim_pruning_reason=_NO_ROPE,
            grouped_queries=False,
            attention_sizes=(("num_heads", "heads"),),
            norm_bias=True,
            channels="ffn_dim",
            position_rows=2,
            requires=(
                Requirement("do_layer_norm_before", True, "it norms the residual stream itself (as OPT-350m does)"),
                Requirement("layer_norm_elementwise_affine", True, "its norms have no weights (as in Galactica)"),
                Requirement("_remove_final_layer_norm", False, "it lacks the last norm (early OPT checkpoints)"),
            ),
            layers="model.decoder.layers",
            embeddings="model.decoder.embed_tokens",
            output="self_attn.out_proj",
            gate=None,
            up="fc1",
            down="fc2",
        ),
    )
}

OWN_PREFIX = "transact_"
"""Prefix of the model type of our own classes, with narrower heads (`transact.layers.narrow_auto_classes`)."""
