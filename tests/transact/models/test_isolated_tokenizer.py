"""Tokenizers and chat templates of strangers: whatever they do is done in another process and told in a sentence."""

import copy
import json
import time
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import transact as ta
from tests.conftest import processes_alone
from tests.peaks import growth
from tests.tiny_models import build
from tests.tokenizers_by_hand import TEMPLATE, words_tokenizer
from transact.models import isolated_tokenizer
from transact.runtime.isolated_process import progress_for_processes
from transact.text.encoding import Beginning, encode

pytestmark = pytest.mark.slow

GROWTH = 200_000_000
"""What a process may grow by that asks another one; each of the tokenizers here would fill gigabytes."""
WORDS = {letter: index for index, letter in enumerate(["<unk>", "a", "b", "c", "é"])}


def multiplying(letter: str) -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Replace(letter, letter * 32)] * 5)


def letters(**parts) -> PreTrainedTokenizerFast:
    """A letter a token."""
    tokenizer = Tokenizer(models.BPE(WORDS, [], unk_token="<unk>"))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def loaded_with(tokenizer: PreTrainedTokenizerFast, folder: Path, **settings) -> ta.LoadedModel:
    """A model of that folder with this tokenizer, as a stranger might publish it."""
    build("llama").model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ta.load(str(folder), untrusted=True, **settings)


def refused(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    with growth() as grown, pytest.raises(ta.CheckpointBroken) as caught:
        loaded_with(tokenizer, folder)
    assert grown() < GROWTH
    assert str(folder) not in str(caught.value)
    assert str(caught.value).endswith("Choose another model.")
    return str(caught.value)


def test_one_that_multiplies_what_it_reads(tmp_path):
    assert "could not be read in a process with limits" in refused(letters(normalizer=multiplying("a")), tmp_path)


def test_one_that_multiplies_a_little(tmp_path):
    once = letters(normalizer=normalizers.Replace("a", "a" * 32))
    assert "it makes 65,536 tokens of 2,048 characters" in refused(once, tmp_path)


@pytest.mark.long
def test_one_that_multiplies_what_it_writes(tmp_path):
    steps = decoders.Sequence([decoders.Replace("a", "a" * 32)] * 5)
    assert "its decoder makes up to 33,554,432 characters of one" in refused(letters(decoder=steps), tmp_path)
    by_pattern = decoders.Replace(Regex("(a+)+$"), "a")
    assert "its decoder replaces by a pattern" in refused(letters(decoder=by_pattern), tmp_path / "pattern")


def test_one_with_a_token_as_long_as_a_book(tmp_path):
    tokenizer = letters()
    tokenizer.add_tokens(["b" * 1_000_000])
    assert "one of its tokens has 1,000,000 characters" in refused(tokenizer, tmp_path)


@pytest.mark.long
def test_one_that_waits_for_a_rare_character(tmp_path):
    loaded = loaded_with(letters(normalizer=multiplying("é")), tmp_path)
    assert [row.tolist() for row in encode(["abc"], loaded.tokenizer)] == [[1, 2, 3]]
    with growth() as grown, pytest.raises(ta.InvalidText, match="could not read the text in a process with limits"):
        ta.CalibrationSet.from_texts(["abc é"], loaded.tokenizer)
    with pytest.raises(ta.InvalidPrompt, match="could not read the text in a process with limits"):
        ta.generate(loaded, "é")
    assert grown() < GROWTH


def test_one_whose_pattern_does_not_end(tmp_path):
    loaded = loaded_with(letters(pre_tokenizer=pre_tokenizers.Split(Regex("^é(((a|a)+)+)+b$"), "isolated")), tmp_path)
    with pytest.raises(ta.InvalidText, match="could not read the text in a process with limits"):
        encode(["é" + "a" * 60 + "c"], loaded.tokenizer)


def test_a_pattern_that_makes_the_library_give_up_here_is_a_sentence_too():
    """One's own model reads its text in this process."""
    own = letters(pre_tokenizer=pre_tokenizers.Split(Regex("^(((a|a)+)+)+b$"), "isolated"))
    with pytest.raises(ta.InvalidText, match="The model's tokenizer gave up on the text"):
        encode(["a" * 60 + "c"], own)


def test_numbers_are_those_of_a_tokenizer_that_is_trusted():
    trusted = ta.load("bundled").tokenizer
    strange = copy.deepcopy(trusted)
    isolated_tokenizer.enclose(strange)
    texts = ["One day, a fox said: 2 + 2 = 4.", "", "naïve 你好 🙂\n\tx", "a" * 5000]
    assert encode(texts, strange) == encode(texts, trusted)
    assert Beginning.of(strange) == Beginning.of(trusted)
    made = [ta.CalibrationSet.from_texts(texts, each, seq_len=32, windows=True) for each in (strange, trusted)]
    assert made[0].fingerprint == made[1].fingerprint
    assert (made[0].protocol, made[0].amount) == (made[1].protocol, made[1].amount)
    assert encode(texts[:1], copy.deepcopy(strange)) == encode(texts[:1], trusted)


def chatting(template: str, *, strange: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = words_tokenizer("<s> $A </s>")
    tokenizer.chat_template = template
    if strange:
        isolated_tokenizer.enclose(tokenizer)
    return tokenizer


CHATS = [
    [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}],
    [{"role": "user", "content": "d"}],
]


def test_conversations_are_written_as_by_a_template_that_is_trusted():
    made = [ta.CalibrationSet.from_chats(CHATS, chatting(TEMPLATE, strange=strange)) for strange in (True, False)]
    assert made[0].fingerprint == made[1].fingerprint
    wrong = [CHATS[0], CHATS[0][1:]]
    said = []
    for strange in (True, False):
        with pytest.raises(ta.InvalidText) as caught:
            ta.CalibrationSet.from_chats(wrong, chatting(TEMPLATE, strange=strange))
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "Conversation 2 cannot be written by this model's chat template (Conversation roles must" in said[0]


LOOP = "{% for a in range(90000) %}{% for b in range(90000) %}{% set c = a %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ 'x' * 10000000000 }}", "MemoryError|want of memory"),
        ("{{ 'x' * 20000000 }}", "it writes more than"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "cannot be written .*recursion"),
    ],
)
def test_a_template_that_fills_memory(template, sentence):
    with growth() as grown, pytest.raises(ta.InvalidText, match=sentence):
        ta.CalibrationSet.from_chats(CHATS, chatting(template))
    assert grown() < GROWTH


