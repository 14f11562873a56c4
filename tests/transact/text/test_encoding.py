"""How a sequence begins: what the tokenizer itself puts in front decides, whatever it names."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

import transact as ta
from tests.tiny_models import build
from tests.tokenizers_by_hand import NAMES, TEMPLATE, WORDS, words_tokenizer
from transact.text.encoding import Beginning, chat_texts, encode
from transact.text.generation import encode_prompt, sample_rows

UNK, BOS, EOS, MASK, A, B, C, D = range(len(WORDS))
ADDS = "BOS in each sequence"
NONE = "no BOS (the tokenizer adds none)"


@pytest.mark.parametrize(
    ("template", "row", "told"),
    [
        (None, (A, B), NONE),  # SmolLM2 and Qwen: a BOS has a name, and no text ever sees it
        ("<s> $A", (BOS, A, B), ADDS),
        ("<s> $A </s>", (BOS, A, B), ADDS),
        ("$A </s>", (A, B), NONE),  # T5: what stands behind is left out
        ("[gMASK] <s> $A", (MASK, BOS, A, B), "[gMASK] <s> in each sequence"),
    ],
)
def test_what_the_tokenizer_puts_in_front_decides(template, row, told):
    tokenizer = words_tokenizer(template)
    calibration = ta.CalibrationSet.from_texts(["a b"], tokenizer)
    assert list(calibration.rows()) == [row]
    assert calibration.protocol == f"each text one sequence, {told}, cut at 512"


@pytest.mark.parametrize(
    ("template", "bos", "front", "told"),
    [
        (None, True, (BOS,), "BOS in each window"),
        (None, False, (), "no BOS (the tokenizer adds none)"),
        ("<s> $A </s>", True, (BOS,), "BOS in each window"),
        ("<s> $A </s>", False, (), "no BOS (left out)"),
        ("[gMASK] $A", True, (BOS, MASK), "<s> [gMASK] in each window"),
    ],
)
def test_bos_overrides_the_tokenizer(template, bos, front, told):
    tokenizer = words_tokenizer(template)
    text = "a b c d a b c d a b c d"
    plain = [WORDS.index(word) for word in text.split()]
    for kind in (ta.CalibrationSet, ta.EvaluationSet):
        document = kind.from_document(text, tokenizer, seq_len=6, bos=bos)
        size = 6 - len(front)
        assert list(document.rows()) == [
            (*front, *plain[start : start + size]) for start in range(0, len(plain) - size + 1, size)
        ]
        assert document.protocol.endswith(told)
        assert next(kind.from_texts([text], tokenizer, bos=bos).rows()) == (*front, *plain)


def test_a_bos_in_the_text_is_never_doubled():
    for template in ("<s> $A", "[gMASK] <s> $A", None):
        tokenizer = words_tokenizer(template)
        front = Beginning.of(tokenizer).ids
        spelled = " ".join(WORDS[token] for token in front or (BOS,))
        (row,) = ta.CalibrationSet.from_texts([f"{spelled} a"], tokenizer).rows()
        assert row == (*(front or (BOS,)), A)
    document = ta.EvaluationSet.from_document("<s> a b c d", words_tokenizer("<s> $A"), seq_len=3)
    assert list(document.rows()) == [(BOS, A, B), (BOS, C, D)]
    assert next(ta.CalibrationSet.from_texts(["<s> a"], words_tokenizer(), bos=True).rows()) == (BOS, A)


def test_a_bos_that_does_not_exist_is_refused():
    with pytest.raises(ta.InvalidOption, match="no BOS token"):
        ta.CalibrationSet.from_texts(["a"], words_tokenizer(eos_token="</s>", unk_token="<unk>"), bos=True)
    with pytest.raises(ta.InvalidOption, match="True, False"):
        ta.CalibrationSet.from_texts(["a"], words_tokenizer(), bos="yes")


def test_a_window_without_room_is_refused():
    with pytest.raises(ta.InvalidText, match="no room behind BOS"):
        ta.CalibrationSet.from_document("a b", words_tokenizer("<s> $A"), seq_len=1)
    with pytest.raises(ta.InvalidText, match="no room behind BOS"):
        list(ta.StreamedText(["a b"], words_tokenizer("<s> $A"), 1, "text").windows())


def test_the_bundled_and_the_reference_tokenizer_add_bos(stories):
    for loaded in (ta.load("bundled"), stories):
        tokenizer = loaded.tokenizer
        assert Beginning.of(tokenizer).ids == (tokenizer.bos_token_id,)
        assert encode_prompt(loaded, "Once") == tokenizer("Once")["input_ids"]


def test_prompts_and_own_text_begin_as_the_tokenizer_does():
    plain = build("llama")
    adding, naming = (replace(plain, tokenizer=words_tokenizer(template)) for template in ("<s> $A", None))
    assert encode_prompt(adding, "a b") == [BOS, A, B]
    assert encode_prompt(naming, "a b") == [A, B]
    assert encode_prompt(naming, "<s> a") == [BOS, A]
    drawn = {"num_samples": 4, "seq_len": 9, "seed": 1}
    assert all(row[0] == BOS for row in sample_rows(adding, **drawn))
    # the token that drawing starts from is not part of a text that the tokenizer begins with nothing
    longest = {"num_samples": 20, "seq_len": 9, "seed": 1}
    with_front, without = sample_rows(adding, **longest), sample_rows(naming, **longest)
    shared = [(one[1:], other) for one, other in zip(with_front, without, strict=True)]
    assert all(other[: len(one)] == one or one[: len(other)] == other for one, other in shared)
    assert max(map(len, without)) == max(map(len, with_front)) == 9
    own = [ta.CalibrationSet.from_model(loaded, **drawn).protocol for loaded in (adding, naming)]
    assert own[0].endswith(ADDS) and own[1].endswith(NONE)
    assert all(row[0] == 1 for row in sample_rows(plain, **drawn))


@pytest.mark.parametrize(("template", "front"), [(None, ()), ("<s> $A", (1,)), ("<s> $A </s>", (1,))])
def test_letters_that_a_vocabulary_lacks(template, front):
    """A vocabulary of one letter and no unknown token: everything else vanishes."""
    backend = Tokenizer(models.BPE({"b": 0, "<s>": 1, "</s>": 2}, []))
    if template is not None:
        special = [("<s>", 1), ("</s>", 2)]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert Beginning.of(tokenizer).ids == front
    assert list(ta.CalibrationSet.from_texts(["b"], tokenizer).rows()) == [(*front, 0)]
    loaded = replace(build("llama"), tokenizer=tokenizer)
    if front:
        assert encode_prompt(loaded, "zzz") == [1]
    else:
        with pytest.raises(ta.InvalidPrompt, match="no token of this prompt"):
            encode_prompt(loaded, "zzz")


def test_streamed_windows_begin_as_the_tokenizer_begins():
    texts = ["a b c d", "a b c d a b", "c"]

    def windows(template, bos=None):
        return list(ta.StreamedText(texts, words_tokenizer(template), 4, "texts", bos).windows())

    assert windows("<s> $A </s>") == [[BOS, A, B, C], [BOS, D, BOS, A], [BOS, B, C, D], [BOS, A, B, BOS]]
    assert windows(None) == [[A, B, C, D], [A, B, C, D]]
    assert windows(None, True) == windows("<s> $A")
    assert windows("<s> $A", False) == windows(None)


def chat(*contents: str) -> list[dict]:
    """What the user and the model say in turn."""
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(contents)]


@pytest.fixture
def chatting():
    tokenizer = words_tokenizer("<s> $A")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_conversations_are_written_by_the_template(chatting):
    messages = [chat("a", "b"), chat("b b", "a", "a")]
    rows = [(BOS, C, A, EOS, D, B, EOS), (BOS, C, B, B, EOS, D, A, EOS, C, A, EOS)]
    for kind in (ta.CalibrationSet, ta.EvaluationSet):
        made = kind.from_chats(messages, chatting)
        assert list(made.rows()) == rows
        assert made.protocol.startswith("each conversation one sequence, by the model's chat template, cut at 512")
        assert list(kind.from_chats(messages, chatting, seq_len=4).rows()) == [row[:4] for row in rows]
    expected = [tuple(chatting.apply_chat_template(one, return_dict=False)) for one in messages]
    assert rows == expected
    assert ta.CalibrationSet.from_chats(messages * 9, chatting, num_samples=5, seed=1).num_samples == 5


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([chat("a"), [{"role": "system", "content": "a"}]], "Conversation 2 .*roles must alternate"),
        ([[{"role": "user"}]], "Conversation 1 has a message without role or content as text .it has 'role'."),
        ([[{"from": "human", "value": "a"}]], "it has 'from', 'value'"),
        ([[{"role": "user", "content": None}]], "without role or content"),
        ([["a"]], "it has str"),
        ([[]], "Conversation 1 is no list"),
        (["a"], "Conversation 1 is no list"),
        (chat("a"), "Conversation 1 is no list"),
        ([], "list of conversations"),
        ("a", "list of conversations"),
    ],
)
def test_what_is_no_conversation_gets_one_sentence(chatting, messages, sentence):
    with pytest.raises(ta.InvalidText, match=sentence):
        ta.CalibrationSet.from_chats(messages, chatting)


def test_broken_and_missing_templates_are_refused(chatting):
    for tokenizer in (words_tokenizer(**NAMES), None):
        with pytest.raises(ta.InvalidText, match="no chat template"):
            ta.EvaluationSet.from_chats([chat("a")], tokenizer)
    for template in ("{% for", "{{ messages.nothing.at.all }}", "{{ 1 / 0 }}", "{{ messages[9]['content'] + 1 }}"):
        chatting.chat_template = template
        with pytest.raises(ta.InvalidText, match="cannot be written by this model's chat template"):
            chat_texts([chat("a")], chatting)


def test_long_texts_are_not_given_to_a_tokenizer_all_at_once():
    """It notes a hundred bytes and more of every token until it has read all that it is given."""
    given = []

    def tokenizer(texts, **settings):
        given.append(texts)
        return {"input_ids": [[len(text)] for text in texts]}

    texts = ["a" * 300_000, "b" * 100_000, "c" * 150_000, "d" * 2_000_000, "e"]
    assert [row.tolist() for row in encode(texts, tokenizer)] == [[len(text)] for text in texts]
    assert given == [texts[:2], texts[2:3], texts[3:4], texts[4:]]
