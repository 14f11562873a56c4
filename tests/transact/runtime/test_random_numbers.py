"""The same seed gives the same, whatever other threads draw; and nothing of the process's own generators changes."""

import inspect
import random
import threading
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import pytest
import torch

import transact as ta
from tests.tiers import cases
from tests.tiny_models import build
from transact.errors import NonFiniteActivations
from transact.runtime.random_numbers import draw, shared_generators_restored

TEXTS = [f"One day a fox met {number} cats." for number in range(6)]
TARGET = ta.PruningTarget(keep_head_groups=2, keep_channels=20)


@contextmanager
def another_thread_drawing():
    """Draws from the process's generators, and seeds them anew, as fast as it can; gives how often it did."""
    done, times = threading.Event(), [0]

    def draws() -> None:
        while not done.is_set():
            torch.manual_seed(times[0])
            torch.rand(3), np.random.rand(3), random.random()
            times[0] += 1

    thread = threading.Thread(target=draws)
    thread.start()
    try:
        yield times
    finally:
        done.set()
        thread.join()


def state() -> tuple:
    return random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()


@pytest.fixture(scope="module")
def calibration(bundled):
    return ta.CalibrationSet.from_texts(TEXTS, bundled.tokenizer)


@pytest.fixture(scope="module")
def statistics(bundled, calibration):
    return ta.observe(bundled, calibration, samples=True)


@cache
def dense() -> ta.LoadedModel:
    """Made once, as its weights are drawn from the process's generator."""
    return build("llama", torch.float32)


def recovered(seed: int, **options) -> ta.Recovered:
    text = ta.CalibrationSet.from_token_ids(torch.arange(3, 43).repeat(2).reshape(8, 10))
    settings = ta.RecoverySettings(
        shots=2, shot_tokens=60, recovery_tokens=40, batch_size=2, learning_rate=1e-2, seed=seed,
        lora_rank=options.pop("lora_rank", 0), metric="random",
    )  # fmt: skip
    return ta.recover(dense(), text, TARGET, settings, **options)


@pytest.fixture(scope="module")
def calls(bundled, chatting, calibration, statistics):
    """Everything public that takes a seed, by name."""
    dense()
    tokenizer, target = bundled.tokenizer, ta.PruningTarget(3, 400)
    sample, document = {"num_samples": 3, "seq_len": 12}, " ".join(TEXTS)
    chats = [[{"role": "user", "content": text}] for text in TEXTS]
    return {
        "CalibrationSet.from_chats": partial(ta.CalibrationSet.from_chats, chats, chatting, **sample),
        "CalibrationSet.from_document": partial(
            ta.CalibrationSet.from_document, document, tokenizer, seq_len=8, num_samples=2
        ),
        "CalibrationSet.from_model": partial(ta.CalibrationSet.from_model, bundled, **sample),
        "CalibrationSet.from_texts": partial(ta.CalibrationSet.from_texts, TEXTS, tokenizer, **sample),
        "EvaluationSet.from_chats": partial(ta.EvaluationSet.from_chats, chats, chatting, **sample),
        "EvaluationSet.from_document": partial(
            ta.EvaluationSet.from_document, document, tokenizer, seq_len=8, num_samples=2
        ),
        "EvaluationSet.from_texts": partial(ta.EvaluationSet.from_texts, TEXTS, tokenizer, **sample),
        "ImportanceScores.random": partial(ta.ImportanceScores.random, bundled.spec),
        "generate": partial(ta.generate, bundled, "One day", max_new_tokens=12, temperature=1.0),
        "recover": recovered,
        "score": partial(ta.score, bundled, statistics, metric="random"),
        "stability": partial(ta.stability, bundled, statistics, target, resamples=2),
    }


NAMES = (
    "CalibrationSet.from_chats", "CalibrationSet.from_document", "CalibrationSet.from_model",
    "CalibrationSet.from_texts", "EvaluationSet.from_chats", "EvaluationSet.from_document", "EvaluationSet.from_texts",
    "ImportanceScores.random", "generate", "recover", "score", "stability",
)  # fmt: skip


def values(result) -> list:
    """What was drawn, to be compared."""
    if isinstance(result, ta.Recovered):
        return [parameter.tolist() for parameter in result.pruned.model.parameters()]
    if isinstance(result, ta.ImportanceScores):
        return [scores.tolist() for scores in result.mlp_channels]
    if isinstance(result, ta.Stability):
        return [repr(result.channel_overlaps), *(each.tolist() for each in result.channel_frequencies)]
    return [result] if isinstance(result, str) else list(result.rows())


@pytest.mark.parametrize("name", cases(NAMES, test=["recover"], check=lambda name: name != "recover"))
def test_the_seed_alone_decides_and_the_process_keeps_its_generators(name, calls):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = state()
    alone = values(calls[name](seed=5))
    assert state() == before
    assert values(calls[name](seed=6)) != alone
    random.seed(7), np.random.seed(8), torch.manual_seed(9)
    assert values(calls[name](seed=5)) == alone


