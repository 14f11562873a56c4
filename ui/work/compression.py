"""A size and a time in the app: what will be done, and the work itself, from typed values."""

from dataclasses import dataclass, replace

import transact as ta
from transact.compression.recipe import Machine, recipe_for, target_of_size
from transact.planning.widths import scored_widths
from transact.runtime.memory import available_bytes
from ui.errors import WrongInput
from ui.server import limits
from ui.state.options import Goal
from ui.state.probed import Probed
from ui.state.session import Result, Scored, Session
from ui.text_sources.text_source import TextSource
from ui.work import measuring, pruning, streamed
from ui.work.registry import Registry
from ui.work.watch import Watch

_TIMED_TOKENS = 512
_BY = "transact"
_PROBE_SECONDS, _PROBE_PASSES = 8, 7
_FEWEST_PROBED, _MOST_PROBED = 256, 2_048
_MARGIN = 0.05
"""Share of a layer's channels; less than that is no difference worth a word."""
_NO_LOCKS = ta.Locks()


@dataclass(frozen=True)
class Expected:
    """What a goal leads to: parameters, means over the layers, and what is done, once this machine was timed."""

    parameters: int
    groups: str
    channels: int
    recipe: ta.Recipe | None


def goal(session: Session, smaller_by, minutes, differ) -> Goal:
    """The form as a goal. Raises `WrongInput` for what cannot be."""
    if session.choice.locks != _NO_LOCKS:
        raise WrongInput("A goal decides by itself what goes and knows no locks. Undo them, or press Prune.")
    size = limits.percent_smaller(smaller_by)
    return Goal(round(size, 6), limits.minutes(minutes), ta.WIDTHS[bool(differ)])


def expected(registry: Registry, session: Session, asked: Goal) -> Expected:
    """What it will come to. Raises `InvalidTarget` for a size that cannot be reached."""
    scored, spec = session.need_scored(), session.spec
    assert spec is not None, "there are scores"
    target = target_of_size(spec, asked.size)
    shapes = target.per_layer(spec)
    groups = sum(shape.num_key_value_heads for shape in shapes) / len(shapes)
    channels = sum(shape.intermediate_size for shape in shapes) // len(shapes)
    flops = spec.prefill_flops(_TIMED_TOKENS)
    seconds = registry.seconds_for(flops, session.key)
    recipe = None
    if seconds is not None and session.key.has_weights:
        recipe = recipe_for(
            spec, target, text=scored.calibration, seconds=60 * asked.minutes, free_widths=asked.widths == "free",
            machine=Machine(_TIMED_TOKENS / seconds, flops / seconds, available_bytes()),
        )  # fmt: skip
    return Expected(target.spec(spec).num_parameters, f"{groups:.3g}", channels, recipe)


def predicted(session: Session, asked: Goal, expected: Expected) -> float | None:
    """How many times the dense perplexity the goal is foretold to come to; None before a probe."""
    probed = session.frontier
    return None if probed is None else probed.frontier.factor(session.spec, asked.size, expected.recipe)


def probe(registry: Registry, session: Session, watch: Watch) -> Probed:
    """What attention, channels and layers cost in this model, in a few seconds."""
    scored = session.need_scored()
    loaded = registry.dense(session.key, watch)
    streamed.refuse(loaded, "The probe would read all of them seven times. Prune with a repair, and measure.")
    watch.says("Measuring what each kind of part costs")
    frontier = ta.probe_frontier(
        loaded, scored.scores[_BY], scored.calibration, num_tokens=probe_tokens(scored), progress=watch
    )
    return Probed(frontier, _more_in(loaded, scored), scored.calibration.fingerprint)


def probe_tokens(scored: Scored) -> int:
    """As many as this machine reads with this model in the seconds that there are for each pass."""
    return int(min(max(scored.tokens_per_second * _PROBE_SECONDS / _PROBE_PASSES, _FEWEST_PROBED), _MOST_PROBED))


def _more_in(loaded: ta.LoadedModel, scored: Scored) -> tuple[int, ...]:
    """The layers that scores alone would take the most channels from, where a fifth of them go."""
    target = ta.PruningTarget.from_sparsity(loaded.spec, mlp=0.2)
    shapes = scored_widths(loaded, scored.statistics, target).per_layer(loaded.spec)
    shares = [
        kept.intermediate_size / dense.intermediate_size for kept, dense in zip(shapes, loaded.spec.layers, strict=True)
    ]
    mean = sum(shares) / len(shares)
    return tuple(index for index, share in enumerate(shares) if share < mean - _MARGIN)


def compress(registry: Registry, session: Session, asked: Goal, watch: Watch) -> Result:
    """A result of that size in that time; once something is cut, a stop keeps the best so far."""
    scored = session.need_scored()
    loaded = registry.dense(session.key, watch)
    streamed.refuse(loaded, "A goal needs all of them at once. Prune with a repair, as refitting (least squares).")
    watch.shows("Timing this machine")
    recipes: list[ta.Recipe] = []

    def note(done: int, total: int, unit: str) -> None:
        watch.title = recipes[-1].part_at(done).capitalize()
        watch.note(done, total, unit)

    pruned = ta.compress(
        loaded,
        scored.calibration,
        size=asked.size,
        minutes=asked.minutes,
        widths=asked.widths,
        report=recipes.append,
        stop=watch.stop.is_set,
        progress=note,
    )
    cut = pruned.cuts[-1]
    result = Result(
        number=session.counted + 1, scored=scored, choice=session.choice, plan=cut.plan, repair=cut.compensation,
        goal=replace(asked, repeat=cut.repeat),
    )  # fmt: skip
    return pruning.keep_trained(registry, session, result, pruned)


def compress_and_measure(
    registry: Registry, session: Session, asked: Goal, text: TextSource, watch: Watch, **settings
) -> Result:
    """`compress`, and its result measured, unless that is stopped."""
    result = compress(registry, session, asked, watch)
    return measuring.measure_unless_stopped(registry, session.id, result, text, watch, **settings)
