"""How much is to be kept: counts, uniform or layer by layer, and ways to derive them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real

from transact.errors import InvalidTarget, choice, is_whole_number
from transact.spec.attention_windows import attended
from transact.spec.kept_counts import (
    Costs,
    Counts,
    Multiples,
    all_within,
    collapse,
    group_counts,
    kept_count,
    largest_within,
)
from transact.spec.kept_layers import only_layers
from transact.spec.model_spec import LayerShape, ModelSpec

GRANULARITIES = ("head_groups", "heads", "head_dims")
"""What attention is cut by: head groups, the same number of query heads in every group, or dimensions of every head."""
INSIDE_HEADS = ("keep_heads_per_group", "keep_query_key_dim", "keep_value_dim")
"""Fields of a target that cut inside groups or heads; None where nothing inside is cut."""
LIMITS_OF_CACHE = ("memory_bytes", "kv_bytes_per_token")
"""Limits of a target that a result with more head groups in all could exceed."""


@dataclass(frozen=True)
class PruningTarget:
    """Head groups and MLP channels to keep: one number for all layers, or a tuple with one per layer.

    `keep_heads_per_group`: query heads to keep in every kept group, the same number in all layers, as a stock
    configuration names one; None for all, which removes groups whole. If no group is removed, the key/value cache
    stays as it is.

    `keep_query_key_dim`, `keep_value_dim`: the kept widths of the queries and keys, and of the values, of every head,
    the same in all layers; None for unchanged. Every head group keeps its own dimensions; queries and keys keep whole
    RoPE pairs, so their width is even. No stock class holds such heads (see `save`), and not every family can have
    them.

    `keep_layers`: how many decoder layers stay, those with the highest `ImportanceScores.layers`; None for all. Tuples
    have one number per layer of the model before the cut; those of layers that go must be possible and are not used.

    `requested` remembers what the counts were derived from, for the plan's summary.
    """

    keep_head_groups: Counts
    keep_channels: Counts
    requested: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    keep_heads_per_group: int | None = None
    keep_query_key_dim: int | None = None
    keep_value_dim: int | None = None
    keep_layers: int | None = None

    def __post_init__(self):
        for name in (*INSIDE_HEADS, "keep_layers"):
            value = getattr(self, name)
            if value is not None:
                if not is_whole_number(value):
                    raise InvalidTarget(f"{name} is {value!r}; give a whole number, or None for all.")
                object.__setattr__(self, name, int(value))
        for name in ("keep_head_groups", "keep_channels"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = tuple(value)
            counts = value if isinstance(value, tuple) else (value,)
            if not counts or not all(map(is_whole_number, counts)):
                raise InvalidTarget(f"{name} is {value!r}; give a whole number, or a tuple with one per layer.")

            plain = tuple(map(int, counts))  # JSON knows no numpy integers
            object.__setattr__(self, name, plain if isinstance(value, tuple) else plain[0])

    @property
    def is_by_layer(self) -> bool:
        """Whether it has one number per layer: manual allocation."""
        return isinstance(self.keep_head_groups, tuple) or isinstance(self.keep_channels, tuple)

    @classmethod
    def from_sparsity(
        cls,
        spec: ModelSpec,
        *,
        attention: float = 0.0,
        mlp: float = 0.0,
        multiple_of: int = 1,
        groups_multiple_of: int = 1,
        granularity: str = "head_groups",
    ) -> "PruningTarget":
        """Keep floor(n · (1 − sparsity)) of a layer's n head groups and channels, at least one.

        With the granularity "heads" all groups stay and n counts the query heads of each; with "head_dims" all heads
        stay, and n counts the RoPE pairs of their queries and keys, and the channels of their values.

        Channels are rounded down to `multiple_of`, head groups that go whole to `groups_multiple_of` (as tensor
        parallelism wants them), but never below it where the layer has as many; a layer that has fewer keeps all.
        Raises `InvalidTarget` for a sparsity outside [0, 1) or a multiple below 1.
        """
        multiples = Multiples.of(multiple_of, groups_multiple_of)
        attention = checked_sparsity("attention sparsity", attention)
        mlp = checked_sparsity("MLP sparsity", mlp)
        choice(granularity, GRANULARITIES, "granularity")
        share = 1 - attention if granularity == "head_groups" else 1.0
        of_groups = multiples.groups if granularity == "head_groups" else 1  # the others keep all groups
        groups = tuple(kept_count(layer.num_key_value_heads, share, of_groups) for layer in spec.layers)
        channels = tuple(kept_count(layer.intermediate_size, 1 - mlp, multiples.channels) for layer in spec.layers)
        requested = (("attention_sparsity", attention), ("mlp_sparsity", mlp), *multiples.requested)
        inside: dict[str, int] = {}
        if granularity == "heads":
            inside["keep_heads_per_group"] = kept_count(spec.group_size, 1 - attention)
        if granularity == "head_dims":
            inside["keep_query_key_dim"] = 2 * kept_count(spec.query_key_dim // 2, 1 - attention)
            inside["keep_value_dim"] = kept_count(spec.value_dim, 1 - attention)
        return cls(collapse(groups), collapse(channels), requested, **inside)

    @classmethod
    def from_parameters(
        cls, spec: ModelSpec, parameters: int, *, multiple_of: int = 1, groups_multiple_of: int = 1
    ) -> "PruningTarget":
        """The largest result of at most `parameters` parameters in all (embeddings included).

        Of all head-group counts, the one whose attention and MLP sparsity come closest to each other; the
        channels then fill what is left. Both are multiples as in `from_sparsity`. Raises `InvalidTarget` below what
        one group and one channel a layer need, or the multiples of them.
        """
        most, multiples = _positive("parameters", parameters), Multiples.of(multiple_of, groups_multiple_of)
        costs = _parameter_costs(spec)
        counts = largest_within(spec, most, costs, multiples)
        if counts is None:
            raise _unreachable(spec, most, multiples)
        return cls(*counts, (("parameters", most), *multiples.requested))

    @classmethod
    def splits(cls, spec: ModelSpec, parameters: int) -> tuple["PruningTarget", ...]:
        """All ways to split at most `parameters` parameters in all between attention and MLP.

        One target for each number of head groups that leaves room for a channel and not for more channels than
        there are, from the fewest groups on; the channels fill what is left, so the targets differ by less than one
        channel a layer. Raises `InvalidTarget` as `from_parameters` does, and for a number that none of them fills.
        """
        most = _positive("parameters", parameters)
        costs = _parameter_costs(spec)
        spare = spec.num_hidden_layers * costs.channel
        filling = [
            cls(collapse(groups), collapse(channels), (("parameters", most),))
            for total, groups, channels in all_within(spec, most, costs, Multiples())
            if total > most - spare
        ]
        if not filling:
            raise _unreachable(spec, most, Multiples())
        return tuple(filling)

    @classmethod
    def from_memory(
        cls,
        spec: ModelSpec,
        memory_bytes: float,
        *,
        context: int,
        bytes_per_element: float = 2,
        multiple_of: int = 1,
        groups_multiple_of: int = 1,
    ) -> "PruningTarget":
        """The largest result whose weights and key/value cache fit in `memory_bytes` together.

        The cache is that of one sequence of `context` tokens (see `ModelSpec.kv_bytes`); weights and cache have
        `bytes_per_element` bytes an element. Balanced, and in multiples, as `from_parameters` is. Raises
        `InvalidTarget` below what one group and one channel a layer need, or the multiples of them, and for numbers
        that are not positive or a context that is not whole.
        """
        multiples = Multiples.of(multiple_of, groups_multiple_of)
        memory_bytes = _positive("memory_bytes", memory_bytes)
        width = _positive("bytes_per_element", bytes_per_element)
        tokens = _positive("context", context)
        if not tokens.is_integer():
            raise InvalidTarget(f"context is {context!r}; give a whole number of tokens from 1.")
        costs = Costs(
            fixed=width * spec.fixed_parameters,
            head_groups=tuple(
                width * (spec.parameters_per_head_group + attended(window, int(tokens)) * spec.cached_elements)
                for window in spec.windows
            ),
            channel=width * spec.parameters_per_channel,
        )
        counts = largest_within(spec, memory_bytes, costs, multiples)
        if counts is None:
            least = int(costs.of(*multiples.least(spec)))
            raise InvalidTarget(
                f"{int(memory_bytes):,} bytes cannot be reached: {multiples} in each layer, their "
                f"cache of {int(tokens):,} tokens and what pruning leaves alone take {least:,} at "
                f"{width:g} bytes an element. Ask for more, a shorter context or fewer bytes an element."
            )
        limits = (("memory_bytes", memory_bytes), ("context", tokens), ("bytes_per_element", width))
        requested = (*limits, *multiples.requested)
        return cls(*counts, requested)

    @classmethod
    def from_kv_bytes(
        cls,
        spec: ModelSpec,
        kv_bytes_per_token: float,
        *,
        bytes_per_element: float = 2,
        multiple_of: int = 1,
        groups_multiple_of: int = 1,
    ) -> "PruningTarget":
        """The most head groups whose key/value cache grows by at most `kv_bytes_per_token` bytes a token.

        The channels are cut to the sparsity that the attention reaches, both to multiples as in `from_sparsity`.
        Raises `InvalidTarget` below what one group a layer needs, or the multiple of it, and for numbers that are not
        positive.
        """
        multiples = Multiples.of(multiple_of, groups_multiple_of)
        budget = _positive("kv_bytes_per_token", kv_bytes_per_token)
        width = _positive("bytes_per_element", bytes_per_element)
        per_group = spec.cached_elements * width
        fitting = [groups for groups in group_counts(spec, multiples.groups) if sum(groups) * per_group <= budget]
        if not fitting:
            least = sum(multiples.least(spec)[0])
            raise InvalidTarget(
                f"{int(budget):,} bytes a token cannot be reached: keeping the fewest head groups caches "
                f"{int(least * per_group):,} at {width:g} bytes an element. Ask for more or fewer bytes an element."
            )
        groups = fitting[-1]
        share = sum(groups) / sum(layer.num_key_value_heads for layer in spec.layers)
        channels = tuple(kept_count(layer.intermediate_size, share, multiples.channels) for layer in spec.layers)
        requested = (("kv_bytes_per_token", budget), ("bytes_per_element", width), *multiples.requested)
        return cls(collapse(groups), collapse(channels), requested)

    def per_layer(self, spec: ModelSpec) -> tuple[LayerShape, ...]:
        """The shape each layer of `spec` will have.

        Raises `InvalidTarget` for counts below one, above what the layer has, or for the wrong number of
        layers; counts are never changed. Layers that go whole are not left out.
        """
        groups = _spread("keep_head_groups", self.keep_head_groups, spec.num_hidden_layers)
        channels = _spread("keep_channels", self.keep_channels, spec.num_hidden_layers)
        per_group = self.heads_per_group(spec)
        self.head_widths(spec)
        self.num_layers(spec)
        shapes = []
        for index, (layer, group, channel) in enumerate(zip(spec.layers, groups, channels, strict=True)):
            _check(index, "head groups", group, layer.num_key_value_heads)
            _check(index, "channels", channel, layer.intermediate_size)
            shapes.append(LayerShape(group * per_group, group, channel))
        return tuple(shapes)

    def spec(self, dense: ModelSpec) -> ModelSpec:
        """The spec of `dense` after the cut. Raises `InvalidTarget` as `per_layer` does.

        Which layers stay is for the scores to say: with `keep_layers` the first ones stand for them.
        """
        widths = self.head_widths(dense)
        spec = dense.with_layers(self.per_layer(dense)).with_heads(**widths)
        return only_layers(spec, range(self.num_layers(dense)))

    def num_layers(self, spec: ModelSpec) -> int:
        """Layers that stay of those of `spec`. Raises `InvalidTarget` for none and for more than there are."""
        available = spec.num_hidden_layers
        if self.keep_layers is None:
            return available
        if not 1 <= self.keep_layers <= available:
            raise InvalidTarget(
                f"keep_layers is {self.keep_layers}; the model has {available} layers and must keep at least 1."
            )
        return self.keep_layers

    def check_keeps_all_layers(self, work: str) -> None:
        """Raise `InvalidTarget` with `keep_layers`, which that work does not know."""
        if self.keep_layers is not None:
            raise InvalidTarget(
                f"{work} does not remove whole layers. Leave out keep_layers; or prune the layers first and go on "
                "from the model that is left."
            )

    def head_widths(self, spec: ModelSpec) -> dict[str, int]:
        """`query_key_dim` and `value_dim` that the heads of `spec` keep.

        Raises `InvalidTarget` for a width that they do not have, and where the family keeps its heads whole.
        """
        kept = {"query_key_dim": self.keep_query_key_dim, "value_dim": self.keep_value_dim}
        if any(width is not None for width in kept.values()) and spec.layout.no_head_dim_pruning_reason is not None:
            raise InvalidTarget(
                f"{spec.layout.label} keeps its heads whole: {spec.layout.no_head_dim_pruning_reason}. Leave out "
                "keep_query_key_dim and keep_value_dim, and remove head groups, or query heads of each."
            )
        widths = {}
        for (name, width), least in zip(kept.items(), (2, 1), strict=True):
            available = getattr(spec, name)
            if width is not None and (not least <= width <= available or width % least):
                raise InvalidTarget(
                    f"keep_{name} is {width}; the heads have {available} and must keep at least {least}"
                    f"{', an even number as RoPE turns pairs' if least == 2 else ''}."
                )
            widths[name] = available if width is None else width
        return widths

    def heads_per_group(self, spec: ModelSpec) -> int:
        """Query heads that every kept group of `spec` keeps. Raises `InvalidTarget` for more than there are."""
        if self.keep_heads_per_group is None:
            return spec.group_size
        if not 1 <= self.keep_heads_per_group <= spec.group_size:
            raise InvalidTarget(
                f"Every head group was told to keep {self.keep_heads_per_group} of its query heads; it has "
                f"{spec.group_size} and must keep at least 1."
            )
        return self.keep_heads_per_group


def checked_sparsity(name: str, value: float) -> float:
    """The value as a float; raises `InvalidTarget` with the name of what it is if it is outside [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < 1:
        raise InvalidTarget(
            f"The {name} is {value!r}; it is the fraction removed and must be at least 0 and below 1, so that "
            "every layer keeps something."
        )
    return float(value)


def _parameter_costs(spec: ModelSpec) -> Costs:
    head_groups = (spec.parameters_per_head_group,) * spec.num_hidden_layers
    return Costs(spec.fixed_parameters, head_groups, spec.parameters_per_channel)


def _unreachable(spec: ModelSpec, parameters: float, multiples: Multiples) -> InvalidTarget:
    least = _parameter_costs(spec).of(*multiples.least(spec))
    return InvalidTarget(
        f"{int(parameters):,} parameters cannot be reached: {multiples} in each layer and what "
        f"pruning leaves alone are {least:,}, the whole model {spec.num_parameters:,}. Ask for a number between."
    )


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < float("inf"):
        raise InvalidTarget(f"{name} is {value!r}; give a positive number.")
    return float(value)


def _spread(name: str, counts: Counts, layers: int) -> tuple[int, ...]:
    if isinstance(counts, int):
        return (counts,) * layers
    if len(counts) != layers:
        raise InvalidTarget(f"{name} has {len(counts)} entries, but the model has {layers} layers. Give one each.")
    return counts


def _check(layer: int, what: str, keep: int, available: int) -> None:
    if not 1 <= keep <= available:
        raise InvalidTarget(
            f"Layer {layer} was told to keep {keep} {what}; it has {available} and must keep at least 1."
        )
