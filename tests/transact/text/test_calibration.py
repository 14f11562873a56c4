"""How texts become sequences."""

import copy
from dataclasses import replace

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from tests.tokenizers_by_hand import words_tokenizer
from transact.observing.statistics import CalibrationRecord
from transact.text.calibration import spread_out


def test_one_bos_and_one_cut(stories):
    bos = stories.tokenizer.bos_token_id
    plain = stories.tokenizer("Once upon a time", add_special_tokens=False)["input_ids"]
    texts = ["Once upon a time", "<s>Once upon a time"]
    calibration = ta.CalibrationSet.from_texts(texts, stories.tokenizer)
    first, second = calibration.rows()
    assert first == (bos, *plain)
    assert second[0] == bos and second.count(bos) == 1
    cut = ta.CalibrationSet.from_texts(["Once upon a time"], stories.tokenizer, seq_len=3)
    assert next(cut.rows()) == (bos, *plain[:2])


def test_short_texts_are_dropped_and_samples_seeded(stories, calibration_texts):
    def sample(seed):
        return ta.CalibrationSet.from_texts(
            [*calibration_texts, "Hi."], stories.tokenizer, num_samples=10, seq_len=64, seed=seed, min_tokens=64
        )

    assert sample(0).lengths == (64,) * 10
    assert sample(0).fingerprint == sample(0).fingerprint != sample(1).fingerprint


def test_the_reference_protocol_counts_its_tokens(stories, calibration_texts):
    calibration = ta.CalibrationSet.from_texts(calibration_texts, stories.tokenizer, seq_len=256, min_tokens=64)
    assert (calibration.num_samples, calibration.num_tokens) == (128, 32635)


