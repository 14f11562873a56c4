"""What is measured, against plain formulas and published numbers."""

import dataclasses
import math

import pytest
import torch

import transact as ta
from tests.tiers import cases
from tests.tiny_models import build, token_ids

pytestmark = pytest.mark.rounding

# groups, channels: random, magnitude, TransAct, Wanda-sp, FLAP metric (development data, README)
REFERENCE_PERPLEXITIES = {
    (4, 137): (10.53, 11.19, 7.53, 7.39, 7.33),
    (4, 86): (91.61, 84.42, 42.23, 35.44, 34.51),
    (3, 172): (5.16, 5.80, 5.09, 4.90, 4.84),
    (3, 137): (25.36, 20.83, 10.69, 9.83, 9.99),
    (2, 86): (331.99, 190.37, 110.86, 86.01, 80.02),
}
METRICS = ("random", "magnitude", "transact", "wanda", "fluctuation")


def test_perplexity_is_exp_of_the_mean_loss():
    loaded = build("llama")
    ids = token_ids(loaded, samples=3)
    with torch.no_grad():
        loss = loaded.model(ids, labels=ids).loss
    value = ta.perplexity(loaded, ta.EvaluationSet.from_token_ids(ids))
    assert value == pytest.approx(math.exp(loss), rel=1e-6)  # transformers takes its loss in float32


def test_every_prediction_counts_once_whatever_the_lengths():
    loaded = build("qwen2")
    ids = token_ids(loaded, samples=3)
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    mask[1, 2:] = 0
    evaluation = ta.EvaluationSet.from_token_ids(ids, mask)
    losses = []
    for row, length in ((0, 5), (1, 2), (2, 12)):
        with torch.no_grad():
            logits = loaded.model(ids[row : row + 1, :length]).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[row, 1:length], reduction="none"))
    assert evaluation.num_predictions == 4 + 1 + 11
    expected = math.exp(torch.cat(losses).mean())
    assert ta.perplexity(loaded, evaluation) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_standard_errors_by_resampling(stories, evaluation_texts):
    """The delta-method error is what repeated draws of texts show, alone and paired."""
    texts = evaluation_texts[:80]
    pruned = ta.prune(stories, _random_plan(stories, 4, 137))
    evaluation = ta.EvaluationSet.from_texts(texts, stories.tokenizer, seq_len=96)
    report = ta.evaluate(pruned, evaluation, reference=stories, speed=False)
    per_text = [[_summed_loss(model, torch.tensor([row])) for row in evaluation.rows()] for model in (pruned, stories)]
    sums, counts = torch.tensor(per_text), torch.tensor(evaluation.lengths) - 1
    draws = torch.randint(len(texts), (2000, len(texts)), generator=torch.Generator().manual_seed(0))
    perplexities = (sums[:, draws].sum(-1) / counts[draws].sum(-1)).exp()
    assert report.perplexity_standard_error == pytest.approx(float(perplexities[0].std()), rel=0.1)
    difference = (perplexities[0] - perplexities[1]).std()
    assert report.perplexity_difference_standard_error == pytest.approx(float(difference), rel=0.1)
    assert report.perplexity_difference_standard_error < report.perplexity_standard_error


def test_agreement_with_the_dense_model_by_hand():
    dense = build("llama")
    pruned = ta.prune(dense, _random_plan(dense, 2, 20))
    ids = token_ids(dense, samples=2)
    with torch.no_grad():
        own, other = (model.model(ids).logits[:, :-1].log_softmax(-1) for model in (pruned, dense))
    report = ta.evaluate(pruned, ta.EvaluationSet.from_token_ids(ids), reference=dense, speed=False)
    assert report.kl_divergence == pytest.approx(float((other.exp() * (other - own)).sum(-1).mean()), rel=1e-9)
    assert report.top1_agreement == pytest.approx(float((own.argmax(-1) == other.argmax(-1)).double().mean()))
    assert report.perplexity - report.reference_perplexity == pytest.approx(report.perplexity_difference)


def test_a_model_agrees_with_itself():
    dense = build("llama")
    evaluation = ta.EvaluationSet.from_token_ids(token_ids(dense))
    report = ta.evaluate(dense, evaluation, reference=dense, speed=False)
    assert report.kl_divergence == 0
    assert report.top1_agreement == 1
    assert report.perplexity_difference_standard_error == 0


@pytest.mark.slow
def test_report_names_costs_speeds_and_protocol(stories):
    pruned = ta.prune(stories, _random_plan(stories, 2, 86))
    evaluation = ta.EvaluationSet.from_texts(["One day a girl saw a big red ball."], stories.tokenizer, name="ball")
    report = ta.evaluate(pruned, evaluation, reference=stories, prompt="Once upon a time")
    assert (report.parameters, report.reference_parameters) == (146752, 260032)
    assert report.kv_bytes_per_token * 2 == report.reference_kv_bytes_per_token
    assert report.checkpoint_bytes == 146752 * 4
    assert report.reference_generation.startswith(", there was a little girl named Lily.")
    assert min(report.prefill_tokens_per_second, report.reference_decode_tokens_per_second) > 0
    assert report.perplexity_standard_error is None, "one text has no spread"
    assert set(report.protocol) == {"perplexity", "agreement", "costs", "speed", "generation"}
    assert "ball: 1 sequence," in report.protocol["perplexity"]
    assert dataclasses.asdict(report) == report.to_dict()


