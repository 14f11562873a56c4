"""What is known of each model family, as data.

A family says where the projections of a layer live, by *role*, how they are packed, which of them carry a bias and
which norms stand around them; nothing else in the package knows a module's name. Adding a family is one entry here and
one line in the table of `tests/tiny_models.py`.

Sources: the modeling and configuration files of `transformers` 5.23 for each model type.
"""

from dataclasses import dataclass
from typing import Any, Literal

ConfigFlag = bool | str
"""A fixed answer, or the name of the configuration key that holds it."""


def is_on(flag: ConfigFlag, config) -> bool:
    """The flag's answer for a configuration."""
    return bool(getattr(config, flag)) if isinstance(flag, str) else flag


@dataclass(frozen=True)
class Requirement:
    """A configuration key that has to have this value, and why."""

    key: str
    value: object
    reason: str


_ROPE_NAMES = tuple((name, name) for name in ("rope_theta", "partial_rotary_factor"))


@dataclass(frozen=True)
class Family:
    """Where things are in one `model_type`.

    `query` ... `down` are paths relative to a decoder layer, `layers` is relative to the causal-LM model. Roles that
    share a path are packed in one module: one after the other, or with `packed_by_head` head by head. `gate` is None
    where the MLP has none. `transposed`: the projections are `Conv1D`, whose weight is [in, out].

    `qkv_bias`, `output_bias`, `mlp_bias`: whether these projections have a bias.

    `head_counts`: which numbers of heads the stock configuration can name beside an unchanged head size: any, those
    that divide `hidden_size`, or, with "fixed", only hidden_size / head_dim. `fixed_with_rope`: RoPE types that make it
    "fixed", as the configuration checks their factors against hidden_size / heads whatever `head_dim` says (Phi-3).
    `compact_without_bias`, `compact_with_bias`: the model type that computes the same function from tensors of the same
    names and takes any number; None where there is none. `grouped_queries`: whether key/value heads may be fewer than
    heads. `attention_sizes`: attributes of the attention module that hold its number of "heads" or "groups", or its
    "width" (heads · head_dim). `attention_reads_config`: it reads the number of heads from its configuration at every
    call.

    `no_head_dim_pruning_reason`: why heads cannot be made narrower (see `transact.layers.narrow_attention`); None where
    they can: projections of their own under the usual names, half-rotated RoPE over the whole head or none, logits from
    queries and keys as they come out of it.

    `layer_norms`: norms of `hidden_size` weights in a layer (and one after the last), with a bias where `norm_bias`;
    with `parallel` residuals (attention and MLP read the same stream) there are `parallel_norms`.
    `query_norm`, `key_norm`: norms of queries and keys, where `has_head_norms`; `head_norms` says over what: one norm
    "shared" by all heads, one over all heads "joint"ly, or "each" head its own. `post_attention`, `post_mlp`: norms of
    what a module adds to the residual stream.

    `residual_multiplier`: the configuration key of what a module's output is scaled with; None where nothing is.
    `channels`: the configuration key of the number of MLP channels, 4 · hidden_size where it holds None.
    `file_names`: tensors that the stock class renames as it reads and writes files: name in the model, name in files.
    `windows`: which layers attend to the last `sliding_window` positions alone, where the configuration names a number:
    none, all, or those that are "sliding_attention" in its "layer_types".
    `head`: the output head, which may be the embeddings again.
    `layer_lists`: configuration keys that hold a list with one entry per layer; `first_layers`: one that holds a number
    of layers from the first; `index_scale`: one that lets attention depend on the number of its layer.
    `rope_names`: what `transformers` 4 calls entries of `rope_parameters`, which it has at the top of config.json: name
    now, name in version 4; `local_rope_theta`: its name for the base of layers with a sliding window, where these have
    their own; `rope_scaling_keys`: what its `rope_scaling` consists of, where its class takes nothing else.
    `needs_eager`: the configuration key of what `transformers` 4 leaves out of its attention unless that is "eager".
    `position_rows`: rows of learned position embeddings beyond `max_position_embeddings`; None where none are learned.
    """

    model_type: str
    label: str
    qkv_bias: ConfigFlag = False
    output_bias: ConfigFlag = False
    mlp_bias: ConfigFlag = False
    head_counts: Literal["any", "divisors", "fixed"] = "any"
    fixed_with_rope: tuple[str, ...] = ()
    compact_without_bias: str | None = None
    compact_with_bias: str | None = None
    grouped_queries: bool = True
    attention_sizes: tuple[tuple[str, Literal["heads", "groups", "width"]], ...] = ()
    attention_reads_config: bool = False
    no_head_dim_pruning_reason: str | None = "it is not known here how its attention would run with narrower ones"
    layer_norms: int = 2
    norm_bias: bool = False
    parallel: ConfigFlag = False
    parallel_norms: int = 2
    query_norm: str | None = None
    key_norm: str | None = None
    head_norms: Literal["shared", "joint", "each"] = "shared"
    has_head_norms: ConfigFlag = True
    post_attention: str | None = None
    post_mlp: str | None = None
    residual_multiplier: str | None = None
    channels: str = "intermediate_size"
    windows: Literal["none", "all", "layer_types"] = "none"
    rope_names: tuple[tuple[str, str], ...] = _ROPE_NAMES
    local_rope_theta: str | None = None
    rope_scaling_keys: tuple[str, ...] = ()
    needs_eager: str | None = None
    position_rows: int | None = None
    layer_lists: tuple[str, ...] = ("layer_types",)
    first_layers: str = "max_window_layers"
    index_scale: str | None = None
    file_names: tuple[tuple[str, str], ...] = ()
    requires: tuple[Requirement, ...] = ()
    transposed: bool = False
    packed_by_head: bool = False
    layers: str = "model.layers"
    embeddings: str = "model.embed_tokens"
    head: str = "lm_head"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    output: str = "self_attn.o_proj"
    gate: str | None = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"

    def parameters_outside_layers(self, hidden_size: int, max_positions: int) -> int:
        """Those beside embeddings of tokens and output head: the norm after the last layer, and learned positions."""
        rows = 0 if self.position_rows is None else max_positions + self.position_rows
        return hidden_size * (1 + self.norm_bias + rows)

    def names_in_files(self, name: str) -> tuple[str, ...]:
        """The names under which files may hold a model's tensor; those of a bare decoder leave out its own in front."""
        base = f"{self.layers.partition('.')[0]}."
        renamed = dict(self.file_names).get(name)
        return tuple(dict.fromkeys((name, name.removeprefix(base), renamed or name)))

    @property
    def decoder(self) -> str:
        """Path of the module that owns the layers."""
        return self.layers.rpartition(".")[0]

    @property
    def attention(self) -> str:
        """The attention module."""
        return self.output.rpartition(".")[0]

    @property
    def rotary_pairs_buffer(self) -> str:
        """The buffer of RoPE pairs that narrower heads have kept; stock attention has none."""
        return f"{self.attention}.pairs"

    @property
    def projections(self) -> tuple[str, ...]:
        """Every module that pruning narrows, once."""
        roles = (self.query, self.key, self.value, self.output, self.gate, self.up, self.down)
        return tuple(dict.fromkeys(role for role in roles if role is not None))


