"""What `compress` does with the time it has, from shapes and the machine's speed alone.

How much can be done is expected from the machine's speed, but reading goes by the clock: it ends where its share of the
time does, however many tokens were expected.

Least squares comes first, on up to some forty tokens a channel: with a quarter of the prunable parameters of SmolLM2
removed in ten minutes, 57 thousand tokens and then 41 steps of distillation lost 0.535 (ln of the perplexities' ratio),
15 thousand and 62 steps 0.625. Then as many ways to share out the removal as an eighth of the time has room for are
tried. What is left goes into distillation, which goes on paying for as long as there is time. Where it has no room for
some twenty steps and there is more text, there is none, and the time is given to the text that least squares is solved
on. What would not fit into memory is left out.
"""

from dataclasses import dataclass

from transact.compression.repeat import Repeat
from transact.errors import InvalidTarget, is_finite, shown
from transact.planning.widths import PRICED_TOKENS, widths_bytes
from transact.repair.distillation import MEASURED_TOKENS, STEP_TOKENS, distillation_bytes
from transact.spec.model_spec import ModelSpec
from transact.spec.target import PruningTarget
from transact.text.calibration import CalibrationSet

WIDTHS = ("uniform", "free")
"""Whether all layers keep as many channels, which every loader takes, or each as many as suits it."""
GRAM_PASS = 1.15
"""Seconds of observing with Gram matrices beside a forward pass with output head of the same tokens."""
STEP = 3.0
"""A step of distillation beside the same."""
BACKWARD_PASS = 3.2
"""Forward and backward pass for the prices beside the same."""
_TEXT_PER_CHANNEL = 40
_TEXT_SHARE = 0.5
"""Of the time, for the text of least squares, where there is distillation."""
_TRYING_SHARE = 0.12
_PRICING_SHARE = 0.1
_LEAST_PRICED = 1_024
MOST_TRIES = 5
_LEAST_STEPS, _LEAST_STEPS_ALONE = 20, 4
"""Of distillation: where the time could go into more text, and where all of the text is read."""
_SLOWER = 3
"""Times as long as the operations would take at the speed of the forward pass."""
_LEAST_CHANNELS = 1 / 4
"""Attention stays whole as long as this share of the channels is left: head groups are dear, above all where there are
few (measured; see docs/benchmarks.md)."""


@dataclass(frozen=True)
class Machine:
    """`tokens_per_second` of the dense model's forward pass with output head, the `flops` a second that this is, and
    `free_bytes` of memory.
    """

    tokens_per_second: float
    flops: float
    free_bytes: int


@dataclass(frozen=True)
class Recipe:
    """What `compress` will do, and the seconds that each part of it is expected to take.

    `target`: the sizes, before channels are shared out among layers. `observed_tokens` for least squares, as many as
    are expected, of `most_tokens` in `reading_seconds`;
    `priced_tokens` for the prices of channels, 0 where all layers keep as many; `tries`: results of least squares that
    are measured, the best of which goes on; `distills`: whether the rest of the time is for distillation. `repeats`:
    what is done again, whatever time that takes.
    """

    target: PruningTarget
    observed_tokens: int
    most_tokens: int
    reading_seconds: float
    priced_tokens: int
    tries: int
    distills: bool
    seconds: dict[str, float]
    repeats: Repeat | None = None

    @property
    def words(self) -> str:
        """For people: what will be done, with the time of each part."""
        return "; ".join(f"{what}, {_time(seconds)}" for what, seconds in self.seconds.items())

    def part_at(self, seconds: float) -> str:
        """What is being done so many seconds after the beginning, as far as expected."""
        for what, needed in self.seconds.items():
            seconds -= needed
            if seconds < 0:
                return what
        return list(self.seconds)[-1]


def target_of_size(spec: ModelSpec, size: float) -> PruningTarget:
    """A result of at most `size` times the parameters in all: channels go first, then head groups.

    Raises `InvalidTarget` for a size that is no share, or that cannot be reached.
    """
    if not is_finite(size) or not 0 < size < 1:
        raise InvalidTarget(
            f"size is {shown(size)}; give the share of the parameters that is to stay, between 0 and 1."
        )
    splits = PruningTarget.splits(spec, int(size * spec.num_parameters))  # from the fewest groups on
    dense = sum(layer.intermediate_size for layer in spec.layers)

    def channels_left(target: PruningTarget) -> float:
        return sum(shape.intermediate_size for shape in target.per_layer(spec)) / dense

    whole = [target for target in splits if channels_left(target) >= _LEAST_CHANNELS]
    return whole[-1] if whole else splits[0]