@pytest.mark.long
@pytest.mark.parametrize("size", cases([(size,) for size in REFERENCE_PERPLEXITIES], test=[(3, 172)]))
def test_perplexities_of_the_reference_table(size, reference_statistics, reference_evaluation, stories):
    groups, channels = size
    for metric, expected in zip(METRICS, REFERENCE_PERPLEXITIES[size], strict=True):
        scores = ta.score(stories, reference_statistics, metric=metric)
        target = ta.PruningTarget(keep_head_groups=groups, keep_channels=channels)
        value = ta.perplexity(ta.prune(stories, ta.make_plan(scores, stories.spec, target)), reference_evaluation)
        if metric == "random":
            assert expected / 2 < value < expected * 2
        else:
            assert value == pytest.approx(expected, rel=0.03), metric


@pytest.mark.slow
def test_dense_reference_perplexity(stories, reference_evaluation):
    assert ta.perplexity(stories, reference_evaluation) == pytest.approx(4.059, abs=5e-4)


@pytest.fixture(scope="module")
def reference_statistics(stories, calibration_texts):
    calibration = ta.CalibrationSet.from_texts(calibration_texts, stories.tokenizer, seq_len=256, min_tokens=64)
    return ta.observe(stories, calibration)


@pytest.fixture(scope="module")
def reference_evaluation(stories, evaluation_texts):
    return ta.EvaluationSet.from_texts(evaluation_texts, stories.tokenizer, seq_len=256, min_tokens=64)


def test_prompts_that_cannot_be_continued_are_refused(stories):
    with pytest.raises(ta.InvalidPrompt, match="empty"):
        ta.generate(stories, "  ")
    with pytest.raises(ta.InvalidPrompt, match="context is 512"):
        ta.generate(stories, "ball " * 600)


def test_generation_stops_at_a_token_and_never_runs_past_the_context(stories):
    counts = []

    def stop_after_four(done, total, unit):
        counts.append(done)
        if done == 4:
            raise ta.Cancelled

    with pytest.raises(ta.Cancelled):
        ta.generate(stories, "Once upon a time", progress=stop_after_four)
    assert list(dict.fromkeys(counts)) == [0, 1, 2, 3, 4], "the same count again at every layer"
    prompt = "Once upon a time " * 126
    room = 512 - len(stories.tokenizer(prompt)["input_ids"])
    assert 0 < room < 20
    ta.generate(stories, prompt, progress=lambda done, total, unit: counts.append(total))
    assert counts[-1] == room


def test_sampled_generation_is_seeded_and_leaves_the_global_generator_alone(stories):
    state = torch.random.get_rng_state()
    first = ta.generate(stories, "Once upon a time", temperature=1.0, seed=3, max_new_tokens=20)
    again = ta.generate(stories, "Once upon a time", temperature=1.0, seed=3, max_new_tokens=20)
    assert first == again
    assert torch.equal(state, torch.random.get_rng_state())


def test_greedy_is_greedy_whatever_the_checkpoint_prefers():
    """Penalties, beams and odd settings of a generation config do not reach the comparison."""
    plain, odd = (ta.load("bundled") for _ in range(2))
    odd.model.generation_config.update(
        repetition_penalty=1.5, num_beams=3, no_repeat_ngram_size=2, return_dict_in_generate=True, max_time=0.0
    )
    assert ta.generate(odd, "One day", max_new_tokens=40) == ta.generate(plain, "One day", max_new_tokens=40)
    assert odd.model.generation_config.num_beams == 3


def test_the_likeliest_next_tokens_are_the_models_own(stories):
    ids = stories.tokenizer("Once upon a", return_tensors="pt").input_ids
    shares = stories.model(ids).logits[0, -1].softmax(-1)
    likeliest = shares.argsort(descending=True)[:3].tolist()
    found = ta.next_tokens(stories, "Once upon a", count=3)
    assert found == tuple(
        (stories.tokenizer.decode([token]), pytest.approx(shares[token].item())) for token in likeliest
    )
    with pytest.raises(ta.InvalidPrompt):
        ta.next_tokens(stories, " ")
    with pytest.raises(ta.InvalidOption):
        ta.next_tokens(stories, "Once", count=0)


def test_a_continuation_keeps_its_leading_space(stories):
    assert ("Once" + ta.generate(stories, "Once", max_new_tokens=8)).startswith("Once upon")


def test_a_bad_prompt_is_refused_before_anything_is_measured(stories):
    evaluation = ta.EvaluationSet.from_texts(["One day a girl ran."], stories.tokenizer)
    calls = []
    with pytest.raises(ta.InvalidPrompt):
        ta.evaluate(stories, evaluation, prompt="ball " * 600, progress=lambda *call: calls.append(call))
    assert calls == []


def test_texts_that_predict_nothing_do_not_count_as_texts():
    loaded = build("llama")
    rows = [row.tolist() for row in token_ids(loaded, samples=2)]
    alone = ta.evaluate(loaded, ta.EvaluationSet.from_sequences(rows, name="two"), speed=False)
    beside = ta.evaluate(loaded, ta.EvaluationSet.from_sequences([*rows, [3], [4]], name="four"), speed=False)
    assert beside.perplexity_standard_error == pytest.approx(alone.perplexity_standard_error)
    single = ta.evaluate(loaded, ta.EvaluationSet.from_sequences([rows[0], [3]], name="one"), speed=False)
    assert single.perplexity_standard_error is None


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}])
def test_numbers_out_of_range_are_refused(stories, options):
    with pytest.raises(ta.InvalidOption, match=f"{next(iter(options))} is .*; give a"):
        ta.generate(stories, "Once", **options)


def _random_plan(loaded, groups, channels):
    target = ta.PruningTarget(keep_head_groups=groups, keep_channels=channels)
    return ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target)


def _summed_loss(loaded, ids) -> float:
    with torch.no_grad():
        logits = loaded.model(ids).logits[0, :-1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
