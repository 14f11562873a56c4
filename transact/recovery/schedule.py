"""Iterative pruning as numbers: how much each shot removes, and how long and at what rate training follows.

The defaults are those of the authors' code (XiaoMi/transact-pruning, `run_trainer.sh`, for LLaMA-2-7B): 8 shots on
10⁹ tokens together, then 5 · 10¹⁰ tokens of recovery, sequences in batches of 64, AdamW with β = 0.9, 0.95.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from transact.errors import InvalidOption, choice, is_finite, seed_number, shown, whole_number
from transact.observing.gradients import backward_bytes
from transact.planning.search import METRIC as SEARCH
from transact.progress import NO_CHECK, Check
from transact.repair.repairs import REPAIRS
from transact.scoring.metrics import METRICS
from transact.spec.model_spec import ModelSpec
from transact.spec.target import INSIDE_HEADS, PruningTarget

_STATE_BYTES = 4 * (1 + 1 + 2 + 1)
"""A trained parameter's weight, gradient and two moments, and the best weight so far."""
MAX_SHOTS, MAX_TOKENS = 1000, 10**15
"""Beyond any use: every shot is a cut and a training of its own, and no text has as many tokens."""
_MAX_BATCH, _MAX_RANK = 2**20, 2**16
_LEAST_ABOVE_ZERO = math.ulp(0)
LOSSES = ("language_model", "distillation")
PRECISIONS = ("auto", "float32", "bfloat16")
SCHEDULERS = ("linear", "cosine", "constant_with_warmup")
COMPENSATIONS_BEFORE_TRAINING = tuple(repair.name for repair in REPAIRS.values() if not repair.adds_bias)
"""Without those that add biases: later shots could not work with these new tensors."""


