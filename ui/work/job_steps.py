"""The steps of each long job with the time that each should take: what is told before the click, and on the way.

Work is counted in operations of a forward pass, from shapes and amounts of text alone; how long an operation takes on
this machine, `Speeds` knows. What a step takes beside plain passes stands in its factor, until one was timed.
"""

import transact as ta
from ui.state import plan_of_choice
from ui.state.measuring_size import ALL, Size
from ui.state.session import Result, Scored, Session, Training
from ui.text_sources.text_source import EVALUATION_TOKENS, TextSource
from ui.work import streamed
from ui.work.forecast import Step
from ui.work.measuring import MAP_MLP_SPARSITIES, MAP_SEQUENCES, MAP_WHOLE_TEXT, PROBE_ITEMS
from ui.work.registry import Registry
from ui.work.step_costs import PROBE_TOKENS, WRITTEN_TOKENS

_SEARCH_PASSES, _SEARCH_SOLVES, _BEST_PASSES, _BEST_SOLVES, _TRAINING_FACTOR = 2, 9, 7, 13, 1.5
"""What searching and the best repair came to on models of 3 and 135 million parameters: passes over the text as scoring
makes them, and operations for each cube of a layer's width."""
_SPEED_PREFILL, _SPEED_DECODE = 6 * 256, 6 * 32
"""Tokens that measuring speed reads at once and writes one by one, its rounds together."""
_DECODE_FACTOR = 20.0
"""How much longer a token takes that is written by itself: all weights are read for it."""
_SOLVE_FACTOR = 2.0
_WRITE_BYTES_PER_SECOND, _PROVE_BYTES_PER_SECOND = 60e6, 30e6
_PROOF_SECONDS = 15.0
"""Until another process has started that proves a checkpoint."""
_GGUF_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 1.07}
_CHARACTERS_PER_TOKEN = 4.0


def cutting(registry: Registry, session: Session, repair: str, *, search: bool) -> list[Step]:
    """Cutting the plan in view, with what the repair needs."""
    scored, spec = session.need_scored(), session.need_plan().dense_spec
    chosen, passed, key = ta.REPAIRS[repair], _pass(scored), scored.key
    step, steps = registry.speeds.step, []
    squares = sum(layer.intermediate_size**2 + spec.attention_width(layer) ** 2 for layer in spec.layers)
    cubes = sum(layer.intermediate_size**3 + spec.attention_width(layer) ** 3 for layer in spec.layers)
    if scored.streamed:
        work = passed + 2.0 * scored.num_tokens * squares
        return [step("Cutting", key, work, factor=2.0, how=repair), step("Opening", key, passed, factor=0.1)]
    if search and chosen.takes_search:
        steps.append(step("Searching what can go", key, _SEARCH_PASSES * passed + _SEARCH_SOLVES * cubes))
    if chosen.needs_grams:
        steps.append(step("Reading the text again", key, passed + scored.num_tokens * squares))
    if chosen.whole_model is not None:
        work = _BEST_PASSES * passed + _BEST_SOLVES * cubes
    else:
        work = 10.0 * spec.num_parameters + (_SOLVE_FACTOR * cubes if chosen.needs_grams else 0)
    return [*steps, step("Cutting", key, work, how=repair)]


def measuring(
    registry: Registry, scored: Scored, text: TextSource, *,
    writes: bool, with_probes: bool, random: bool = False, size: Size = ALL,
) -> list[Step]:  # fmt: skip
    """Measuring a result against the dense model; `random`: it was chosen by chance, so that nothing is the floor."""
    key, spec, step = scored.key, scored.spec, registry.speeds.step
    read = _measured(scored, text, size=size)
    if scored.streamed:
        return [step("Measuring", key, 2 * read)]
    decoded = float(spec.flops_per_token(context=256))
    timing = 2 * (_SPEED_PREFILL + _DECODE_FACTOR * _SPEED_DECODE) * decoded
    steps = [
        step("Measuring", key, 2 * read),
        *([step("Timing both", key, timing)] if size.beside else []),
    ]
    if writes:
        steps.append(step("Both write", key, 2 * _DECODE_FACTOR * WRITTEN_TOKENS * decoded))
    if size.beside and not random:
        steps.append(step("The floor", key, read))
    probes = 3 * PROBE_ITEMS * PROBE_TOKENS / 2 * decoded
    return [
        *steps,
        *(step(f"Probes of the {which} model", key, probes) for which in ("dense", "pruned") if with_probes),
    ]


