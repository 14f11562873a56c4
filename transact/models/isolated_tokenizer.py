"""Untrusted tokenizers: their native code and their chat template run in processes of their own, under limits.

A single rare character can make a tokenizer multiply its input or loop, so no trial shows that it is safe: every text
is tokenised in such a process, which answers with token ids. In this process the tokenizer is loaded, after the other
one has loaded it, and turns tokens back into text, whose length its decoder bounds.
"""

import base64
import hashlib
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from transact.errors import CheckpointBroken, InvalidText
from transact.models import tokenizer_script
from transact.progress import Progress
from transact.runtime import isolated_process
from transact.runtime.isolated_process import IsolatedProcessFailed, Limits, inherited_progress

PANIC = "PanicException"
"""What the `tokenizers` library raises when it panics; no `Exception`, and not importable by name."""
_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template.*")
_FILE_BYTES = 100_000_000
"""Limit of all files of a tokenizer; the largest known ones have 40 MB."""
_MEMORY_BYTES, _PER_FILE_BYTE, _MOST_MEMORY_BYTES = 300_000_000, 30, 2_000_000_000
"""For Python and for reading the tokenizer, about twice what was measured (90 MB and 17 bytes a byte)."""
_PER_CHARACTER_HELD, _PER_CHARACTER_READ = 16, 150
"""Bytes for all text, and for the encoding of the longest: offsets of tokens, and so on."""
_SECONDS = {"check": 12.0, "encode": 6.0, "write": 8.0}
"""Processor time for an empty text: to start, to import and to read the largest known tokenizers takes up to half of
it. The process may wait longer than that for a processor, as it has a low priority."""
_CHARACTERS_PER_SECOND, _WAITING = 300_000, 5
_TOKENS_PER_CHARACTER, _TOKENS_BESIDE = 8, 2_000
"""A character has at most four bytes; some expand to a phrase, and a sequence may begin with some tokens."""
_WRITTEN_PER_CHARACTER, _WRITTEN_BESIDE = 8, 20_000
"""Characters that a chat template may make of one, and those that it may add to each conversation."""
_CACHED_CHARACTERS = 16
"""Results are cached for texts this short: how a sequence begins is asked often, with a text of one letter."""
_MARK = "_transact_enclosed"

_checked: set[str] = set()
"""Digests of tokenizers that loaded well."""


class Enclosed:
    """Reads text for a tokenizer, in processes of their own. Each call raises `InvalidText` where that fails."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._folder = tempfile.TemporaryDirectory(prefix="transact-tokenizer-")
        self._file = Path(self._folder.name) / "tokenizer.json"
        tokenizer.backend_tokenizer.save(str(self._file), pretty=False)
        self._tokenizer_settings = {"split_special_tokens": bool(tokenizer.split_special_tokens)}
        self._cache: dict[tuple, list[array]] = {}

    def __deepcopy__(self, memo: dict) -> "Enclosed":
        return self

    def ids(self, texts: Sequence[str], *, special: bool) -> list[array]:
        """The tokens of each text; `special`: with those that the tokenizer adds in front and behind."""
        key = (special, *texts)
        if key in self._cache:
            return self._cache[key]
        characters = sum(map(len, texts))
        most = _TOKENS_PER_CHARACTER * characters + _TOKENS_BESIDE * len(texts)
        request = {
            "act": "encode", "file": str(self._file), "texts": list(texts), "special": special, "most": most,
            **self._tokenizer_settings,
        }  # fmt: skip
        longest = max(map(len, texts), default=0)
        answer = _text_answer(request, characters, 6 * most + 20 * len(texts), longest, self._file.stat().st_size)
        flat, rows, start = array("i", base64.b64decode(answer["ids"])), [], 0
        for length in answer["lengths"]:
            rows.append(flat[start : start + length])
            start += length
        if characters <= _CACHED_CHARACTERS and len(self._cache) < _CACHED_CHARACTERS:
            self._cache[key] = rows
        return rows

    def written(
        self, conversations: Sequence[Sequence[dict]], template: str, names: dict
    ) -> list[str] | tuple[int, str]:
        """Conversations as `template` writes them; or the number of the first that it cannot write, and why.

        `names`: of special tokens, as the tokenizer's template may use them.
        """
        characters = sum(len(str(value)) for one in conversations for message in one for value in message.values())
        most = _WRITTEN_PER_CHARACTER * characters + _WRITTEN_BESIDE * len(conversations)
        request = {
            "act": "write", "template": template, "conversations": list(conversations), "names": names, "most": most
        }  # fmt: skip
        answer = _text_answer(request, characters, 12 * most)
        return (answer["failed"], answer["why"]) if "failed" in answer else answer["texts"]


def enclosed(tokenizer: PreTrainedTokenizerBase) -> Enclosed | None:
    """The reader of text for this tokenizer; None for a trusted one, which reads text itself."""
    return getattr(tokenizer, _MARK, None)


def enclose(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the tokenizer read no text in this process from now on."""
    setattr(tokenizer, _MARK, Enclosed(tokenizer))


