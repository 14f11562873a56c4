"""Tokenizers in GGUF files: the real llama.cpp comes to the same tokens; what it would read otherwise is refused."""

import json

import gguf
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import transact as ta
from tests.conftest import ROOT, read_texts
from tests.transact.export.gguf.test_writer import field

TEXTS = (
    "",
    " ",
    "Once upon a time, there was a girl named Lily. She wasn't   sad!",
    "  it's “naïve”, 日本語 and 12345.67 ('s\n\n    5)\n",
    "def f(x):\r\n\treturn {x: [12, (3)]} | <x>\n\n\n",
    "I'LL    go\n\n  (a[3]) | 007 = 45  (  7",
    "Straße ÄÖ 😀 ١٢٣",
)
MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _modern(digits: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(MODERN % digits), behavior="isolated")
    return pre_tokenizers.Sequence([split, _BYTES])


CUTTERS = {
    # as published: GPT-2, SmolLM, Llama 3, OLMo 2, Qwen 2; and one that has no name in llama.cpp
    "gpt-2": (_WORDS, False),
    "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _WORDS]), False),
    "llama-bpe": (_modern("{1,3}"), True),
    "dbrx": (_modern("{1,3}"), False),
    "qwen2": (_modern(""), False),
    "pieces": (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r" ?[0-9]"), behavior="isolated"), _WORDS]),
        False,
    ),
}


def corpus() -> list[str]:
    samples = sorted((ROOT / "assets" / "samples").glob("*.jsonl"))
    return [text for path in samples for text in read_texts(path)[:100]] + list(TEXTS) * 5