def test_everything_that_takes_a_seed_is_in_the_table():
    found = {"recover"}  # whose settings hold the seed
    for name in ta.__all__:
        public = getattr(ta, name)
        if inspect.isclass(public) and not issubclass(public, Exception):
            methods = inspect.getmembers(public, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
            methods = [(method, it) for method, it in methods if not method.startswith("_")]
            found |= {f"{name}.{method}" for method, it in methods if "seed" in inspect.signature(it).parameters}
        elif inspect.isfunction(public) and "seed" in inspect.signature(public).parameters:
            found.add(name)
    # a label there
    assert found - {"CalibrationSet.from_sequences", "EvaluationSet.from_sequences"} == set(NAMES)


@pytest.mark.long
@pytest.mark.parametrize("name", ["generate", "CalibrationSet.from_model", "recover"])
def test_the_same_beside_a_thread_that_draws(name, calls):
    alone = values(calls[name](seed=5))
    with another_thread_drawing() as times:
        for _ in range(3):
            before = times[0]
            assert values(calls[name](seed=5)) == alone
            assert times[0] > before


@pytest.mark.slow
def test_adapters_begin_the_same_beside_a_thread_that_draws():
    pytest.importorskip("peft", reason="LoRA needs peft")
    dense()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = state()
    alone = values(recovered(5, lora_rank=2))
    assert state() == before
    with another_thread_drawing():
        assert values(recovered(5, lora_rank=2)) == alone


def test_generators_are_put_back_after_a_failure():
    def fails(done: int, total: int, unit: str) -> None:
        if done > 2:
            raise ta.Cancelled

    dense()
    before = state()
    with pytest.raises(ta.Cancelled):
        recovered(5, progress=fails)
    assert state() == before
    with pytest.raises(ZeroDivisionError), shared_generators_restored():
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        raise ZeroDivisionError
    assert state() == before


def test_draws_are_as_likely_as_they_should_be():
    """Of 40,000 draws each count lies within five standard deviations of its mean; what has no chance never comes."""
    chances = torch.tensor([0.0, 0.5, 0.3, 0.0, 0.15, 0.05, 0.0], dtype=torch.float64)
    rows = 40_000
    drawn = draw(chances.log().expand(rows, -1), torch.Generator().manual_seed(0)).flatten()
    counts = torch.bincount(drawn, minlength=len(chances))
    assert (counts[chances == 0] == 0).all()
    assert ((counts - rows * chances).abs() <= 5 * (rows * chances * (1 - chances)).sqrt()).all()


def test_temperature_sharpens_what_is_drawn(bundled):
    write = partial(ta.generate, bundled, "One day", max_new_tokens=12)
    assert {write(temperature=1e-4, seed=seed) for seed in (0, 1)} == {write()}
    assert len({write(temperature=1.0, seed=seed) for seed in range(4)}) > 1


@pytest.fixture
def preferring(bundled):
    """A context in which the model's likeliest next token is the one that is named, from a length on."""

    @contextmanager
    def preferring(token: int, length: int, logit: float = 1e4):
        def prefer(module, given, named, output) -> None:
            seen.append(named["input_ids"].shape[1])
            if sum(seen) >= length:
                output.logits[..., token] = logit

        seen: list[int] = []
        hook = bundled.model.register_forward_hook(prefer, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    return preferring


@pytest.mark.parametrize("end", [0, [0], [0, 5], [5, 0], 5])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_any_end_of_text_id_ends_a_text(bundled, preferring, monkeypatch, end, temperature):
    """Id 0 as well, which Pythia and other GPT-NeoX models name."""
    monkeypatch.setattr(bundled.model.generation_config, "eos_token_id", end)
    steps = []
    prompt = len(bundled.tokenizer("One day").input_ids)
    for token in end if isinstance(end, list) else [end]:
        with preferring(token, prompt + 3):
            told = partial(lambda *at: steps.append(at[0]))
            ta.generate(bundled, "One day", max_new_tokens=9, temperature=temperature, progress=told)
        assert max(steps) == 4, token  # three tokens and the end
        steps.clear()


def test_without_an_end_of_text_id_a_text_runs_on(bundled, preferring, monkeypatch):
    for end in (None, []):
        monkeypatch.setattr(bundled.model.generation_config, "eos_token_id", end)
        steps = []
        with preferring(0, 1):
            ta.generate(bundled, "One day", max_new_tokens=9, progress=lambda *at: steps.append(at[0]))  # noqa: B023
        assert max(steps) == 9


def test_own_samples_end_at_id_0(monkeypatch):
    """Without a tokenizer the generation config names where texts end; an id 0 is one of those."""
    dense = build("gpt-neox", torch.float32)
    for ends in (0, [0]):
        monkeypatch.setattr(dense.model.generation_config, "bos_token_id", None)
        monkeypatch.setattr(dense.model.generation_config, "eos_token_id", ends)
        drawn = ta.CalibrationSet.from_model(dense, num_samples=60, seq_len=12, temperature=2.0)
        rows = list(drawn.rows())
        assert {row[0] for row in rows} == {0}
        assert not any(0 in row[2:] for row in rows) and len({len(row) for row in rows}) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_predictions_that_are_no_numbers_are_told(bundled, preferring, temperature, broken):
    with preferring(7, 1, broken), pytest.raises(NonFiniteActivations, match="NaN or infinite"):
        ta.generate(bundled, "One day", max_new_tokens=3, temperature=temperature)
