"""A tokenizer as llama.cpp reads it from a GGUF file; one that it would read differently is refused.

Two kinds are known. *Byte-level BPE* (`gpt2` there) applies merges to the pieces that a regular expression cuts, and
llama.cpp knows these expressions by name only. *SentencePiece-like BPE* (`llama` there) has tokens for single bytes and
no pieces; llama.cpp has no merges for it, but joins the neighbours whose token has the highest score.

Source: `src/llama-vocab.cpp` of the llama.cpp that llama-cpp-python 0.3.36 brings.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from transact.errors import SaveRefused
from transact.text.encoding import encode

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NAMES = {
    # (expressions that cut one after another, whether a whole piece that is a token is never taken apart)
    ((_WORDS,), False): "gpt-2",
    ((_DIGIT, _WORDS), False): "smollm",
    ((_MODERN.format(digits="{1,3}"),), True): "llama-bpe",
    ((_MODERN.format(digits="{1,3}"),), False): "dbrx",
    ((_MODERN.format(digits=""),), False): "qwen2",
}
"""llama.cpp's names of what it does before merges."""

_CHARACTER_CLASS = re.compile(r"(?: \?)?\[(?!\^)(?:[^\\\[\]\x80-\U0010ffff]|\\[^a-zA-Z])+\]")
"""One ASCII character of a list, perhaps with a space before it: an expression whose matches can be enumerated."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """The entries under `tokenizer.ggml` in the file; `notes` say where llama.cpp may differ in rare texts."""

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    add_space_prefix: bool = False
    notes: tuple[str, ...] = ()

    def write(self, writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase) -> None:
        """Tokens, special ids, what is put around a text, and the chat template."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.add_space_prefix)
        if self.merges:
            writer.add_token_merges(self.merges)
        for role in ("bos", "eos", "unk", "pad"):
            number = getattr(tokenizer, f"{role}_token_id")
            if number is not None:
                getattr(writer, f"add_{role}_token_id")(number)
        begins, ends = _around(tokenizer)
        writer.add_add_bos_token(begins)
        writer.add_add_eos_token(ends)
        template = tokenizer.chat_template
        if isinstance(template, dict):
            template = [{"name": name, "template": text} for name, text in template.items()]
        if template:
            writer.add_chat_template(template)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """The vocabulary, filled up to the `rows` of the embedding; raises `SaveRefused` with the reason."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal(f"{type(tokenizer).__name__} is not of the `tokenizers` library")
    parts = json.loads(backend.to_str())
    if parts["model"]["type"] != "BPE":
        raise _refusal(f"it is {parts['model']['type']}, not BPE")
    _around(tokenizer)
    made = (_sentencepiece if parts["model"]["byte_fallback"] else _byte_level)(parts, rows)
    if tokenizer.eos_token_id is not None:
        return made
    return replace(made, notes=(*made.notes, "The tokenizer names no end token; llama.cpp takes one by its own rules."))


def _refusal(reason: str) -> SaveRefused:
    return SaveRefused(
        f"The tokenizer cannot be written as GGUF so that llama.cpp comes to the same tokens: {reason}. Save the "
        "checkpoint instead."
    )


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Whether BOS is put before and EOS behind a text; anything else around it is refused."""
    plain, whole = (encode(["a"], tokenizer, special=special)[0].tolist() for special in (False, True))
    begins, ends = whole[:1] == [tokenizer.bos_token_id], whole[-1:] == [tokenizer.eos_token_id]
    if whole != [tokenizer.bos_token_id] * begins + plain + [tokenizer.eos_token_id] * ends:
        raise _refusal("it puts more around a text than its beginning and end tokens")
    return begins, ends


def _byte_level(parts: dict, rows: int) -> Vocabulary:
    """Byte-level BPE: the merges as they are, the expressions before them by llama.cpp's name."""
    model = parts["model"]
    kept = {"dropout": (None, 0.0), "continuing_subword_prefix": (None, ""), "end_of_word_suffix": (None, "")}
    for name, plain in kept.items():
        if model.get(name) not in plain:
            raise _refusal(f"its BPE has the setting {name}")
    normalizer = (parts["normalizer"] or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise _refusal(f"it normalises text with {normalizer}, which llama.cpp does not")
    notes = (
        ("llama.cpp does not bring text into Unicode's form NFC, as this tokenizer does first.",) if normalizer else ()
    )
    expressions = _expressions(parts["pre_tokenizer"])
    whole_pieces: set[str] = set()
    while expressions and _CHARACTER_CLASS.fullmatch(expressions[0]):
        whole_pieces |= _matches(expressions.pop(0), model["vocab"], whole_pieces)
    pre = _NAMES.get((tuple(expressions), model["ignore_merges"]))
    if pre is None:
        raise _refusal(f"llama.cpp has no name for how it cuts text, which is {json.dumps(parts['pre_tokenizer'])}")
    tokens, types = _tokens(parts, rows)
    for piece in whole_pieces:
        number = model["vocab"][_as_bytes(piece)]
        tokens[number], types[number] = piece, TokenType.USER_DEFINED
    merges = tuple(" ".join(pair) for pair in model["merges"])
    return Vocabulary("gpt2", pre, tuple(tokens), tuple(types), merges=merges, notes=notes)


def _expressions(pre_tokenizer: dict | None) -> list[str]:
    """The regular expressions that cut text, one after another, before bytes become characters."""
    steps: list[Any] = [pre_tokenizer]
    if pre_tokenizer and pre_tokenizer["type"] == "Sequence":
        steps = pre_tokenizer["pretokenizers"]
    found = []
    for step in steps:
        kind = step["type"] if step else None
        if kind == "Split" and (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True)):
            found.append(step["pattern"].get("Regex") or re.escape(step["pattern"]["String"]))
        elif kind == "Digits" and step["individual_digits"]:
            found.append(_DIGIT)
        elif kind == "ByteLevel" and not step["add_prefix_space"] and step is steps[-1]:
            found += [_WORDS] if step["use_regex"] else []
        else:
            raise _refusal(f"llama.cpp has nothing for its step {json.dumps(step)}")
    return found


