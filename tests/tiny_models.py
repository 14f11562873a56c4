"""Tiny, really initialised models of stock classes, one line a case: the proof table of every family.

A new family gets an entry in `transact/spec/families.py` and a line here; all exactness tests then cover it.
"""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from transact import LoadedModel

_SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_BIASED = {"attention_bias": True, "mlp_bias": True}
_MULTI_HEAD = {"num_key_value_heads": 8}
_LLAMA3_ROPE = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 6}
_GEMMA = _SLIDING | {
    "query_pre_attn_scalar": 5,
    "pad_token_id": 0,
}
# queries are scaled by their positions, anew from every eighth on
_MINISTRAL3 = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 500.0,
        "factor": 8.0,
        "original_max_position_embeddings": 8,
        "llama_4_scaling_beta": 0.5,
    }
}
_OPT = {"ffn_dim": 40, "word_embed_proj_dim": 32, "dropout": 0.0, "pad_token_id": 0}

TINY: dict[str, tuple[str, dict]] = {
    "llama": ("llama", {}),
    "llama-multi-head": ("llama", _MULTI_HEAD),
    "llama-biased": ("llama", _BIASED),
    "llama-attention-bias": ("llama", {"attention_bias": True} | _MULTI_HEAD),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-scaled-rope": ("llama", _LLAMA3_ROPE),
    "mistral": ("mistral", {"sliding_window": 6}),
    "mistral-multi-head-tied": ("mistral", _MULTI_HEAD | {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "qwen2-multi-head-tied": ("qwen2", _MULTI_HEAD | {"tie_word_embeddings": True}),
    "granite": ("granite", {"logits_scaling": 2.0, "attention_multiplier": 0.3}),
    "granite-biased": ("granite", _BIASED),
    "qwen3": ("qwen3", {}),
    "qwen3-biased-tied": ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", _GEMMA | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", _GEMMA | _MULTI_HEAD | {"attention_bias": True}),
    "olmo2": ("olmo2", {}),
    "olmo2-multi-head-biased": ("olmo2", _MULTI_HEAD | {"attention_bias": True}),
    "phi3": ("phi3", {"pad_token_id": 0, "sliding_window": 6}),
    "phi3-partial-rope": ("phi3", {"pad_token_id": 0, "partial_rotary_factor": 0.5} | _MULTI_HEAD),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1], "pad_token_id": 0}),
    "smollm3-biased": ("smollm3", _BIASED | {"no_rope_layers": [0, 1, 1], "pad_token_id": 0}),
    "stablelm": ("stablelm", {"use_qkv_bias": True}),
    "stablelm-parallel": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True} | _MULTI_HEAD),
    "starcoder2": ("starcoder2", {"sliding_window": 6}),
    "starcoder2-unbiased": ("starcoder2", {"use_bias": False}),
    "gpt-neox": ("gpt_neox", {}),
    "gpt-neox-serial": ("gpt_neox", {"use_parallel_residual": False, "attention_bias": False, "rotary_pct": 0.5}),
    "gpt2": ("gpt2", {"n_inner": 40}),
    "gpt2-default-width": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False}),
    "olmo3": ("olmo3", _SLIDING),
    "olmo3-multi-head-biased": ("olmo3", _SLIDING | _MULTI_HEAD | {"attention_bias": True}),
    "ministral": ("ministral", _SLIDING),
    "ministral3": ("ministral3", _MINISTRAL3),
    "ministral3-sliding-tied": ("ministral3", _MINISTRAL3 | {"sliding_window": 6, "tie_word_embeddings": True}),
    "seed-oss": ("seed_oss", {}),
    "seed-oss-biased": ("seed_oss", {"attention_out_bias": True, "mlp_bias": True}),
    "ernie": ("ernie4_5", {}),
    "ernie-biased": ("ernie4_5", {"use_bias": True, "tie_word_embeddings": False}),
    "glm": ("glm", {"pad_token_id": 0}),
    "glm4": ("glm4", {"pad_token_id": 0}),
    "cohere": ("cohere", {"logit_scale": 0.5}),
    "cohere-head-norms": (
        "cohere",
        {"logit_scale": 0.5, "use_qk_norm": True, "attention_bias": True, "tie_word_embeddings": False},
    ),
    "cohere2": ("cohere2", _SLIDING | {"logit_scale": 0.5}),
    "exaone4": ("exaone4", _SLIDING),
    "apertus": ("apertus", _LLAMA3_ROPE),
    "nemotron": ("nemotron", {}),
    "nemotron-biased": ("nemotron", _BIASED | _MULTI_HEAD),
    "hunyuan": ("hunyuan_v1_dense", {"rope_parameters": {"rope_type": "dynamic", "alpha": 10.0, "factor": 1.0}}),
    "helium": ("helium", {}),
    "helium-multi-head-biased": ("helium", _BIASED | _MULTI_HEAD),
    "arcee": ("arcee", {}),
    "arcee-biased": ("arcee", _BIASED),
    "cwm": ("cwm", _SLIDING | _LLAMA3_ROPE),
    "olmo": ("olmo", {}),
    "olmo-clipped": ("olmo", {"clip_qkv": 0.5, "tie_word_embeddings": True}),
    "phi": ("phi", {}),
    "gemma": ("gemma", {}),
    "opt": ("opt", _OPT),
    "opt-unbiased": ("opt", _OPT | {"enable_bias": False, "tie_word_embeddings": False}),
}


def build(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> LoadedModel:
    """A model of the table; biases are drawn too, as zero biases would hide mistakes."""
    model_type, changes = TINY[name]
    torch.manual_seed(seed)
    # made in its dtype, as a checkpoint would be loaded: constants such as Gemma's embedding scale follow it
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(_SIZES | changes)), dtype=dtype)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(std=0.5)
            elif "norm" not in parameter_name:
                parameter.mul_(8)  # far from the near-zero initialisation, so that every unit matters
    return LoadedModel.from_model(model, source=name)


def with_an_idle_mlp() -> LoadedModel:
    """A Llama of whose three layers the second adds next to nothing to the residual stream by its MLP."""
    loaded = build("llama")
    with torch.no_grad():
        loaded.decoder_layers[1].mlp.down_proj.weight *= 1e-4
    return loaded


def token_ids(loaded: LoadedModel, samples: int = 2, seq: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(3, loaded.spec.vocab_size, (samples, seq), generator=generator)