def byte_level(cutter: pre_tokenizers.PreTokenizer, *, ignore_merges: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = cutter, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=900, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return tokenizer


def sentencepiece(metaspace: str | None = None) -> Tokenizer:
    """All bytes, the characters of the corpus and joins of two tokens, each with all its merges."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    characters = sorted({character for text in corpus() for character in text if ord(character) > 32} | {"▁"})
    joined = ["▁t", "he", "▁the", "▁a", "in", "▁w", "as", "▁was", "an", "▁an", "re", "▁▁", "▁▁▁", "ed", "▁th"]
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *bytes_, *characters, *joined])}
    merges = [
        (token[:cut], token[cut:])
        for token in joined
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace is None:
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(steps)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=metaspace, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def wrapped(tokenizer: Tokenizer, *, begins: bool = True) -> PreTrainedTokenizerFast:
    if begins:
        number = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def model_with(tokenizer: PreTrainedTokenizerFast, *, rows: int | None = None) -> ta.LoadedModel:
    config = AutoConfig.for_model(
        "llama", vocab_size=rows or len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return ta.LoadedModel.from_model(AutoModelForCausalLM.from_config(config), tokenizer)


def assert_same_tokens(model, tokenizer, texts=TEXTS) -> None:
    for text in texts:
        numbers = model.tokenize(text.encode(), add_bos=True, special=False)
        assert numbers == tokenizer.encode(text), text


@pytest.mark.parametrize("name", ["bundled", "stories"])
def test_tokenizers_of_real_models(name, request, llama, tmp_path):
    loaded = ta.load("bundled", dtype="float32") if name == "bundled" else request.getfixturevalue("stories")
    report = ta.save_gguf(loaded, tmp_path / "model.gguf")
    model = llama(report.path, vocab_only=True)
    samples = sorted((ROOT / "assets" / "samples").glob("*.jsonl"))
    assert_same_tokens(model, loaded.tokenizer, [*TEXTS, *(text for path in samples for text in read_texts(path)[:20])])
    assert (model.token_bos(), model.token_eos()) == (loaded.tokenizer.bos_token_id, loaded.tokenizer.eos_token_id)
    numbers = loaded.tokenizer.encode(TEXTS[3], add_special_tokens=False)
    assert model.detokenize(numbers).decode().strip() == loaded.tokenizer.decode(numbers).strip()
    assert report.notes == ()


@pytest.mark.parametrize("name", CUTTERS)
def test_byte_level_tokenizers(name, llama, tmp_path):
    cutter, ignore_merges = CUTTERS[name]
    tokenizer = wrapped(byte_level(cutter, ignore_merges=ignore_merges))
    report = ta.save_gguf(model_with(tokenizer), tmp_path / "model.gguf")
    assert field(report.path, "tokenizer.ggml.pre") == ("gpt-2" if name == "pieces" else name)
    assert_same_tokens(llama(report.path, vocab_only=True), tokenizer)


@pytest.mark.parametrize("metaspace", [None, "always", "first", "never"])
def test_sentencepiece_tokenizers(metaspace, llama, tmp_path):
    tokenizer = wrapped(sentencepiece(metaspace), begins=metaspace != "never")
    report = ta.save_gguf(model_with(tokenizer), tmp_path / "model.gguf")
    # Metaspace puts no space before one that is there; the note says that llama.cpp does
    noted = metaspace in ("always", "first")
    assert any("puts a space" in note for note in report.notes) == noted
    texts = [text for text in TEXTS if not (noted and text.startswith(" "))]
    assert_same_tokens(llama(report.path, vocab_only=True), tokenizer, texts)


def test_what_goes_along(llama, tmp_path):
    backend = byte_level(_WORDS)
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken("<tool>", special=False)])
    tokenizer = wrapped(backend, begins=False)
    tokenizer.eos_token = None
    tokenizer.chat_template = "{{ messages }}"
    report = ta.save_gguf(model_with(tokenizer, rows=len(tokenizer) + 3), tmp_path / "model.gguf")
    assert ["NFC" in note for note in report.notes] == [True, False, False]
    assert "chat template in it came with the model" in report.notes[2]
    assert "names no end token" in report.notes[1]
    tokens, types = (field(report.path, f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    size = len(tokenizer)
    assert tokens[size - 1 :] == ["<tool>", f"[PAD{size}]", f"[PAD{size + 1}]", f"[PAD{size + 2}]"]
    assert types[:3] == [gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, gguf.TokenType.NORMAL]
    assert types[size - 1 :] == [gguf.TokenType.USER_DEFINED, *[gguf.TokenType.UNUSED] * 3]
    assert field(report.path, "tokenizer.chat_template") == "{{ messages }}"
    assert field(report.path, "tokenizer.ggml.add_bos_token") is False
    assert_same_tokens(llama(report.path, vocab_only=True), tokenizer, [*TEXTS[:-1], "call <tool> now"])


def _changed(tokenizer: Tokenizer, change) -> Tokenizer:
    parts = json.loads(tokenizer.to_str())
    change(parts)
    return Tokenizer.from_str(json.dumps(parts))


def _unordered() -> Tokenizer:
    return _changed(sentencepiece(), lambda parts: parts["model"]["merges"].insert(0, parts["model"]["merges"].pop(3)))


def _without_a_merge() -> Tokenizer:
    return _changed(sentencepiece(), lambda parts: parts["model"]["merges"].remove(["h", "e"]))


def _with(tokenizer: Tokenizer, **parts) -> Tokenizer:
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="<s>")), "WordLevel, not BPE"),
        (lambda: byte_level(pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), _BYTES])), "nothing for its step"),
        (
            lambda: byte_level(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("[aeiou]"), "isolated"), _BYTES])),
            "no name for how it cuts text",
        ),
        (
            lambda: byte_level(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("x?[0-9]"), "isolated"), _WORDS])),
            "no name for how it cuts text",
        ),
        (lambda: byte_level(_modern("{2}")), "no name for how it cuts text"),
        (lambda: _with(byte_level(_WORDS), normalizer=normalizers.Lowercase()), "normalises text with Lowercase"),
        (_unordered, "do not follow from one score a token"),
        (_without_a_merge, "do not follow from one score a token"),
        (lambda: _with(sentencepiece(), normalizer=normalizers.NFKC()), "how it treats spaces"),
    ],
)
def test_what_llama_cpp_would_read_otherwise(make, message, tmp_path):
    loaded = model_with(wrapped(make()))
    with pytest.raises(ta.SaveRefused, match=f"{message}.*Save the checkpoint instead"):
        ta.save_gguf(loaded, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_more_around_a_text_than_its_ends(tmp_path):
    backend = byte_level(_WORDS)
    tokenizer = wrapped(backend)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> <s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    loaded = model_with(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>"))
    with pytest.raises(ta.SaveRefused, match="more around a text than its beginning and end"):
        ta.save_gguf(loaded, tmp_path / "model.gguf")
    with pytest.raises(ta.SaveRefused, match="tokens, but the model's embedding only 100 rows"):
        ta.save_gguf(model_with(tokenizer, rows=100), tmp_path / "model.gguf")