def trying(
    registry: Registry, scored: Scored, text: TextSource, *, writes: bool, with_probes: bool, size: Size = ALL
) -> list[Step]:
    """Measuring behind masks."""
    key, step, read = scored.key, registry.speeds.step, _measured(scored, text, size=size)
    written = _DECODE_FACTOR * WRITTEN_TOKENS * float(scored.spec.flops_per_token(context=256))
    writing = writes and not scored.streamed
    steps = [
        step("Perplexity of the dense model", key, read),
        *([step("Writing as it is", key, written)] if writing else []),
        step("Perplexity behind masks", key, read),
        *([step("Writing behind masks", key, written)] if writing else []),
    ]
    probes = 3 * PROBE_ITEMS * PROBE_TOKENS / 2 * float(scored.spec.flops_per_token(context=256))
    names = ("Probes of the dense model", "Probes behind masks") if with_probes else ()
    return [*steps, *(step(name, key, probes) for name in names)]


def mapping(registry: Registry, scored: Scored, text: TextSource) -> list[Step]:
    """The redundancy map."""
    points = len(ta.sparsity_grid(scored.spec, mlp=MAP_MLP_SPARSITIES))
    few = None if scored.spec.num_parameters <= MAP_WHOLE_TEXT else MAP_SEQUENCES
    return [registry.speeds.step("Mapping", scored.key, points * _measured(scored, text, few))]


def checking_stability(registry: Registry, scored: Scored) -> list[Step]:
    """Whether more text would choose otherwise: eight draws of each size, doubling from one sample."""
    draws = 8 * (scored.num_samples.bit_length() + 1)
    channels = sum(scored.spec.attention_width(layer) + layer.intermediate_size for layer in scored.spec.layers)
    work = draws * (8.0 * channels * scored.num_samples + 2.0 * scored.spec.num_parameters)
    return [registry.speeds.step("Choosing again", scored.key, work, how=str(scored.streamed))]


def training(registry: Registry, session: Session, chosen: Training) -> list[Step]:
    """Writing what is trained on, where that is the model's own text, and cutting and training."""
    scored = session.need_scored()
    step, steps, length = registry.speeds.step, [], scored.sampling.seq_len
    if chosen.own_samples:
        written = chosen.own_samples * length * float(scored.spec.flops_per_token(context=length))
        steps.append(step("The dense model writes", scored.key, written))
    settings, target = chosen.settings, plan_of_choice.same_amounts(session)
    flops = ta.recovery_cost(session.spec, target, settings, seq_len=scored.calibration.input_ids.shape[1]).flops
    steps_of_cut = cutting(registry, session, settings.compensation, search=settings.metric not in ta.METRICS)
    work = _TRAINING_FACTOR * flops + settings.shots * sum(each.work for each in steps_of_cut)
    return [*steps, step("Cutting", scored.key, work, how="training")]


def checkpoint(registry: Registry, result: Result) -> list[Step]:
    """Writing a checkpoint, and proving it where it is not streamed."""
    loaded = registry.in_memory(result.scored.key)
    itemsize = 4 if loaded is None or loaded.file_dtype == "float32" else 2
    num_bytes = float(itemsize * result.plan.spec.num_parameters)
    name = "Writing the checkpoint"
    if result.scored.streamed:
        return [registry.speeds.file_step(name, num_bytes, _WRITE_BYTES_PER_SECOND, how="unproved")]
    return [registry.speeds.file_step(name, num_bytes, _PROVE_BYTES_PER_SECOND, fixed=_PROOF_SECONDS)]


def gguf(registry: Registry, result: Result, file_type: str) -> list[Step]:
    """Writing a GGUF file."""
    num_bytes = _GGUF_BYTES.get(file_type, 2.0) * result.plan.spec.num_parameters
    return [registry.speeds.file_step("Writing GGUF", num_bytes, _WRITE_BYTES_PER_SECOND, how=file_type)]


def seconds(steps: list[Step]) -> float | None:
    """What all of them should take; None where nothing is known of one."""
    known = [step.seconds for step in steps if step.seconds is not None]
    return sum(known) if len(known) == len(steps) else None


def _pass(scored: Scored) -> float:
    """Operations of one forward pass over the text that scored."""
    longest = scored.calibration.input_ids.shape[1]
    return scored.num_tokens / longest * float(scored.spec.prefill_flops(longest, logits=0))


def _measured(scored: Scored, text: TextSource, most_samples: int | None = None, *, size: Size = ALL) -> float:
    """Operations of one model that reads what `text` is measured on, its predictions included, without a tokenizer."""
    most = streamed.SEQUENCES if scored.streamed else most_samples
    longest = min(EVALUATION_TOKENS, scored.spec.max_position_embeddings)
    characters = scored.text.characters if scored.text.origin != "file" else 0
    available = scored.calibration.available_tokens or scored.num_tokens
    per_token = max(characters / available, 1.0) if characters else _CHARACTERS_PER_TOKEN
    lengths = [len(one) / per_token for one in text.texts]
    if not text.is_document:
        lengths = [min(length, longest) for length in lengths]
    tokens = sum(lengths) if size.tokens is None else min(sum(lengths), size.tokens)
    if most is not None:
        tokens = min(tokens, most * min(longest, tokens / max(1, len(lengths)) if not text.is_document else longest))
    return max(tokens, 1.0) * float(scored.spec.flops_per_token(context=longest // 2))
