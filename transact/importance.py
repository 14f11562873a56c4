"""How much each head, head group and channel matters: pure functions of statistics and weight norms.

With x_j a channel of a transitional activation, s_j = sqrt(Σ_tokens x_j²), and W the projection that reads it
(`o_proj` or `down_proj`, [hidden, channel]):

- transact (Shen et al. 2024, arXiv 2407.05690): s_j; a head scores mean_j s_j + (10 / head_dim) · max_j s_j.
- wanda (Wanda-sp, Sun et al. 2023 and An et al. 2023): Σ_i |W_ij| · s_j.
- fluctuation (WIFV of FLAP, An et al. 2023, arXiv 2312.11983): Var_tokens(x_j) · ‖W_:j‖².
- flap (the same as the authors' `lib/prune.py` uses it): in attention the square of that, and a head scores the mean
  over its channels. Their variance is a running estimate over samples; ours is the exact one over all tokens. See the
  allocation "flap" (`transact.allocation.keep_above_threshold`) for what they compare these scores by.
- magnitude: ‖W_:j‖.
- taylor (the paper's other scorer, and LLM-Pruner's, Ma et al. 2023, arXiv 2305.11627): Σ |weight · gradient| over
  the weights that go with the channel, biases left out; from statistics observed with `taylor=True`. See
  `transact.taylor` for whose absolute values.
- random: uniform in [0, 1), seeded; the floor that any metric must beat.

For all others a head scores the sum over its channels. A head group scores the mean of its heads.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from transact.errors import InvalidOption, InvalidPlan, choice, seed_number
from transact.loading import LoadedModel
from transact.matrices import matrix
from transact.progress import NO_PROGRESS, Progress, Repeating
from transact.spec import ModelSpec
from transact.statistics import ActivationStatistics, Moments

_MAX_SHARE = 10.0
"""Weight of a head's largest channel beside its mean, divided by head_dim (the authors' `pruning/prune.py`)."""


@dataclass(frozen=True)
class Site:
    """One projection with the statistics of its input: `weight` [hidden, channel], as the model holds it.

    `is_attention`: the input is that of the attention's output projection, and not the MLP's.
    """

    weight: torch.Tensor
    moments: Moments
    num_tokens: int | torch.Tensor
    is_attention: bool

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        layer: torch.nn.Module,
        role: str,
        moments: Moments,
        num_tokens: int | torch.Tensor,
    ) -> "Site":
        """That of one decoder layer whose projection the layout calls `role`."""
        weight = matrix(layer.get_submodule(role)).detach()
        return cls(weight, moments, num_tokens, is_attention=role == loaded.layout.output)


@dataclass(frozen=True)
class Metric:
    """A way to score channels. `channel_scores` maps a `Site` and a seeded generator to float64 [channel].

    `needs_gradients`: it works from statistics observed with `taylor=True` alone; see `available_metrics`.
    `needs_weights`: it reads what the weights hold, not their shape alone.
    """

    name: str
    label: str
    summary: str
    channel_scores: Callable[[Site, torch.Generator], torch.Tensor]
    head_scores: Callable[[torch.Tensor], torch.Tensor]
    needs_gradients: bool = False
    needs_weights: bool = True


def _sum_over_channels(channels: torch.Tensor) -> torch.Tensor:
    """[head, head_dim] -> [head]"""
    return channels.sum(dim=1)


def _mean_over_channels(channels: torch.Tensor) -> torch.Tensor:
    """[head, head_dim] -> [head]"""
    return channels.mean(dim=1)


def _mean_and_peak(channels: torch.Tensor) -> torch.Tensor:
    """[head, head_dim] -> [head]: mean_j s_j + (10 / head_dim) · max_j s_j."""
    return channels.mean(dim=1) + _MAX_SHARE / channels.shape[1] * channels.amax(dim=1)


def _transact(site: Site, generator: torch.Generator) -> torch.Tensor:
    return site.moments.norms()


def _wanda(site: Site, generator: torch.Generator) -> torch.Tensor:
    return site.weight.abs().sum(dim=0, dtype=torch.float64).cpu() * site.moments.norms()


def _fluctuation(site: Site, generator: torch.Generator) -> torch.Tensor:
    return site.moments.variances(site.num_tokens) * _column_norms(site.weight).square()


def _flap(site: Site, generator: torch.Generator) -> torch.Tensor:
    fluctuation = _fluctuation(site, generator)
    return fluctuation.square() if site.is_attention else fluctuation


def _magnitude(site: Site, generator: torch.Generator) -> torch.Tensor:
    return _column_norms(site.weight)


def _taylor(site: Site, generator: torch.Generator) -> torch.Tensor:
    return site.moments.taylor


def _random(site: Site, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(site.weight.shape[1], dtype=torch.float64, generator=generator)


def _column_norms(weight: torch.Tensor) -> torch.Tensor:
    """[hidden, channel] -> ‖W_:j‖, float64 [channel]"""
    return torch.linalg.vector_norm(weight, dim=0, dtype=torch.float64).cpu()


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "transact",
            "Activation norm (TransAct)",
            "size of the activation",
            _transact,
            _mean_and_peak,
            needs_weights=False,
        ),
        Metric("wanda", "Weight × activation (Wanda-sp)", "activation times its weights", _wanda, _sum_over_channels),
        Metric(
            "fluctuation",
            "Fluctuation (FLAP)",
            "variance of the activation times its weights",
            _fluctuation,
            _sum_over_channels,
        ),
        Metric(
            "flap",
            "FLAP as published (squared for heads)",
            "variance times weights, strong channels of a head weigh more",
            _flap,
            _mean_over_channels,
        ),
        Metric(
            "taylor",
            "Weight × gradient (Taylor)",
            "what the loss would change, to first order",
            _taylor,
            _sum_over_channels,
            needs_gradients=True,
            needs_weights=False,
        ),
        Metric("magnitude", "Weight magnitude", "weights alone, no text", _magnitude, _sum_over_channels),
        Metric("random", "Random (the floor)", "chance, seeded", _random, _sum_over_channels, needs_weights=False),
    )
}
"""Every metric by its name, as `score` takes it."""


@dataclass(frozen=True, eq=False)
class ImportanceScores:
    """Scores of everything that can be removed; higher is more important. All tensors float64.

    `attention_channels[layer]` [head, value_dim]; `heads[layer]` [head]; `head_groups[layer]` [group];
    `mlp_channels[layer]` [channel]; `rotary_pairs[layer]` [group, pair], empty unless observed with `queries=True`.
    `calibration` is the name of the text; `fingerprint` the model's.
    """

    metric: str
    attention_channels: tuple[torch.Tensor, ...]
    heads: tuple[torch.Tensor, ...]
    head_groups: tuple[torch.Tensor, ...]
    mlp_channels: tuple[torch.Tensor, ...]
    fingerprint: str
    calibration: str
    rotary_pairs: tuple[torch.Tensor, ...] = ()

    @classmethod
    def from_channels(
        cls,
        metric: str,
        attention: tuple[torch.Tensor, ...],
        mlp: tuple[torch.Tensor, ...],
        spec: ModelSpec,
        *,
        fingerprint: str,
        calibration: str,
        rotary_pairs: tuple[torch.Tensor, ...] = (),
    ) -> "ImportanceScores":
        """Head and group scores from channel scores: `attention[layer]` [head · value_dim], `mlp[layer]`."""
        channels = tuple(scores.reshape(-1, spec.value_dim) for scores in attention)  # [head, value_dim]
        heads = tuple(METRICS[metric].head_scores(scores) for scores in channels)
        groups = tuple(
            scores.reshape(-1, layer.group_size).mean(dim=1)  # [head] -> [group, heads in it] -> [group]
            for scores, layer in zip(heads, spec.layers, strict=True)
        )
        return cls(metric, channels, heads, groups, tuple(mlp), fingerprint, calibration, rotary_pairs)

    @classmethod
    def random(cls, spec: ModelSpec, seed: int = 0) -> "ImportanceScores":
        """Uniform scores from shapes alone; needs no model. Raises `InvalidOption` for what is no seed."""
        generator = torch.Generator().manual_seed(seed_number(seed))

        def draw(size: int) -> torch.Tensor:
            return torch.rand(size, dtype=torch.float64, generator=generator)

        drawn = [(draw(spec.attention_width(layer)), draw(layer.intermediate_size)) for layer in spec.layers]
        attention, mlp = zip(*drawn, strict=True)
        return cls.from_channels(
            "random",
            attention,
            mlp,
            spec,
            fingerprint=spec.fingerprint,
            calibration="none",
            rotary_pairs=_random_pairs(spec, generator),
        )

    def to_dict(self) -> dict:
        """JSON-able; of each layer the channels, and what follows from them."""
        names = ["heads", "head_groups", "attention_channels", "mlp_channels"]
        names += ["rotary_pairs"] if self.rotary_pairs else []
        return {
            "metric": self.metric,
            "fingerprint": self.fingerprint,
            "calibration": {"name": self.calibration},
            "layers": [
                {name: getattr(self, name)[layer].tolist() for name in names} for layer in range(len(self.heads))
            ],
        }

    @classmethod
    def from_dict(cls, values: dict, spec: ModelSpec) -> "ImportanceScores":
        """The inverse of `to_dict` for a model of these shapes; heads and groups are scored again from the channels.

        Raises `InvalidPlan` for anything else, and for the scores of a model of other shapes.
        """
        try:
            metric, layers = METRICS[values["metric"]].name, values["layers"]
            named = {"fingerprint": str(values["fingerprint"]), "calibration": str(values["calibration"]["name"])}
            if named["fingerprint"].split("/")[0] != spec.fingerprint or len(layers) != spec.num_hidden_layers:
                raise InvalidPlan("These scores belong to a model of other shapes. Score this model.")
            sizes = [(spec.attention_width(shape), shape.intermediate_size) for shape in spec.layers]
            attention, mlp = zip(
                *(
                    (_read(layer["attention_channels"], width), _read(layer["mlp_channels"], channels))
                    for layer, (width, channels) in zip(layers, sizes, strict=True)
                ),
                strict=True,
            )
            pairs = tuple(
                _read(layer["rotary_pairs"], shape.num_key_value_heads * spec.query_key_dim // 2).reshape(
                    shape.num_key_value_heads, -1
                )
                for layer, shape in zip(layers, spec.layers, strict=True)
                if "rotary_pairs" in layer
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
            raise InvalidPlan(
                f"These are no scores that can be read ({type(error).__name__}: {str(error)[:200]}). Give what the "
                "score command writes with --output, or score again."
            ) from None
        return cls.from_channels(metric, attention, mlp, spec, **named, rotary_pairs=pairs)

    def value_channels(self, layer: int) -> torch.Tensor:
        """What a value channel of each head group is worth, float64 [group, value_dim]: the mean over its heads."""
        channels = self.attention_channels[layer]
        # [head, value_dim] -> [group, head, value_dim] -> [group, value_dim]
        return channels.unflatten(0, (len(self.head_groups[layer]), -1)).mean(dim=1)


def _read(numbers: list, size: int) -> torch.Tensor:
    """Nested numbers as float64 [size]; raises `ValueError` for another count and for what is not finite."""
    scores = torch.tensor(numbers, dtype=torch.float64).flatten()
    if len(scores) != size or not bool(scores.isfinite().all()):
        raise ValueError(f"{size} finite numbers are expected")
    return scores


def pair_scores(queries: torch.Tensor, keys: torch.Tensor, query_key_dim: int) -> torch.Tensor:
    """What a RoPE pair of each key/value head is worth: Σ_tokens x² of queries and keys -> [..., group, pair].

    sqrt(Σ_tokens ‖q_pair‖²), all heads of the group together, times sqrt(Σ_tokens ‖k_pair‖²): no sum of squares of what
    the pair adds to the logits is larger, as |q·k| ≤ ‖q‖ ‖k‖. Turning a pair leaves its norm, so that the outputs of
    the projections serve. `queries` [..., head · query_key_dim], `keys` [..., group · query_key_dim].
    """
    by_pair = (-1, 2, query_key_dim // 2)
    of_keys = keys.unflatten(-1, by_pair).sum(dim=-2)  # [..., group, pair]
    groups, pairs = of_keys.shape[-2:]
    of_queries = queries.unflatten(-1, (groups, -1, 2, pairs)).sum(dim=(-3, -2))
    return of_queries.sqrt() * of_keys.sqrt()


def _random_pairs(spec: ModelSpec, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.rand(layer.num_key_value_heads, spec.query_key_dim // 2, dtype=torch.float64, generator=generator)
        for layer in spec.layers
    )


def available_metrics(statistics: ActivationStatistics) -> tuple[str, ...]:
    """Names of the metrics that these statistics can be scored by, in the order of `METRICS`."""
    with_gradients = statistics.mlp[0].taylor is not None
    return tuple(name for name, metric in METRICS.items() if with_gradients or not metric.needs_gradients)


def score(
    loaded: LoadedModel,
    statistics: ActivationStatistics,
    *,
    metric: str = "transact",
    seed: int = 0,
    progress: Progress = NO_PROGRESS,
) -> ImportanceScores:
    """Scores of every head, group and channel by the named metric; no forward pass. Progress is in layers.

    RoPE pairs are scored alike by all of them (see `pair_scores`), but by `random`, and only from statistics observed
    with `queries=True`. `seed` matters to `random` alone. Raises `InvalidOption` for an unknown metric and for one that
    these statistics do not allow (see `available_metrics`), `InvalidPlan` for the statistics of another model.
    """
    chosen = METRICS[choice(metric, METRICS, "metric")]
    if metric not in available_metrics(statistics):
        raise InvalidOption(
            f"The metric {metric!r} works from gradients, which these statistics lack. Observe with taylor=True, or "
            f"choose one of {', '.join(available_metrics(statistics))}."
        )
    if statistics.fingerprint != loaded.fingerprint:
        raise InvalidPlan("These statistics were recorded on another model. Score this model first.")
    generator = torch.Generator().manual_seed(seed_number(seed))
    layout = loaded.layout

    def channel_scores(layer: torch.nn.Module, role: str, moments: Moments) -> torch.Tensor:
        return chosen.channel_scores(Site.of(loaded, layer, role, moments, statistics.num_tokens), generator)

    attention, mlp = [], []
    watch = Repeating(progress, len(statistics.mlp), "layers")
    for index, (read, down) in enumerate(zip(statistics.attention, statistics.mlp, strict=True)):
        watch(index, len(statistics.mlp), "layers")
        shapes_only = nullcontext(loaded.decoder_layers[index])
        with loaded.layer(index, watch.check) if chosen.needs_weights else shapes_only as layer:
            attention.append(channel_scores(layer, layout.output, read))
            mlp.append(channel_scores(layer, layout.down, down))
    pairs = tuple(
        pair_scores(queries.square_sums, keys.square_sums, loaded.spec.query_key_dim)
        for queries, keys in zip(statistics.queries, statistics.keys, strict=True)
    )
    return ImportanceScores.from_channels(
        metric,
        tuple(attention),
        tuple(mlp),
        loaded.spec,
        fingerprint=loaded.fingerprint,
        calibration=statistics.calibration.name,
        rotary_pairs=_random_pairs(loaded.spec, generator) if pairs and metric == "random" else pairs,
    )