def _matches(expression: str, vocabulary: dict[str, int], others: set[str]) -> set[str]:
    """All strings that the expression cuts out, each of which must be one token.

    llama.cpp cuts out tokens of the kind *user-defined* before everything else, the longest first, which comes to the
    same as the expression: so what it has no name for needs none.
    """
    found = {
        before + character
        for before in (" ", "")
        for character in map(chr, range(128))
        if re.fullmatch(expression, before + character)
    }
    unknown_pieces = sorted(piece for piece in found if _as_bytes(piece) not in vocabulary)
    if unknown_pieces or {character for piece in found for character in piece} & set("".join(others)):
        raise _refusal(f"it cuts text with {expression!r}, whose matches are not single tokens of their own")
    return found


def _as_bytes(text: str) -> str:
    return "".join(bytes_to_unicode()[byte] for byte in text.encode())


def _sentencepiece(parts: dict, rows: int) -> Vocabulary:
    """BPE with tokens for bytes: scores that put the joins in the order of the merges."""
    vocabulary, merges = parts["model"]["vocab"], [tuple(pair) for pair in parts["model"]["merges"]]
    tokens, types = _tokens(parts, rows)
    unknown = parts["model"]["unk_token"]
    for number, token in enumerate(tokens):
        if _BYTE.fullmatch(token):
            types[number] = TokenType.BYTE
        elif token == unknown:
            types[number] = TokenType.UNKNOWN
        elif types[number] == TokenType.USER_DEFINED:
            tokens[number] = token.replace(_SPACE, " ")
    if types.count(TokenType.BYTE) != 256:
        raise _refusal(f"it has tokens for {types.count(TokenType.BYTE)} of 256 bytes")
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    # the merges that make a token must be adjacent, or one score could not represent them
    runs = len(list(groupby(merges, key="".join)))
    normal = (token for token, number in vocabulary.items() if types[number] == TokenType.NORMAL)
    if runs != len(ranks) or not _all_joins(normal, vocabulary, set(merges)):
        raise _refusal("its merges do not follow from one score a token, as SentencePiece's do")
    scores = tuple(-float(ranks.get(token, 0)) for token in tokens)
    prefix, notes = _space_prefix(parts)
    return Vocabulary("llama", "default", tuple(tokens), tuple(types), scores, add_space_prefix=prefix, notes=notes)


def _all_joins(tokens: Iterable[str], vocabulary: dict[str, int], merges: set[tuple[str, str]]) -> bool:
    """Whether any two neighbours that make up a token are a merge, as llama.cpp joins them all."""

    def symbol(text: str) -> bool:
        return len(text) == 1 or text in vocabulary

    return all(
        (token[:cut], token[cut:]) in merges
        for token in tokens
        for cut in range(1, len(token))
        if symbol(token[:cut]) and symbol(token[cut:])
    )


def _space_prefix(parts: dict) -> tuple[bool, tuple[str, ...]]:
    """Whether a space is put before a text, and where llama.cpp does so otherwise."""
    normalizer, cutter = parts["normalizer"], parts["pre_tokenizer"]
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if cutter is None and steps in ([{"type": "Prepend", "prepend": _SPACE}, replace], [replace]):
        return len(steps) == 2, ()
    metaspace = cutter or {}
    if normalizer is None and metaspace.get("type") == "Metaspace" and not metaspace["split"]:
        if metaspace["prepend_scheme"] == "never":
            return False, ()
        note = (
            "llama.cpp puts a space before a text that begins with one, and behind every special token inside a text; "
            "this tokenizer does not always."
        )
        return True, (note,)
    raise _refusal(f"llama.cpp does not know how it treats spaces: {json.dumps([normalizer, cutter])}")


def _tokens(parts: dict, rows: int) -> tuple[list[str], list[int]]:
    """Token and kind for every row of the embedding; rows that no token has are filled."""
    named = {number: token for token, number in parts["model"]["vocab"].items()}
    named |= {added["id"]: added["content"] for added in parts["added_tokens"]}
    if max(named) >= rows:
        raise _refusal(f"it has {max(named) + 1:,} tokens, but the model's embedding only {rows:,} rows")
    tokens = [named.get(number, f"[PAD{number}]") for number in range(rows)]
    types = [int(TokenType.NORMAL if number in named else TokenType.UNUSED) for number in range(rows)]
    for added in parts["added_tokens"]:
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    return tokens, types