def check_loading(directory: Path, config: PreTrainedConfig, progress: Progress) -> None:
    """Raise `CheckpointBroken` unless the tokenizer in `directory` loads, and reads short texts, within limits.

    The same files are checked once only.
    """
    files = sorted({file for pattern in _FILES for file in directory.glob(pattern) if file.is_file()})
    size = sum(file.stat().st_size for file in files)
    if size > _FILE_BYTES:
        raise CheckpointBroken(
            f"The tokenizer in {directory.name} has {size / 1e6:,.0f} MB, and at most {_FILE_BYTES / 1e6:.0f} MB are "
            "read here. Choose another model."
        )
    digest = hashlib.sha256(f"{config.model_type} {getattr(config, 'tokenizer_class', None)}".encode())
    for file in files:
        digest.update(f"{file.name}:{file.stat().st_size};".encode())
        digest.update(file.read_bytes())
    if digest.hexdigest() in _checked:
        return
    request = {
        "act": "check", "directory": str(directory), "model_type": config.model_type,
        "tokenizer_class": getattr(config, "tokenizer_class", None), "most_per_character": _TOKENS_PER_CHARACTER,
        "most_beside": _TOKENS_BESIDE,
    }  # fmt: skip
    try:
        reason = _answer(request, 10_000, progress, file_bytes=size).get("refused")
    except IsolatedProcessFailed as error:
        reason = str(error).replace(str(directory), directory.name)
    if reason:
        raise CheckpointBroken(
            f"The tokenizer in {directory.name} could not be read in a process with limits ({reason}). Choose another "
            "model."
        )
    _checked.add(digest.hexdigest())


def _text_answer(request: dict, characters: int, output_characters: int, longest: int = 0, file_bytes: int = 0) -> dict:
    """The worker's answer to texts of `characters` characters, the longest of `longest`; raises `InvalidText`."""
    memory = _PER_CHARACTER_HELD * characters + _PER_CHARACTER_READ * longest
    seconds = characters / _CHARACTERS_PER_SECOND
    try:
        answer = _answer(
            request,
            output_characters + 10_000,
            inherited_progress,
            seconds=seconds,
            memory_bytes=memory,
            file_bytes=file_bytes,
        )
        reason = answer.get("refused")
    except IsolatedProcessFailed as error:
        reason = str(error)
    if reason:
        what = "chat template" if request["act"] == "write" else "tokenizer"
        raise InvalidText(
            f"The model's {what} could not read the text in a process with limits ({reason}). Give less text, or "
            "choose another model."
        )
    return answer


def _answer(
    request: dict,
    output_characters: int,
    progress: Progress,
    *,
    file_bytes: int,
    seconds: float = 0.0,
    memory_bytes: int = 0,
) -> dict:
    """The worker's answer, with `seconds` and `memory_bytes` beyond what a tokenizer of that size takes by itself;
    raises `IsolatedProcessFailed`."""
    own = min(_MEMORY_BYTES + _PER_FILE_BYTE * file_bytes, _MOST_MEMORY_BYTES)
    at_work = _SECONDS[request["act"]] + seconds
    return isolated_process.run(
        Path(tokenizer_script.__file__), request, progress, seconds=_WAITING * at_work,
        environment={"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        limits=Limits(own + memory_bytes, output_characters, at_work),
    )  # fmt: skip