def recipe_for(
    spec: ModelSpec, target: PruningTarget, *, text: CalibrationSet, machine: Machine, seconds: float, free_widths: bool
) -> Recipe:
    """The recipe for a model of that spec, as much calibration text and `seconds` in all."""
    forward, tokens = 1 / machine.tokens_per_second, text.num_tokens
    pruned = target.spec(spec)
    may_price = free_widths and widths_bytes(spec, text) <= machine.free_bytes
    may_distill = 4 * pruned.num_parameters + distillation_bytes(pruned, text) <= machine.free_bytes
    solving, pricing = _solving_seconds(spec, machine), _pricing_seconds(spec, machine)

    def affordable(seconds: float, per_token: float) -> int:
        return max(1, min(tokens, int(seconds / (per_token * forward))))

    wanted = _TEXT_PER_CHANNEL * max(layer.intermediate_size for layer in spec.layers)
    reading = _TEXT_SHARE * seconds
    observed = min(wanted, affordable(reading, GRAM_PASS))
    priced = min(PRICED_TOKENS, affordable(_PRICING_SHARE * seconds, BACKWARD_PASS))
    if not may_price or pricing > _PRICING_SHARE * seconds or priced < _LEAST_PRICED:
        priced = 0
    trying = solving + min(tokens, MEASURED_TOKENS) * forward
    tries = max(1, min(MOST_TRIES, int(_TRYING_SHARE * seconds / trying)))
    parts = {
        f"reading {observed:,} tokens": observed * GRAM_PASS * forward,
        "pricing channels": priced * BACKWARD_PASS * forward + pricing if priced else 0.0,
        f"cutting, {tries} tried" if tries > 1 else "cutting": tries * trying,
    }
    left = seconds - sum(parts.values())
    more_to_read = observed < min(wanted, tokens)
    if may_distill and left >= (_LEAST_STEPS if more_to_read else _LEAST_STEPS_ALONE) * STEP * STEP_TOKENS * forward:
        parts["distilling"] = left
        return Recipe(target, observed, wanted, reading, priced, tries, True, _told(parts))
    reading = max(0.0, seconds - solving)
    observed = affordable(reading, GRAM_PASS)
    parts = {f"reading {observed:,} tokens": observed * GRAM_PASS * forward, "cutting": solving}
    return Recipe(target, observed, tokens, reading, 0, 1, False, _told(parts))


def recipe_of(repeat: Repeat, spec: ModelSpec, *, text: CalibrationSet, machine: Machine) -> Recipe:
    """The recipe that does the same again."""
    forward, observed = 1 / machine.tokens_per_second, min(repeat.read, text.num_tokens)
    parts = {
        f"reading {observed:,} tokens": observed * GRAM_PASS * forward,
        "pricing channels": repeat.priced * BACKWARD_PASS * forward + _pricing_seconds(spec, machine)
        if repeat.priced
        else 0.0,
        "cutting": _solving_seconds(spec, machine),
        "distilling": repeat.steps * STEP * STEP_TOKENS * forward,
    }
    target = target_of_size(spec, repeat.size)
    distills, whole = repeat.steps > 0, float("inf")
    return Recipe(target, observed, repeat.read, whole, repeat.priced, 1, distills, _told(parts), repeat)


def _solving_seconds(spec: ModelSpec, machine: Machine) -> float:
    """To refit all projections by least squares in float64, which runs at half the speed of float32 at best."""
    widths = [width for layer in spec.layers for width in (spec.attention_width(layer), layer.intermediate_size)]
    operations = sum(width**3 / 3 + 4 * width**2 * spec.hidden_size for width in widths)
    return _SLOWER * operations / machine.flops


def _pricing_seconds(spec: ModelSpec, machine: Machine) -> float:
    """To find the order in which the channels of every layer go: see `NormalEquations.removal_path`."""
    operations = sum(
        3 * layer.intermediate_size**3 + 2 * layer.intermediate_size**2 * spec.hidden_size for layer in spec.layers
    )
    return _SLOWER * operations / machine.flops


def _told(parts: dict[str, float]) -> dict[str, float]:
    return {what: seconds for what, seconds in parts.items() if seconds}


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"
