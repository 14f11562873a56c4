"""What a model family says of itself: where the projections of a layer live, and what else differs among families."""

from dataclasses import dataclass
from typing import Literal

ACTIVATION_PARAMETERS = {"xielu": 2}
"""Parameters of an activation function that has some, by its name in `transformers`."""

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

    `layer_norms`: norms of `hidden_size` weights in a layer (and one after the last), with a bias where `norm_bias`,
    with neither unless `norm_weights`; with `parallel` residuals (attention and MLP read the same stream) there are
    `parallel_norms`.
    `query_norm`, `key_norm`: norms of queries and keys, where `has_head_norms`; `head_norms` says over what: one norm
    "shared" by all heads, one over all heads "joint"ly, or "each" head its own, which may be "stacked" in one weight
    [head, head_dim]. `post_attention`, `post_mlp`: norms of
    what a module adds to the residual stream.

    `residual_multiplier`: the configuration key of what a module's output is scaled with; None where nothing is.
    `channels`: the configuration key of the number of MLP channels, 4 · hidden_size where it holds None.
    `file_names`: tensors that the stock class renames as it reads and writes files: name in the model, name in files.
    `windows`: which layers attend to the last `sliding_window` positions alone, where the configuration names a number:
    none, all, or those that are "sliding_attention" in its "layer_types".
    `head`: the output head, which may be the embeddings again; `head_bias`: whether it has a bias.
    `layer_lists`: configuration keys that hold a list with one entry per layer; `first_layers`: one that holds a number
    of layers from the first; `index_scale`: one that lets attention depend on the number of its layer.
    `rope_names`: what `transformers` 4 calls entries of `rope_parameters`, which it has at the top of config.json: name
    now, name in version 4; `local_rope_theta`: its name for the base of layers with a sliding window, where these have
    their own; `rope_scaling_keys`: what its `rope_scaling` consists of, where its class takes nothing else.
    `lowest_transformers`: the lowest version that is known to read what is written, and to compute the same.
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
    norm_weights: bool = True
    parallel: ConfigFlag = False
    parallel_norms: int = 2
    query_norm: str | None = None
    key_norm: str | None = None
    head_norms: Literal["shared", "joint", "each", "stacked"] = "shared"
    has_head_norms: ConfigFlag = True
    post_attention: str | None = None
    post_mlp: str | None = None
    residual_multiplier: str | None = None
    channels: str = "intermediate_size"
    windows: Literal["none", "all", "layer_types"] = "none"
    rope_names: tuple[tuple[str, str], ...] = _ROPE_NAMES
    local_rope_theta: str | None = None
    rope_scaling_keys: tuple[str, ...] = ()
    lowest_transformers: str = "4.57"
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
    head_bias: bool = False
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
        return hidden_size * (self.norm_weights + self.norm_bias + rows)

    def parameters_beside_projections(self, config, head_dim: int) -> int:
        """Those of a layer that pruning never touches: norms but those of single heads, and the activation function."""
        norms = self.parallel_norms if is_on(self.parallel, config) else self.layer_norms
        shared = 2 * head_dim * (self.has_norms_of_heads(config) and self.head_norms == "shared")
        activation = ACTIVATION_PARAMETERS.get(getattr(config, "hidden_act", ""), 0)
        return norms * config.hidden_size * (self.norm_weights + self.norm_bias) + shared + activation

    def has_norms_of_heads(self, config) -> bool:
        """Whether queries and keys are normed."""
        return self.query_norm is not None and is_on(self.has_head_norms, config)

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