_ATTENTION_BIAS: dict[str, Any] = {"qkv_bias": "attention_bias", "output_bias": "attention_bias"}
_NORMED = "it norms its queries and keys, which would be other norms over fewer dimensions"
_HEAD_NORMS: dict[str, Any] = {
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "no_head_dim_pruning_reason": _NORMED,
}
_NO_ROPE = "it learns its positions and has no RoPE pairs"
_NARROW: dict[str, Any] = {"no_head_dim_pruning_reason": None}
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
            gate="mlp.gate_up_proj",
            up="mlp.gate_up_proj",
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


def width_problem(family: Family, head_dim: int, query_key_dim: int, value_dim: int) -> str | None:
    """What is wrong with widths of heads, if no cut can give them; else None."""
    if (query_key_dim, value_dim) == (head_dim, head_dim):
        return None
    widths = f"heads of {head_dim} with queries and keys of {query_key_dim!r} and values of {value_dim!r}"
    if family.no_head_dim_pruning_reason is not None:
        return f"{widths}, but {family.label} keeps its heads whole: {family.no_head_dim_pruning_reason}"
    whole = all(isinstance(width, int) and not isinstance(width, bool) for width in (query_key_dim, value_dim))
    possible = whole and 2 <= query_key_dim <= head_dim and query_key_dim % 2 == 0 and 1 <= value_dim <= head_dim
    if possible:
        return None
    return f"{widths}; both are whole numbers, that of queries and keys an even one, and neither is wider than the head"


OWN_PREFIX = "transact_"
"""Prefix of the model type of our own classes, with narrower heads (`transact.layers.narrow_auto_classes`)."""