def test_document_windows_are_contiguous(stories):
    text = "Once upon a time there was a red ball. " * 40
    bos, *ids = stories.tokenizer(text)["input_ids"]
    document = ta.EvaluationSet.from_document(text, stories.tokenizer, seq_len=50)
    assert all(row[0] == bos and len(row) == 50 for row in document.rows())
    assert [token for row in document.rows() for token in row[1:]] == ids[: len(ids) // 49 * 49]
    assert document.protocol == "one document, contiguous windows of 50 tokens, BOS in each window"
    short = ta.EvaluationSet.from_document("A ball.", stories.tokenizer, seq_len=50)
    assert short.num_samples == 1


@pytest.mark.parametrize("texts", [[], [""], ["  \n"]])
def test_empty_text_is_refused(stories, texts):
    with pytest.raises(ta.InvalidText, match="empty"):
        ta.CalibrationSet.from_texts(texts, stories.tokenizer)


def test_text_that_predicts_nothing_is_refused(stories):
    evaluation = ta.EvaluationSet.from_texts(["Hi"], stories.tokenizer, seq_len=1)
    with pytest.raises(ta.InvalidText, match="too short to predict"):
        ta.perplexity(stories, evaluation)
    with pytest.raises(ta.InvalidText, match="64 tokens or more"):
        ta.EvaluationSet.from_texts(["Hi"], stories.tokenizer, min_tokens=64)


def test_bad_token_ids_and_lengths_are_refused(stories):
    with pytest.raises(ta.InvalidText, match="shape"):
        ta.CalibrationSet.from_token_ids(torch.tensor([1, 2]))
    with pytest.raises(ta.InvalidText, match="between real tokens"):
        ta.CalibrationSet.from_token_ids(torch.ones(1, 3).long(), torch.tensor([[1, 0, 1]]))
    with pytest.raises(ta.InvalidText, match="negative"):
        ta.CalibrationSet.from_token_ids(torch.tensor([[1, -1]]))
    with pytest.raises(ta.InvalidText, match="vocabulary of 512"):
        ta.observe(stories, ta.CalibrationSet.from_token_ids(torch.tensor([[1, 512]])))
    with pytest.raises(ta.InvalidText, match="at least 1"):
        ta.CalibrationSet.from_texts(["text"], stories.tokenizer, seq_len=0)


def test_a_token_that_was_added_to_the_models_own_tokenizer_is_told_as_such(stories):
    """The advice is not to use the very tokenizer that was used."""
    tokenizer = copy.deepcopy(stories.tokenizer)
    tokenizer.add_tokens(["<tool>"])
    added = tokenizer.convert_tokens_to_ids("<tool>")
    assert added >= stories.spec.vocab_size
    extended = replace(stories, tokenizer=tokenizer)
    text = "Once upon a <tool> time"
    calibration = ta.CalibrationSet.from_texts([text], tokenizer)
    evaluation = ta.EvaluationSet.from_texts([text], tokenizer)
    settings = ta.RecoverySettings(shots=1, shot_tokens=8, recovery_tokens=8)
    for work in (
        lambda loaded: ta.observe(loaded, calibration),
        lambda loaded: ta.perplexity(loaded, evaluation),
        lambda loaded: ta.recover(loaded, calibration, ta.PruningTarget(2, 100), settings),
        lambda loaded: ta.generate(loaded, text),
    ):
        with pytest.raises(ta.TransactError, match=rf"{added} \('<tool>'\).*resize_token_embeddings"):
            work(extended)
    with pytest.raises(ta.InvalidText, match="this model's own tokenizer\\.$"):
        ta.observe(stories, calibration)  # whose tokenizer knows no such token


def test_what_is_no_text_is_refused(stories):
    with pytest.raises(ta.InvalidText, match="half a character"):
        ta.CalibrationSet.from_texts(["hello \ud83d"], stories.tokenizer)
    with pytest.raises(ta.InvalidPrompt, match="half a character"):
        ta.generate(stories, "hello \ud83d")
    for texts in ("one text", ["text", None]):
        with pytest.raises(ta.InvalidText, match="list of texts"):
            ta.CalibrationSet.from_texts(texts, stories.tokenizer)
    with pytest.raises(ta.InvalidText, match="from_texts"):
        ta.CalibrationSet.from_document(["text"], stories.tokenizer)
    with pytest.raises(ta.InvalidText, match="shape"):
        ta.CalibrationSet.from_token_ids([[1, 2], [3]])


def test_overlap_of_evaluation_with_calibration_is_told(stories):
    texts = ["One day a boy ran.", "A girl sang a song.", "The cat sat."]
    calibration = ta.CalibrationSet.from_texts(texts[:1], stories.tokenizer)
    evaluation = ta.EvaluationSet.from_texts(texts, stories.tokenizer)
    assert evaluation.overlap(calibration) == pytest.approx(1 / 3)


def test_long_texts_are_cut_into_windows_where_samples_would_be_missing():
    tokenizer = words_tokenizer("<s> $A")
    long, short = "a b c d " * 5, "a b"  # 20 and 2 tokens, BOS apart

    def lengths(texts, **settings):
        return ta.CalibrationSet.from_texts(texts, tokenizer, seq_len=6, windows="auto", **settings).lengths

    # four windows of BOS and five tokens; a text that fits stays one sequence
    assert lengths([long, short], num_samples=5) == (6, 6, 6, 6, 3)
    # as many samples as were asked for are there without
    assert lengths([long, short], num_samples=2) == (6, 3)
    # all texts: 9 of 24 tokens would be used, then 18 of 27
    assert lengths([long, short], num_samples=None) == (6, 6, 6, 6, 3)
    assert lengths(["a b c d a b c", short, short, short], num_samples=None) == (6, 3, 3, 3)
    always = ta.EvaluationSet.from_texts([long, short], tokenizer, seq_len=6, windows=True)
    assert always.lengths == (6, 6, 6, 6, 3)
    assert always.protocol == ("each text one sequence, BOS in each sequence, longer ones in windows of 6")
    document = ta.EvaluationSet.from_document(long, tokenizer, seq_len=6)
    assert list(always.rows())[:4] == list(document.rows())
    with pytest.raises(ta.InvalidOption, match='True, False or "auto"'):
        ta.CalibrationSet.from_texts([long], tokenizer, windows="yes")


def test_what_is_left_out_and_missing_is_told():
    tokenizer = words_tokenizer("<s> $A")
    text = "a b c d " * 50
    cut = ta.CalibrationSet.from_texts([text], tokenizer, seq_len=20)
    assert (cut.num_tokens, cut.available_tokens, cut.requested_samples) == (20, 201, 128)
    missing, left_out = cut.notes
    assert missing == "128 samples were asked for and the text gives 1. Give more text."
    assert left_out.startswith("Only 20 of the text's 201 tokens are used")
    windows = ta.CalibrationSet.from_texts([text], tokenizer, seq_len=20, windows="auto")
    # 10 windows of BOS and 19 tokens; 10 tokens are too few for an eleventh, which would have a BOS as well
    assert (windows.num_samples, windows.num_tokens, windows.available_tokens) == (10, 200, 211)
    assert windows.notes == ("128 samples were asked for and the text gives 10. Give more text.",)
    record = CalibrationRecord.of(windows)
    assert (record.available_tokens, record.requested_samples) == (211, 128)
    assert ta.CalibrationSet.from_texts(["a b"] * 200, tokenizer).notes == ()
    assert windows.first(3).notes == ()
    assert len(ta.EvaluationSet.from_texts([text], tokenizer, seq_len=20).notes) == 1


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama", "qwen3"])
def test_a_sample_beyond_the_context_is_refused_everywhere(name):
    """Learned positions end in an IndexError there, rotary ones in numbers that mean nothing."""
    loaded = build(name, torch.float32)
    fits, long = (ta.CalibrationSet.from_token_ids(token_ids(loaded, seq=length)) for length in (64, 65))
    target = ta.PruningTarget(keep_head_groups=2, keep_channels=20)
    settings = ta.RecoverySettings(shots=1, shot_tokens=0, recovery_tokens=64)
    scores = ta.ImportanceScores.random(loaded.spec)
    streamed = ta.StreamedText(["a"], words_tokenizer(), 65, "text")
    ta.observe(loaded, fits)
    assert ta.perplexity(loaded, fits) > 0
    for work in (
        lambda: ta.observe(loaded, long),
        lambda: ta.observe(loaded, long, taylor=True),
        lambda: ta.perplexity(loaded, long),
        lambda: ta.evaluate(loaded, long, reference=loaded, speed=False),
        lambda: list(ta.sweep(loaded, scores, (target,), long)),
        lambda: ta.recover(loaded, fits, target, settings, training=long),
        lambda: ta.recover(loaded, fits, target, settings, evaluation=long),
        lambda: ta.recover(loaded, fits, target, settings, training=streamed),
    ):
        with pytest.raises(ta.InvalidText, match="context is 64. Give a seq_len of at most 64"):
            work()


def test_the_first_samples_up_to_a_number_of_tokens():
    tokens = ta.EvaluationSet.from_sequences([[1, 2, 3], [4, 5], [6, 7, 8, 9]], name="numbers")
    assert [tokens.up_to(count).num_samples for count in (1, 4, 5, 8, 9, 100)] == [1, 1, 2, 2, 3, 3]
    assert tokens.up_to(5).protocol == "token ids as given, the first 2"
    assert tokens.up_to(9) is tokens


@pytest.mark.parametrize("samples", [1, 2, 7, 64, 100])
def test_the_first_of_samples_that_are_spread_out_lie_evenly(samples):
    text = ta.CalibrationSet.from_token_ids([[number] for number in range(samples)], name="numbers")
    order = [row[0] for row in spread_out(text).rows()]
    assert sorted(order) == list(range(samples))
    for count in (1, 2, 4, 8, 16):
        found = [0] * count
        for number in order[:count] if count <= samples else []:
            found[number * count // samples] += 1
        assert max(found) <= 2
        assert samples & (samples - 1) or count > samples or found == [1] * count
