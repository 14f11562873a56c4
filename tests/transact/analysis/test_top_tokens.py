"""What a unit reads: its strongest tokens by hand and by brute force, and the text around them."""

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import transact as ta
from tests.tiny_models import build, token_ids
from transact.observing.accumulators import PeakAccumulator, RealTokens, channels, head_norms
from transact.observing.statistics import CalibrationRecord
from transact.text.calibration import CalibrationSet

pytestmark = pytest.mark.rounding


@pytest.fixture(scope="module")
def byte_tokenizer():
    """Every byte a token, begun with <s> at 256: a character of two bytes is always two tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


@pytest.fixture(scope="module")
def fallback_tokenizer():
    """Pieces with ▁ for the space and bytes for what they cannot spell, as Llama 2 has them."""
    pieces = ["<unk>", "<s>", *[f"<0x{byte:02X}>" for byte in range(256)], "▁", "▁the", "▁cat", "s"]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def _peaks(activations: list[list[float]], samples, positions) -> ta.Peaks:
    return ta.Peaks(torch.tensor(activations), torch.tensor(samples), torch.tensor(positions))


def _statistics(calibration: CalibrationSet, positions: list[int]) -> ta.ActivationStatistics:
    """One layer with one head and one channel, strongest at these positions of the first sample."""
    count = len(positions)
    peaks = _peaks([[float(count - index) for index in range(count)]], [[0] * count], [positions])
    record = CalibrationRecord.of(calibration)
    return ta.ActivationStatistics((), (), 1, record, "model", "float32", head_peaks=(peaks,), channel_peaks=(peaks,))


def _tokens(*lengths: int, samples: tuple[int, ...]) -> RealTokens:
    mask = torch.tensor([[place < length for place in range(max(lengths))] for length in lengths])
    return RealTokens(mask, lengths, samples)


def test_channel_peaks_by_hand():
    running = PeakAccumulator(2, 2, channels, torch.device("cpu"))
    # [sample, seq, channel]; sample 7 ends after one token, so that 99 is padding
    running.add(
        torch.tensor([[[1.0, -5.0], [-3.0, 5.0], [3.0, 0.0]], [[2.0, 0.5], [99.0, 99.0], [99.0, 99.0]]]),
        _tokens(3, 1, samples=(4, 7)),
    )
    running.add(torch.tensor([[[-3.0, 0.0]], [[-2.5, 5.0]]]), _tokens(1, 1, samples=(2, 0)))
    peaks = running.result()
    # channel 0 reaches 3 in samples 2 and 4, channel 1 reaches 5 in samples 0 and 4: the earlier sample first
    assert peaks.activations.tolist() == [[-3.0, 3.0], [5.0, 5.0]]
    assert peaks.samples.tolist() == [[2, 4], [0, 4]]
    assert peaks.positions.tolist() == [[0, 2], [0, 1]]


def test_what_differs_by_rounding_alone_is_a_tie():
    """The earlier position and the earlier sample win, though another order of summation made the later ones larger."""
    more, much_more = 1 + 2.0**-20, 1 + 2.0**-9
    for order in ((3, 0, 6), (0, 3, 6), (6, 3, 0)):
        running = PeakAccumulator(2, 2, channels, torch.device("cpu"))
        for sample in order:
            rows = torch.tensor([[[0.5, -1.0], [1.0, -more], [more, -much_more]]]) * (more if sample else 1)
            running.add(rows, _tokens(3, samples=(sample,)))
        peaks = running.result()
        assert peaks.samples.tolist() == [[0, 3], [0, 3]]
        assert peaks.positions.tolist() == [[1, 1], [2, 2]]
        expected = torch.tensor([[1.0, more], [-much_more, -much_more * more]])
        torch.testing.assert_close(peaks.activations, expected, rtol=2.0**-23, atol=0)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "olmo2"])
def test_peaks_do_not_hang_on_batches_or_threads(name):
    """A token that is repeated at the start of a text computes the same again and again, but for rounding."""
    loaded = build(name, torch.float32)
    rows = [[5] * 9, [5] * 4, [7, 7, 7, 5], [5] * 12, [9] * 3]
    calibration = CalibrationSet.from_sequences(rows, name="repeated")
    before = torch.get_num_threads()
    try:
        for batch_size, threads in ((1, 1), (2, 1), (5, 1), (5, 2)):
            torch.set_num_threads(threads)
            statistics = ta.observe(loaded, calibration, top_k=3, batch_size=batch_size)
            for layer in (*statistics.head_peaks, *statistics.channel_peaks):
                assert set(layer.positions[layer.samples != 2].tolist()) == {0}
                fives = layer.samples[(layer.samples != 2).all(dim=1) & (layer.samples != 4).all(dim=1)]
                assert (fives == torch.tensor([0, 1, 3])).all()
    finally:
        torch.set_num_threads(before)


def test_head_peaks_are_norms_by_hand():
    running = PeakAccumulator(2, 1, head_norms(2), torch.device("cpu"))
    running.add(torch.tensor([[[3.0, 4.0, 0.0, 1.0], [0.0, 4.9, -2.0, 0.0]]]), _tokens(2, samples=(0,)))
    peaks = running.result()
    assert peaks.activations.tolist() == [[5.0], [2.0]]
    assert peaks.positions.tolist() == [[0], [1]]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("name", ["llama", "qwen2-multi-head-tied"])
def test_peaks_equal_those_of_the_recorded_inputs(name, batch_size):
    loaded = build(name)
    ids = token_ids(loaded, samples=6, seq=12)
    rows = [row[:length].tolist() for row, length in zip(ids, (7, 12, 1, 12, 4, 9), strict=True)]
    calibration = CalibrationSet.from_sequences(rows, name="ids")
    statistics = ta.observe(loaded, calibration, top_k=4, batch_size=batch_size)
    seen = {"o": [], "d": []}
    layer = loaded.decoder_layers[1]
    handles = [
        module.register_forward_pre_hook(lambda _, inputs, key=key: seen[key].append(inputs[0][0]))
        for key, module in (("o", layer.self_attn.o_proj), ("d", layer.mlp.down_proj))
    ]
    with torch.no_grad():
        for row in rows:
            loaded.model(torch.tensor([row]))
    for handle in handles:
        handle.remove()
    heads = [inputs.unflatten(-1, (-1, loaded.spec.head_dim)).norm(dim=-1) for inputs in seen["o"]]
    for found, recorded in ((statistics.head_peaks[1], heads), (statistics.channel_peaks[1], seen["d"])):
        largest = torch.stack([values.abs().amax(dim=0) for values in recorded], dim=1)  # [unit, sample]
        expected, samples = largest.sort(dim=1, descending=True)
        torch.testing.assert_close(found.activations.abs().double(), expected[:, :4], rtol=1e-5, atol=0)
        assert torch.equal(found.samples, samples[:, :4])
        for unit in (0, 5):
            for activation, sample, position in zip(
                found.activations[unit], found.samples[unit], found.positions[unit], strict=True
            ):
                assert recorded[sample][position, unit].item() == pytest.approx(activation.item(), rel=1e-5)


def test_no_more_peaks_than_samples_and_ties_go_to_the_earlier_sample():
    loaded = build("llama")
    row = token_ids(loaded, samples=1)[0].tolist()
    calibration = CalibrationSet.from_sequences([row[:5], row, row, row], name="ids")
    for batch_size in (1, 2, 4):
        statistics = ta.observe(loaded, calibration, top_k=9, batch_size=batch_size)
        peaks = statistics.channel_peaks[0]
        assert peaks.samples.shape == peaks.activations.shape == peaks.positions.shape == (40, 4)
        whole = peaks.positions[:, 0] >= 5  # where the short sample has nothing to say
        assert whole.any()
        assert (peaks.samples[whole] == torch.tensor([1, 2, 3, 0])).all()
    with pytest.raises(ta.InvalidOption, match="top_k"):
        ta.observe(loaded, calibration, top_k=-1)


def test_text_around_a_token(byte_tokenizer):
    calibration = CalibrationSet.from_texts(["A café là"], byte_tokenizer)
    places = ["<s>", "A", " ", "c", "a", "f", "é", "é", " ", "l", "à", "à"]
    statistics = _statistics(calibration, [0, 3, 6, 7, 9, 11])
    found = ta.reads(statistics, calibration, byte_tokenizer, layer=0, channel=0, context=3)
    assert [(reading.before, reading.token, reading.after) for reading in found] == [
        ("", "<s>", "A c"),
        ("<s>A ", "c", "afé"),  # the third token after it is half a character
        ("caf", "é", " l"),
        ("af", "é", " là"),
        ("é ", "l", "à"),
        (" l", "à", ""),
    ]
    assert [places[reading.position] for reading in found] == [reading.token for reading in found]
    assert [reading.activation for reading in found] == [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("text", ["naïve 🙂🙂 end", "日本語 text", "plain", "e\u0301 combined", "half \ufffd sign"])
def test_pieces_join_to_the_text(byte_tokenizer, text):
    calibration = CalibrationSet.from_texts([text], byte_tokenizer)
    length = calibration.lengths[0]
    statistics = _statistics(calibration, list(range(length)))
    for reading in ta.reads(statistics, calibration, byte_tokenizer, layer=0, head=0, context=length):
        assert reading.before + reading.token + reading.after == "<s>" + text
        assert reading.token == "<s>" or len(reading.token) == 1
    for reading in ta.reads(statistics, calibration, byte_tokenizer, layer=0, head=0, context=2):
        around = reading.before + reading.token + reading.after
        assert around in "<s>" + text
        assert ("\ufffd" in around) <= ("\ufffd" in text)


def test_a_character_that_the_sample_cuts_stays_cut(byte_tokenizer):
    calibration = CalibrationSet.from_texts(["ab🙂"], byte_tokenizer, seq_len=5)  # two of four bytes are left
    for reading in ta.reads(_statistics(calibration, [3, 4]), calibration, byte_tokenizer, layer=0, head=0):
        assert (reading.before, reading.token, reading.after) == ("<s>ab", "\ufffd", "")


def test_pieces_and_bytes(fallback_tokenizer):
    vocabulary = fallback_tokenizer.get_vocab()
    spelled = ["<s>", "▁the", "▁cat", "s", "▁", "<0xC3>", "<0xA9>", "▁cat"]
    calibration = CalibrationSet.from_sequences([[vocabulary[piece] for piece in spelled]], name="ids")
    found = ta.reads(
        _statistics(calibration, [1, 2, 5, 6]), calibration, fallback_tokenizer, layer=0, head=0, context=1
    )
    assert [(reading.before, reading.token, reading.after) for reading in found] == [
        ("<s>", " the", " cat"),
        (" the", " cat", "s"),
        (" ", "é", ""),
        ("", "é", " cat"),
    ]


def test_a_head_of_the_bundled_model_reads_real_text():
    loaded = ta.load("bundled")
    texts = ["Mia said: the café — “naïve” 🙂!", "17 + 25 = 42", "((()))"]
    calibration = CalibrationSet.from_texts(texts, loaded.tokenizer)
    statistics = ta.observe(loaded, calibration, top_k=2)
    for unit in ({"head": 3}, {"channel": 200}):
        found = ta.reads(statistics, calibration, loaded.tokenizer, layer=2, **unit)
        assert len(found) == 2
        assert abs(found[0].activation) >= abs(found[1].activation)
        for reading in found:
            assert reading.token
            assert reading.before + reading.token + reading.after in "<s>" + texts[reading.sample]
        assert ta.reads(statistics, calibration, loaded.tokenizer, layer=2, k=1, **unit) == found[:1]


def test_what_cannot_be_read_is_refused(byte_tokenizer):
    calibration = CalibrationSet.from_texts(["some text"], byte_tokenizer)
    statistics = _statistics(calibration, [1])

    def refused(error, match, *, of=statistics, on=calibration, tokenizer=byte_tokenizer, **unit):
        with pytest.raises(error, match=match):
            ta.reads(of, on, tokenizer, **({"layer": 0} | unit))

    other = CalibrationSet.from_texts(["other text"], byte_tokenizer, name="other")
    refused(ta.InvalidText, "observed on 'texts', not on .*'other'", on=other, head=0)
    refused(ta.InvalidText, "without a tokenizer", tokenizer=None, head=0)
    refused(ta.InvalidOption, "exactly one")
    refused(ta.InvalidOption, "exactly one", head=0, channel=0)
    refused(ta.InvalidOption, "no layer 1; the layers run from 0 to 0", layer=1, head=0)
    refused(ta.InvalidOption, "no channel -1", channel=-1)
    refused(ta.InvalidOption, "k is 0", head=0, k=0)
    refused(ta.InvalidOption, "context is -1", head=0, context=-1)
    loaded = build("llama")
    ids = CalibrationSet.from_token_ids(token_ids(loaded))
    refused(ta.InvalidOption, "top_k", of=ta.observe(loaded, ids), on=ids, head=0)
