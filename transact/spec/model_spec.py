"""A model's shape, and what it costs, without its weights.

A dense model and a pruned one both have a `ModelSpec`, so every saving is the difference of two specs.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from transact.errors import ModelUnsupported
from transact.spec.attention_windows import Windows, attended, attended_in_all, windows_from, windows_of
from transact.spec.config_family import family_of
from transact.spec.digest import digest
from transact.spec.families import FAMILIES
from transact.spec.family import Family, is_on, width_problem
from transact.spec.head_counts import HEAD_COUNTS, can_name, head_counts_of, next_nameable
from transact.spec.size_limits import MAX_PARAMETERS, checked_size, excess_in_all, from_zero_to

SITES = ("attention", "mlp")
"""The two places in a layer where units are cut."""
HEAD_WIDTHS = ("query_key_dim", "value_dim")
"""What configurations and specs call the widths of heads that are narrower than `head_dim`."""


@dataclass(frozen=True)
class LayerShape:
    """The sizes of one decoder layer that pruning changes."""

    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int

    @property
    def group_size(self) -> int:
        """Query heads per key/value head."""
        return self.num_attention_heads // self.num_key_value_heads


@dataclass(frozen=True)
class ModelSpec:
    """Family, sizes and one `LayerShape` per layer; counts parameters, FLOPs and KV-cache bytes.

    `head_dim` is the configuration's, from which RoPE's frequencies and the scale of the logits come;
    `query_key_dim` and `value_dim` are the widths of the queries and keys, and of the values, of a head: `head_dim` in
    every stock model, less where `transact.layers.narrow_attention` runs.

    `own_head_norms`: every head has norm weights of its own for its queries and keys. `other_parameters`: those that
    pruning never touches and that are neither embeddings of tokens nor biases: norms, those of activation functions and
    learned positions.
    `head_counts` and `windows` (see the modules of these names) belong to the configuration and not to the shape:
    equality and fingerprint leave them out.
    """

    family: str
    hidden_size: int
    head_dim: int
    query_key_dim: int
    value_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    own_head_norms: bool
    other_parameters: int
    layers: tuple[LayerShape, ...]
    head_counts: str = field(compare=False)
    windows: Windows = field(compare=False)

    @classmethod
    def from_config(cls, config) -> "ModelSpec":
        """The spec of a `transformers` configuration.

        Raises `ModelUnsupported` when the family cannot be pruned or the sizes contradict each other.
        """
        family = family_of(config.to_dict())
        hidden, heads = config.hidden_size, config.num_attention_heads
        groups = getattr(config, "num_key_value_heads", None) if family.grouped_queries else heads
        groups = heads if groups is None else groups
        head_dim: Any = getattr(config, "head_dim", None)
        head_dim = hidden // heads if head_dim is None and heads else head_dim
        channels = getattr(config, family.channels)
        channels = 4 * hidden if channels is None else channels
        sizes = (hidden, heads, groups, head_dim, channels, config.num_hidden_layers)
        if min(*sizes, config.vocab_size, config.max_position_embeddings) < 1 or heads % groups:
            raise ModelUnsupported(
                f"The configuration gives hidden size {hidden}, {heads} heads, {groups} key/value heads and {channels} "
                "channels; all must be positive, the heads a multiple of the key/value heads. Check config.json."
            )
        widths = map(config.to_dict().get, HEAD_WIDTHS)
        query_key_dim, value_dim = (head_dim if width is None else width for width in widths)
        problem = width_problem(family, head_dim, query_key_dim, value_dim)
        if problem is not None:
            raise ModelUnsupported(f"The configuration gives {problem}. Check config.json.")

        beside = family.parameters_beside_projections(config, head_dim)
        outside = family.parameters_outside_layers(hidden, config.max_position_embeddings)
        spec = cls(
            family=family.model_type,
            hidden_size=hidden,
            head_dim=head_dim,
            query_key_dim=query_key_dim,
            value_dim=value_dim,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            tie_word_embeddings=bool(config.tie_word_embeddings),
            qkv_bias=is_on(family.qkv_bias, config),
            output_bias=is_on(family.output_bias, config),
            mlp_bias=is_on(family.mlp_bias, config),
            own_head_norms=family.has_norms_of_heads(config) and family.head_norms != "shared",
            other_parameters=beside * config.num_hidden_layers + outside,
            layers=(LayerShape(heads, groups, channels),) * config.num_hidden_layers,
            head_counts=head_counts_of(family, config),
            windows=windows_of(family.windows, config),
        )
        if (problem := excess_in_all(spec.num_parameters)) is not None:
            raise ModelUnsupported(f"The configuration cannot be right: {problem}. Choose another model.")
        return spec

    @property
    def layout(self) -> Family:
        """Where this family keeps its projections."""
        return FAMILIES[self.family]

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layers)

    @property
    def group_size(self) -> int:
        """Query heads per key/value head; the same in every layer."""
        return self.layers[0].group_size

    @property
    def is_uniform(self) -> bool:
        """Whether every layer has the same shape, which stock configurations can express."""
        return len(set(self.layers)) == 1

    @property
    def has_narrow_heads(self) -> bool:
        """Whether heads are narrower than `head_dim`, which no stock class can hold."""
        return (self.query_key_dim, self.value_dim) != (self.head_dim, self.head_dim)

    @property
    def has_bias(self) -> bool:
        return self.qkv_bias or self.output_bias or self.mlp_bias

    @property
    def parameters_per_head_group(self) -> int:
        """Parameters that one head group holds: rows of q, k, v, columns of o, biases, and norms of its own."""
        rows = (self.group_size + 1) * self.query_key_dim + self.value_dim
        columns = self.group_size * self.value_dim
        norms = (self.group_size + 1) * self.head_dim * self.own_head_norms
        return (rows + columns) * self.hidden_size + rows * self.qkv_bias + norms

    @property
    def parameters_per_channel(self) -> int:
        """Parameters that one MLP channel holds: rows of gate (where there is one) and up, a column of down, biases."""
        return (self.mlp_matrices * self.hidden_size) + (self.mlp_matrices - 1) * self.mlp_bias

    def layer_parameters(self, shape: LayerShape) -> int:
        """Parameters of the heads and channels of one layer of that shape."""
        heads = shape.num_key_value_heads * self.parameters_per_head_group
        return heads + shape.intermediate_size * self.parameters_per_channel

    @property
    def mlp_matrices(self) -> int:
        """Gate, up and down, or the last two alone."""
        return 2 if self.layout.gate is None else 3

    @property
    def fixed_parameters(self) -> int:
        """Parameters that pruning never touches: embeddings, output head, norms, output biases."""
        embeddings = self.vocab_size * (self.hidden_size * (2 - self.tie_word_embeddings) + self.layout.head_bias)
        biases = self.num_hidden_layers * self.hidden_size * (self.output_bias + self.mlp_bias)
        return embeddings + self.other_parameters + biases

    @cached_property
    def num_parameters(self) -> int:
        """All parameters; a tied output head counts once."""
        groups = sum(layer.num_key_value_heads for layer in self.layers)
        channels = sum(layer.intermediate_size for layer in self.layers)
        return self.fixed_parameters + groups * self.parameters_per_head_group + channels * self.parameters_per_channel

    def flops_per_token(self, *, context: int) -> int:
        """Forward floating-point operations for one token that is the last of `context`: decoding with a cache.

        2 per weight of every matrix product (output head included, embedding look-up not) plus
        2 · min(context, window) · heads · (query_key_dim + value_dim) a layer for attention.
        """
        return self._flops(1, 1, [attended(window, context) for window in self.windows])

    def prefill_flops(self, tokens: int, *, logits: int | None = None) -> int:
        """Forward floating-point operations for reading a prompt of `tokens` tokens in one pass.

        As `flops_per_token`, where the token at position t sees min(t, window): without windows (tokens + 1) / 2 on
        average. What masks hide is not counted, though some kernels compute it. `logits`: number of last positions
        for which the output head is computed; all by default.
        """
        seen = [attended_in_all(window, tokens) for window in self.windows]
        return self._flops(tokens, tokens if logits is None else logits, seen)

    def _flops(self, tokens: int, logits: int, seen: list[int]) -> int:
        """For `tokens` tokens, `logits` of them with the output head, that see `seen` positions in all per layer."""
        head, flops = self.query_key_dim + self.value_dim, 2 * logits * self.vocab_size * self.hidden_size
        for layer, positions in zip(self.layers, seen, strict=True):
            rows = (layer.num_attention_heads + layer.num_key_value_heads) * head
            rows += self.mlp_matrices * layer.intermediate_size
            flops += 2 * (tokens * rows * self.hidden_size + positions * layer.num_attention_heads * head)
        return flops

    def kv_bytes_per_token(self, bytes_per_element: int = 2, *, context: int = 0) -> int:
        """Bytes the key/value cache grows by with one more token, where it holds `context` of them.

        Σ_layers key/value heads · (query_key_dim + value_dim) · bytes, without those whose window is full.
        """
        return self.kv_bytes(context + 1, bytes_per_element) - self.kv_bytes(context, bytes_per_element)

    def kv_bytes(self, context: int, bytes_per_element: int = 2) -> int:
        """Bytes of the key/value cache of one sequence of `context` tokens.

        Σ_layers min(context, window) · key/value heads · (query_key_dim + value_dim) · bytes.
        """
        held = [attended(window, context) for window in self.windows]
        groups = sum(layer.num_key_value_heads * tokens for layer, tokens in zip(self.layers, held, strict=True))
        return groups * self.cached_elements * bytes_per_element

    @property
    def cached_elements(self) -> int:
        """Elements of the key/value cache that one head group fills per token."""
        return self.query_key_dim + self.value_dim

    def checkpoint_bytes(self, bytes_per_element: int = 2) -> int:
        """Bytes of the weights in a stock checkpoint, without the few kilobytes of headers.

        What a stock configuration cannot express is stored padded with zeros (see `transact.export.checkpoint`).
        """
        return self.stored.num_parameters * bytes_per_element

    def with_layers(self, layers: tuple[LayerShape, ...]) -> "ModelSpec":
        """The same model with layers of these shapes."""
        return replace(self, layers=layers)

    def with_heads(self, *, query_key_dim: int | None = None, value_dim: int | None = None) -> "ModelSpec":
        """The same model with heads of these widths, unchanged where None."""
        widths = zip(HEAD_WIDTHS, (query_key_dim, value_dim), strict=True)
        changes: dict[str, Any] = {name: width for name, width in widths if width is not None}
        return replace(self, **changes)

    def configured_as(self, model: "ModelSpec") -> "ModelSpec":
        """These shapes with the configuration values of `model` beside them, which plans of 1.0 lack."""
        return replace(self, head_counts=model.head_counts, windows=model.windows)

    @property
    def widest(self) -> "ModelSpec":
        """The smallest uniform spec that every layer fits into."""
        widest = LayerShape(
            max(layer.num_attention_heads for layer in self.layers),
            max(layer.num_key_value_heads for layer in self.layers),
            max(layer.intermediate_size for layer in self.layers),
        )
        return self.with_layers((widest,) * self.num_hidden_layers)

    @property
    def compact_family(self) -> str | None:
        """The model type whose stock configuration holds exactly the widest shape; None where padding is needed."""
        layout, heads = self.layout, self.widest.layers[0].num_attention_heads
        if can_name(self.head_counts, heads, hidden_size=self.hidden_size, head_dim=self.head_dim):
            return self.family
        return layout.compact_with_bias if self.has_bias else layout.compact_without_bias

    @property
    def stored(self) -> "ModelSpec":
        """The smallest uniform spec that every layer fits into and that a stock configuration can express."""
        widest = self.widest.with_heads(query_key_dim=self.head_dim, value_dim=self.head_dim)
        if self.compact_family is not None:
            return widest
        shape = widest.layers[0]
        heads, groups = next_nameable(
            self.head_counts, shape.num_key_value_heads, shape.group_size, hidden_size=self.hidden_size,
            head_dim=self.head_dim, grouped_queries=self.layout.grouped_queries,
        )  # fmt: skip
        padded = LayerShape(heads, groups, shape.intermediate_size)
        return widest.with_layers((padded,) * self.num_hidden_layers)

    @property
    def is_stock(self) -> bool:
        """Whether a stock configuration can express exactly this."""
        return self.stored == self

    def tensor_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every checkpoint tensor that pruning relies on: embeddings, projections, norms of heads."""
        layout = self.layout
        yield f"{layout.embeddings}.weight", (self.vocab_size, self.hidden_size)
        for index, layer in enumerate(self.layers):
            for path, rows, columns, bias in self.projection_sizes(layer):
                shape = (columns, rows) if layout.transposed else (rows, columns)
                yield f"{layout.layers}.{index}.{path}.weight", shape
                if bias:
                    yield f"{layout.layers}.{index}.{path}.bias", (rows,)
            if self.has_narrow_heads:
                yield (
                    f"{layout.layers}.{index}.{layout.rotary_pairs_buffer}",
                    (layer.num_key_value_heads, self.query_key_dim // 2),
                )
            for path, heads in self.head_norm_sizes(layer):
                if layout.head_norms != "each":
                    whole = (heads * self.head_dim,) if layout.head_norms == "joint" else (heads, self.head_dim)
                    yield f"{layout.layers}.{index}.{path}.weight", whole
                else:
                    for head in range(heads):
                        yield f"{layout.layers}.{index}.{path}.norms.{head}.weight", (self.head_dim,)

    def attention_width(self, layer: LayerShape) -> int:
        """Channels of the transitional activation of attention: heads · value_dim."""
        return layer.num_attention_heads * self.value_dim

    def head_norm_sizes(self, layer: LayerShape) -> tuple[tuple[str, int], ...]:
        """Path and number of heads of the norms that have weights for every head."""
        if not self.own_head_norms:
            return ()
        layout = self.layout
        assert layout.query_norm is not None and layout.key_norm is not None, "such families name both"
        return ((layout.query_norm, layer.num_attention_heads), (layout.key_norm, layer.num_key_value_heads))

    def projection_sizes(self, layer: LayerShape) -> Iterator[tuple[str, int, int, bool]]:
        """Path, rows, columns and whether there is a bias, of every projection."""
        layout = self.layout
        rows: dict[str, int] = {}
        for role, size in (
            (layout.query, layer.num_attention_heads * self.query_key_dim),
            (layout.key, layer.num_key_value_heads * self.query_key_dim),
            (layout.value, layer.num_key_value_heads * self.value_dim),
            (layout.gate, layer.intermediate_size),
            (layout.up, layer.intermediate_size),
        ):
            if role is not None:
                rows[role] = rows.get(role, 0) + size
        for path, size in rows.items():
            attends = path in (layout.query, layout.key, layout.value)
            yield path, size, self.hidden_size, self.qkv_bias if attends else self.mlp_bias
        yield layout.output, self.hidden_size, self.attention_width(layer), self.output_bias
        yield layout.down, self.hidden_size, layer.intermediate_size, self.mlp_bias

    def to_dict(self) -> dict:
        """JSON-able; `from_dict` reads it back. Heads as wide as `head_dim`, and no windows, are left out."""
        defaults: dict[str, Any] = dict.fromkeys(HEAD_WIDTHS, self.head_dim)
        defaults |= {"head_counts": self.layout.head_counts, "windows": (None,) * self.num_hidden_layers}
        return {name: value for name, value in asdict(self).items() if name not in defaults or value != defaults[name]}

    @classmethod
    def from_dict(cls, values: dict) -> "ModelSpec":
        """The inverse of `to_dict`; raises `KeyError`, `TypeError` or `ValueError` on anything else."""
        if values["family"] not in FAMILIES:
            raise ValueError(f"unknown family {values['family']!r}")
        sizes = ("hidden_size", "head_dim", "vocab_size", "max_position_embeddings")
        flags = ("tie_word_embeddings", "qkv_bias", "output_bias", "mlp_bias", "own_head_norms")
        layers = tuple(
            LayerShape(**{name: checked_size(name, layer[name]) for name in LayerShape.__dataclass_fields__})
            for layer in values["layers"]
        )
        checked_size("num_hidden_layers", len(layers))
        if any(layer.num_attention_heads % layer.num_key_value_heads for layer in layers):
            raise ValueError("heads must be a multiple of their key/value heads")
        if len({layer.group_size for layer in layers}) != 1:
            raise ValueError("layers must share one number of heads per key/value head")
        head_dim = values["head_dim"]
        widths: dict[str, Any] = {name: checked_size(name, values.get(name, head_dim)) for name in HEAD_WIDTHS}
        checked: dict[str, Any] = {name: checked_size(name, values[name]) for name in sizes}
        problem = width_problem(FAMILIES[values["family"]], head_dim, **widths)
        if problem is not None:
            raise ValueError(problem)
        spec = cls(
            family=values["family"],
            **checked,
            **widths,
            **{name: bool(values[name]) for name in flags},
            other_parameters=from_zero_to(MAX_PARAMETERS, values["other_parameters"]),
            layers=layers,
            head_counts=values.get("head_counts", FAMILIES[values["family"]].head_counts),
            windows=windows_from(values.get("windows"), len(layers)),
        )
        if spec.head_counts not in HEAD_COUNTS:
            raise ValueError(f"{str(spec.head_counts)[:40]!r} is none of {', '.join(HEAD_COUNTS)}")
        if spec.stored.layers[0].num_attention_heads < spec.widest.layers[0].num_attention_heads:
            raise ValueError("no configuration of this family has so many heads")
        if (problem := excess_in_all(spec.num_parameters)) is not None:
            raise ValueError(problem)
        return spec

    @cached_property
    def fingerprint(self) -> str:
        """A short digest of family and shapes; the dtype is left out."""
        shapes = {name: value for name, value in self.to_dict().items() if name not in ("head_counts", "windows")}
        return digest(json.dumps(shapes, sort_keys=True))
