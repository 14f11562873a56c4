"""Scores of everything that can be removed, from statistics and weight norms; no forward pass."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch

from transact.errors import InvalidOption, InvalidPlan, choice, seed_number
from transact.models.loaded_model import LoadedModel
from transact.observing.statistics import ActivationStatistics, Moments
from transact.progress import NO_PROGRESS, Progress, Repeating
from transact.scoring.metrics import METRICS, Site
from transact.spec.model_spec import ModelSpec


@dataclass(frozen=True, eq=False)
class ImportanceScores:
    """Scores of everything that can be removed; higher is more important. All tensors float64.

    `attention_channels[layer]` [head, value_dim]; `heads[layer]` [head]; `head_groups[layer]` [group];
    `mlp_channels[layer]` [channel]; `rotary_pairs[layer]` [group, pair], empty unless observed with `queries=True`.
    `layers` [layer]: see `layer_scores`; None where they were not observed.
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
    layers: torch.Tensor | None = None

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
        layers: torch.Tensor | None = None,
    ) -> "ImportanceScores":
        """Head and group scores from channel scores: `attention[layer]` [head · value_dim], `mlp[layer]`."""
        channels = tuple(scores.reshape(-1, spec.value_dim) for scores in attention)  # [head, value_dim]
        heads = tuple(METRICS[metric].head_scores(scores) for scores in channels)
        groups = tuple(
            scores.reshape(-1, layer.group_size).mean(dim=1)  # [head] -> [group, heads in it] -> [group]
            for scores, layer in zip(heads, spec.layers, strict=True)
        )
        return cls(metric, channels, heads, groups, tuple(mlp), fingerprint, calibration, rotary_pairs, layers)

    @classmethod
    def random(cls, spec: ModelSpec, seed: int = 0) -> "ImportanceScores":
        """Uniform scores from shapes alone; needs no model. Raises `InvalidOption` for an invalid seed."""
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
            layers=_random_layers(spec, generator),
        )

    def to_dict(self) -> dict:
        """JSON-able: of each layer its own score, the scores of channels, and those that follow from them."""
        names = ["heads", "head_groups", "attention_channels", "mlp_channels"]
        names += ["rotary_pairs"] if self.rotary_pairs else []
        return {
            "metric": self.metric,
            "fingerprint": self.fingerprint,
            "calibration": {"name": self.calibration},
            **({} if self.layers is None else {"layer_scores": self.layers.tolist()}),
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
            of_layers = _read(values["layer_scores"], len(layers)) if "layer_scores" in values else None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
            raise InvalidPlan(
                f"These are no scores that can be read ({type(error).__name__}: {str(error)[:200]}). Give what the "
                "score command writes with --output, or score again."
            ) from None
        return cls.from_channels(metric, attention, mlp, spec, **named, rotary_pairs=pairs, layers=of_layers)

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
    the pair adds to the logits is larger, as |q·k| ≤ ‖q‖ ‖k‖. A rotation keeps the norm of a pair, so the outputs of
    the projections before RoPE are used. `queries` [..., head · query_key_dim], `keys` [..., group · query_key_dim].
    """
    by_pair = (-1, 2, query_key_dim // 2)
    of_keys = keys.unflatten(-1, by_pair).sum(dim=-2)  # [..., group, pair]
    groups, pairs = of_keys.shape[-2:]
    of_queries = queries.unflatten(-1, (groups, -1, 2, pairs)).sum(dim=(-3, -2))
    return of_queries.sqrt() * of_keys.sqrt()


def layer_scores(statistics: ActivationStatistics) -> torch.Tensor | None:
    """How much each layer changes the residual stream, float64 [layer]; None for statistics that do not know it.

    1 − mean over the tokens of cos(input, output): the Block Influence of ShortGPT (Men et al. 2024, arXiv 2403.03853).
    """
    if not statistics.residual:
        return None
    return 1 - torch.stack([cosines.total for cosines in statistics.residual]) / statistics.num_tokens


def _random_layers(spec: ModelSpec, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(spec.num_hidden_layers, dtype=torch.float64, generator=generator)


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

    RoPE pairs are scored by `pair_scores` and layers by `layer_scores` under every metric but `random`, pairs only from
    statistics observed with `queries=True`. `seed` matters to `random` alone. Raises `InvalidOption` for an unknown
    metric and for one that these statistics do not allow (see `available_metrics`), `InvalidPlan` for the statistics of
    another model.
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
    drawn = metric == "random"
    return ImportanceScores.from_channels(
        metric,
        tuple(attention),
        tuple(mlp),
        loaded.spec,
        fingerprint=loaded.fingerprint,
        calibration=statistics.calibration.name,
        rotary_pairs=_random_pairs(loaded.spec, generator) if pairs and drawn else pairs,
        layers=_random_layers(loaded.spec, generator) if drawn else layer_scores(statistics),
    )