@dataclass(frozen=True)
class RecoverySettings:
    """Everything about iterative pruning but the model, the text and the target.

    With K = `shots`, shot i removes (what is left to remove) // (shots left) of every layer's head groups and
    channels, scored on the model as it is then, and trains on

        tokens_i = shot_tokens / K · (f + 2 (1 − f) (i − 1) / (K − 1)),   f = first_shot_share,
        rate_i   = learning_rate · shot_rate_rise · i / K    (its peak, after the warm-up);

    then `recovery_tokens` follow at `learning_rate`. `shot_tokens` are for the training between the shots: K = 1 is
    one-shot pruning, which trains in the recovery alone.

    At most 1,000 shots and 10¹⁵ tokens each of `shot_tokens` and `recovery_tokens` are taken.

    - `batch_size`: sequences of one step, all processes together; `micro_batch_size`: of one forward pass in one
      process, None for as many as the step has for it. `warmup`: the share of a phase's steps over which the rate
      rises; `scheduler`: how it falls afterwards, "linear" and "cosine" towards zero (see `rate_share`).
    - `loss`: "language_model", the mean negative log-likelihood of the text; "distillation", the mean over its
      positions of KL(dense ‖ pruned) at `temperature` T, times T² (Hinton et al. 2015).
    - `lora_rank` > 0 trains adapters of that rank in every projection (LoRA, Hu et al. 2021, with `peft`), merged
      before the next shot; `lora_alpha` is its scale, in the usual units.
    - `metric` and `compensation`: how each shot chooses and repairs; "search" with "best" is our strongest.
    - `precision`: "auto" computes in bfloat16 where the hardware supports it. Weights are trained in float32.
    - `save_every`, `evaluate_every`, `log_every` in steps; `seed` decides the order of the text, the adapters'
      first weights and what the metric "random" draws.
    """

    shots: int = 8
    shot_tokens: int = 1_000_000_000
    first_shot_share: float = 0.5
    shot_rate_rise: float = 2.0
    recovery_tokens: int = 50_000_000_000
    learning_rate: float = 5e-5
    warmup: float = 0.1
    scheduler: str = "linear"
    batch_size: int = 64
    micro_batch_size: int | None = None
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    loss: str = "language_model"
    temperature: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    metric: str = "transact"
    compensation: str = "none"
    precision: str = "auto"
    save_every: int = 500
    evaluate_every: int = 100
    log_every: int = 10
    seed: int = 0

    def __post_init__(self):
        """Raise `InvalidOption` for a name that does not exist or a number out of range."""
        choice(self.loss, LOSSES, "loss")
        choice(self.scheduler, SCHEDULERS, "scheduler")
        choice(self.precision, PRECISIONS, "precision")
        choice(self.metric, (*METRICS, SEARCH), "metric")
        choice(self.compensation, COMPENSATIONS_BEFORE_TRAINING, "compensation before training")
        whole_number(self.shots, "shots", least=1, most=MAX_SHOTS)
        whole_number(self.batch_size, "batch_size", least=1, most=_MAX_BATCH)
        whole_number(self.lora_rank, "lora_rank", most=_MAX_RANK)
        for name in ("save_every", "evaluate_every", "log_every"):
            whole_number(getattr(self, name), name, least=1)
        for name in ("shot_tokens", "recovery_tokens"):
            whole_number(getattr(self, name), name, most=MAX_TOKENS)
        seed_number(self.seed)
        self._check_range("from 0", 0, math.inf, "weight_decay")
        self._check_range("from 0 to 1", 0, 1, "first_shot_share", "warmup", "adam_beta1", "adam_beta2")
        for name in ("learning_rate", "shot_rate_rise", "temperature", "lora_alpha", "max_grad_norm"):
            self._check_range("above 0", _LEAST_ABOVE_ZERO, math.inf, name)
        if self.micro_batch_size is not None:
            whole_number(self.micro_batch_size, "micro_batch_size", least=1, most=self.batch_size)

    def _check_range(self, words: str, least: float, most: float, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not is_finite(value) or not least <= value <= most:
                raise InvalidOption(f"{name} is {shown(value)}; give a number {words}.")

    def to_dict(self) -> dict:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Phase:
    """A shot, or the recovery after the last one.

    `target`: what every layer keeps after the shot's cut, None for the recovery; `tokens` and `learning_rate` (the
    peak) of the training that follows.
    """

    name: str
    target: PruningTarget | None
    tokens: int
    learning_rate: float


def phases(
    spec: ModelSpec, target: PruningTarget, settings: RecoverySettings, *, check: Check = NO_CHECK
) -> tuple[Phase, ...]:
    """All shots and the recovery, for a dense model of that spec; `check` is called before each of them.

    Raises `InvalidTarget`.
    """
    target.check_keeps_all_layers("Iterative pruning")
    pairs = list(zip(spec.layers, target.per_layer(spec), strict=True))
    groups = [(before.num_key_value_heads, after.num_key_value_heads) for before, after in pairs]
    channels = [(before.intermediate_size, after.intermediate_size) for before, after in pairs]
    widths = target.head_widths(spec)
    inside = [
        (spec.group_size, target.heads_per_group(spec)),
        (spec.query_key_dim // 2, widths["query_key_dim"] // 2),  # pairs
        (spec.value_dim, widths["value_dim"]),
    ]
    result = []
    for shot in range(1, settings.shots + 1):
        check()
        left = settings.shots - shot + 1
        groups, channels, inside = (
            [(now - (now - end) // left, end) for now, end in counts] for counts in (groups, channels, inside)
        )
        now_inside = zip(INSIDE_HEADS, (inside[0][0], 2 * inside[1][0], inside[2][0]), strict=True)
        named: dict[str, Any] = {name: count for name, count in now_inside if getattr(target, name) is not None}
        kept = PruningTarget(_counts(groups), _counts(channels), **named)
        rate = settings.learning_rate * settings.shot_rate_rise * shot / settings.shots
        result.append(Phase(f"shot {shot} of {settings.shots}", kept, shot_tokens(shot, settings), rate))
    return (*result, Phase("recovery", None, settings.recovery_tokens, settings.learning_rate))


def shot_tokens(shot: int, settings: RecoverySettings) -> int:
    """Tokens that shot number `shot` (from 1) trains on; none where it is the only one."""
    if settings.shots == 1:
        return 0
    first = settings.first_shot_share
    share = first + 2 * (1 - first) * (shot - 1) / (settings.shots - 1)
    return round(settings.shot_tokens / settings.shots * share)


def rate_share(step: int, steps: int, settings: RecoverySettings) -> float:
    """The learning rate of a phase's step number `step` (from 1) of `steps`, as a share of the phase's peak.

        step / w                          up to step w = max(ceil(steps · warmup), 1),
        (steps + 1 − step) / (steps + 1 − w) = r    afterwards, if "linear",
        (1 − cos(π r)) / 2                afterwards, if "cosine",
        1                                 afterwards, if "constant_with_warmup".

    With a warm-up they are those of `transformers` from its second step on: its first has rate 0 and trains nothing,
    which in a short phase is all of it.
    """
    rising = max(math.ceil(steps * settings.warmup), 1)
    if step <= rising:
        return step / rising
    if settings.scheduler == "constant_with_warmup":
        return 1.0
    left = (steps + 1 - step) / (steps + 1 - rising)
    return left if settings.scheduler == "linear" else (1 - math.cos(math.pi * left)) / 2


def _counts(pairs: list[tuple[int, int]]) -> int | tuple[int, ...]:
    counts = tuple(now for now, _ in pairs)
    return counts[0] if len(set(counts)) == 1 else counts


@dataclass(frozen=True)
class RecoveryCost:
    """What a recovery takes beside the dense model: `flops`, `bytes` at its peak, and `tokens` of all phases."""

    flops: float
    bytes: int
    tokens: int


def recovery_cost(
    spec: ModelSpec, target: PruningTarget, settings: RecoverySettings, *, seq_len: int, check: Check = NO_CHECK
) -> RecoveryCost:
    """From shapes alone; `check` is called at every shot. A backward pass counts twice its forward pass; the dense
    model's forward pass once where it is distilled from. Weights, gradients and AdamW's two moments are float32.

    Raises `InvalidTarget`.
    """
    seq_len = whole_number(seq_len, "seq_len", least=1)
    flops, tokens, now = 0.0, 0, spec
    teacher = spec.flops_per_token(context=seq_len) if settings.loss == "distillation" else 0
    schedule = phases(spec, target, settings, check=check)
    for phase in schedule:
        check()
        now = now if phase.target is None else phase.target.spec(spec)
        flops += phase.tokens * (3 * now.flops_per_token(context=seq_len) + teacher)
        tokens += phase.tokens
    assert schedule[0].target is not None, "a shot comes first"
    first = schedule[0].target.spec(spec)
    trained = _STATE_BYTES * first.num_parameters if tokens else 4 * first.num_parameters
    micro = settings.micro_batch_size or settings.batch_size
    return RecoveryCost(flops, trained + backward_bytes(first, micro * seq_len), tokens)
