"""What work says that it needs: counted by hand, and said before the work begins."""

import importlib

import pytest

import transact as ta
from tests.tiny_models import build, token_ids
from transact.spec.memory_estimates import BLOCK_BYTES, block_bytes

TARGET = ta.PruningTarget(keep_head_groups=2, keep_channels=20)


@pytest.fixture(scope="module")
def dense():
    return build("llama")


@pytest.fixture(scope="module")
def statistics(dense):
    return ta.observe(dense, ta.CalibrationSet.from_token_ids(token_ids(dense, samples=8)), gram="attention")


def test_logits_of_a_large_vocabulary_count_as_blocks(dense):
    spec = dense.spec  # 48 words
    assert block_bytes(spec, 10) == 5 * 10 * 48 * 4, "few rows are all there at a time, a few times"
    large = ta.ModelSpec.from_dict({**spec.to_dict(), "vocab_size": 262_144})
    assert block_bytes(large, 512) == 5 * BLOCK_BYTES, "many are there block by block"
    assert 10 * BLOCK_BYTES < 512 * 262_144 * 4
    # two samples of 12 tokens: their hidden states twice, and what takes more of the layers and the logits
    evaluation = ta.EvaluationSet.from_token_ids(token_ids(dense))
    positions, hidden, heads, channels = 24, 32, 8 + 4, 40
    layers = positions * (8 * (4 * hidden + max(3 * heads * 4, 3 * channels)) + 8 * hidden)
    logits = 5 * positions * 48 * 8
    assert ta.evaluation_bytes(spec, evaluation, 8) == 2 * positions * hidden * 8 + max(layers, logits)


def test_more_text_a_larger_vocabulary_and_a_reference_take_more(dense, statistics):
    tokens = statistics.tokens
    more = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=64))
    large = ta.ModelSpec.from_dict({**dense.spec.to_dict(), "vocab_size": 262_144})
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, TARGET)
    assert ta.search_bytes(dense.spec, TARGET, tokens) < ta.search_bytes(dense.spec, TARGET, more)
    assert ta.search_bytes(large, TARGET, tokens) > 5 * tokens.num_tokens * 262_144
    assert ta.search_bytes(dense.spec, ta.PruningTarget(4, 40), tokens) == 0, "nothing goes, so nothing is searched for"
    assert plan.spec.num_parameters * 4 < ta.best_bytes(plan, tokens) < ta.best_bytes(plan, more)
    evaluation = ta.EvaluationSet.from_token_ids(token_ids(dense))
    alone, beside = (ta.evaluation_bytes(dense.spec, evaluation, reference=each) for each in (None, dense.spec))
    assert alone < beside


def test_what_does_not_fit_is_refused_before_the_work(dense, statistics, monkeypatch):
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, TARGET)
    evaluation = ta.EvaluationSet.from_token_ids(token_ids(dense))
    told = []
    work = {
        "planning.search": lambda: ta.search_plan(
            dense, statistics, TARGET, progress=lambda *figures: told.append(figures)
        ),
        "repair.best": lambda: ta.prune(
            dense, plan, compensation="best", statistics=statistics, progress=lambda *figures: told.append(figures)
        ),
        "evaluation.evaluate": lambda: ta.perplexity(dense, evaluation, progress=lambda *figures: told.append(figures)),
    }
    words = ("The search with 96 tokens", "The best repair", "Measuring on")
    for (module, call), begins in zip(work.items(), words, strict=True):
        with monkeypatch.context() as patched:
            # by its full name, as attributes of the package are functions
            patched.setattr(importlib.import_module(f"transact.{module}"), "free_bytes", lambda device: 100)
            with pytest.raises(ta.NotEnoughMemory, match=f"{begins}.* are free"):
                call()
    assert told == []
    for call in work.values():
        call()
    assert told
