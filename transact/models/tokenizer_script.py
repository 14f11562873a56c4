"""Runs an untrusted tokenizer; run by path in a process of its own, under limits.

Tokenizers are read by native code that aborts the process where it runs out of memory, and a chat template is a
program. `check` loads as `transformers` does in the calling process, `encode` needs the `tokenizers` library alone, and
`write` renders conversations.
"""

import base64
import json
import sys
from array import array
from collections.abc import Callable

_DECODERS, _DECODED_GROWTH, _TOKEN_CHARACTERS = 8, 8, 4096
"""At most: steps of a decoder, characters that it makes of one, and characters of one token. Known tokenizers have up
to four, one, and a few hundred."""
_PROBES = ("a", "a" * 64, "a" * 2048, " " * 64, "A fox, 1984: x == [y];\n\tz", "naïve Ελλάδα 你好 مرحبا 🙂")


class Refused(Exception):
    """The request is refused; the text says why."""


def check(request: dict) -> dict:
    """Load the tokenizer of a folder and encode short texts with it."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # takes seconds to import and is not needed
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.for_model(request["model_type"])
    config.tokenizer_class = request["tokenizer_class"]
    tokenizer = AutoTokenizer.from_pretrained(request["directory"], config=config, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise Refused("it is of a kind that has no tokenizer.json")
    longest = max(map(len, tokenizer.get_vocab()), default=0)
    if longest > _TOKEN_CHARACTERS:
        raise Refused(f"one of its tokens has {longest:,} characters, and at most {_TOKEN_CHARACTERS:,} are taken")
    _check_decoder(tokenizer.backend_tokenizer.decoder)
    for text in _PROBES:
        for special in (False, True):
            ids = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
            if len(ids) > request["most_per_character"] * len(text) + request["most_beside"]:
                raise Refused(f"it makes {len(ids):,} tokens of {len(text):,} characters")
    tokenizer.decode(tokenizer("a b", add_special_tokens=False)["input_ids"])
    return {}


def _check_decoder(decoder) -> None:
    """Raise `Refused` unless the length of decoded text has a bound that follows from the decoder's steps.

    Texts are decoded in the calling process, so that examples do not suffice.
    """
    steps, growth = [] if decoder is None else [json.loads(decoder.__getstate__())], 1.0
    while any(step["type"] == "Sequence" for step in steps):
        steps = [each for step in steps for each in step.get("decoders", [step])]
    if len(steps) > _DECODERS:
        raise Refused(f"its decoder has {len(steps):,} steps, and at most {_DECODERS} are taken")
    for step in steps:
        if step["type"] == "Replace":
            pattern = step["pattern"].get("String")
            if not pattern:
                raise Refused("its decoder replaces by a pattern that is no plain text")
            growth *= max(1.0, len(step["content"].encode()) / len(pattern.encode()))
        elif step["type"] in ("BPEDecoder", "CTC"):  # an empty suffix or delimiter puts a space beside every character
            growth *= 2
    if growth > _DECODED_GROWTH:
        raise Refused(f"its decoder makes up to {growth:,.0f} characters of one")


def encode(request: dict) -> dict:
    """The tokens of each text, as int32 in base64 of all texts one after another, and how many each has."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(request["file"])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = request["split_special_tokens"]
    ids, lengths = array("i"), []
    for text in request["texts"]:
        row = tokenizer.encode(text, add_special_tokens=request["special"]).ids
        lengths.append(len(row))
        if len(ids) + len(row) > request["most"]:
            characters = sum(map(len, request["texts"]))
            raise Refused(f"it makes more than {request['most']:,} tokens of {characters:,} characters")
        ids.extend(row)
    return {"ids": base64.b64encode(ids.tobytes()).decode(), "lengths": lengths}


def write(request: dict) -> dict:
    """Conversations as the template writes them; or the number of the first that it cannot, and why."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    writer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=request["template"])
    texts, left = [], request["most"]
    for number, conversation in enumerate(request["conversations"], start=1):
        try:
            # names of special tokens, which this stand-in lacks: those of the real tokenizer
            text = writer.apply_chat_template(conversation, tokenize=False, **request["names"])
        except Exception as error:  # templates are programs, which raise many types
            return {"failed": number, "why": str(error) or type(error).__name__}
        left -= len(text)
        if left < 0:
            raise Refused(f"it writes more than {request['most']:,} characters")
        texts.append(text)
    return {"texts": texts}


def answer(request: dict, send: Callable[[dict], None]) -> dict:
    """Do what the request names."""
    try:
        return {"check": check, "encode": encode, "write": write}[request["act"]](request)
    except Refused as error:
        return {"refused": str(error)}