def test_a_template_that_loops_ends_by_itself(monkeypatch):
    monkeypatch.setitem(isolated_tokenizer._SECONDS, "write", 4.0)
    with pytest.raises(ta.InvalidText, match="chat template could not .* gave no answer within 4 seconds"):
        ta.CalibrationSet.from_chats(CHATS, chatting(LOOP))


def test_a_template_that_loops_is_stopped():
    until = time.monotonic() + 1.0

    def stop(done: int, total: int, unit: str) -> None:
        if time.monotonic() > until:
            raise ta.Cancelled

    with progress_for_processes(stop), pytest.raises(ta.Cancelled):
        ta.CalibrationSet.from_chats(CHATS, chatting(LOOP))
    assert not processes_alone()


def test_a_tokenizer_is_tried_once(tmp_path, monkeypatch):
    first = loaded_with(letters(), tmp_path)
    monkeypatch.setattr(
        isolated_tokenizer.isolated_process, "run", lambda *args, **settings: pytest.fail("it was tried again")
    )
    again = ta.load(str(tmp_path), untrusted=True)
    assert first.tokenizer.get_vocab() == again.tokenizer.get_vocab()
    streamed = ta.load_streamed(str(tmp_path), untrusted=True)
    assert isolated_tokenizer.enclosed(streamed.tokenizer) is not None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(pytest.fail.Exception, match="tried again"):
        ta.load(str(tmp_path), untrusted=True)


def test_files_too_large_for_a_tokenizer_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated_tokenizer, "_FILE_BYTES", 1000)
    with pytest.raises(ta.CheckpointBroken, match="at most 0 MB are read here"):
        loaded_with(letters(), tmp_path)


@pytest.mark.long
def test_what_is_cut_is_saved_proved_and_written_with_such_a_tokenizer(tmp_path):
    loaded = loaded_with(words_tokenizer("<s> $A </s>"), tmp_path / "dense")
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    pruned = ta.prune(loaded, ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target))
    assert ta.save(pruned, tmp_path / "pruned", prove=True).proof.passed
    assert isinstance(ta.generate(pruned, "a b"), str)
