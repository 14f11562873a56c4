"""The tokenizer beside a model's weights: read by `transformers` if its files name nothing but a tokenizer."""

import json
import os
import re
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from transact.errors import CheckpointBroken
from transact.models.isolated_tokenizer import PANIC, check_loading, enclose
from transact.progress import NO_PROGRESS, Progress

CONFIG_FILE = "tokenizer_config.json"
_CLASS = re.compile(r"(?!Auto)\w+(Tokenizer|TokenizerFast|Backend)")
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
_MESSAGE_START = b"\n"
"""First byte of a SentencePiece file, which lists its pieces first; files of other formats by that name are base64."""


def read_tokenizer(
    directory: Path, config: PreTrainedConfig, *, untrusted: bool = False, progress: Progress = NO_PROGRESS
) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model's folder, None where it has none; raises `CheckpointBroken` where it cannot be used.

    `config` names the tokenizer's class where its own files do not. `untrusted`: it reads no text in this process, see
    `transact.models.isolated_tokenizer`; `progress` may cancel that.
    """
    if not _is_there(directory):
        return None
    if untrusted:
        check_loading(directory, config, progress)
    tokenizer_class(directory, config)
    _check_sentencepiece(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, config=config, trust_remote_code=False)
        if untrusted:
            enclose(tokenizer)
        else:
            # some files are read only now: damage is noticed here and not in the middle of a run
            tokenizer.decode(tokenizer("a b", add_special_tokens=False)["input_ids"])
        return tokenizer
    except BaseException as error:  # every format raises its own types, Rust no `Exception`
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        reason = " ".join(str(error).split())
        raise CheckpointBroken(f"The tokenizer in {directory.name} could not be read: {reason}") from error


def check_tokenizer(directory: Path, config: PreTrainedConfig, progress: Progress = NO_PROGRESS) -> None:
    """Raise `CheckpointBroken` where an untrusted tokenizer cannot be loaded within limits."""
    if _is_there(directory):
        check_loading(directory, config, progress)


def _is_there(directory: Path) -> bool:
    return any(directory.glob("tokenizer*")) or (directory / "vocab.json").exists()


def _check_sentencepiece(directory: Path) -> None:
    """Raise `CheckpointBroken` where `tokenizer.model` is all there is and the packages that read it are not installed.

    `transformers` would fall back on another format and ask for its package.
    """
    file = directory / "tokenizer.model"
    if (directory / "tokenizer.json").exists() or not file.exists():
        return
    with file.open("rb") as stream:
        if stream.read(1) != _MESSAGE_START:
            return
    packages = {"sentencepiece": is_sentencepiece_available(), "protobuf": is_protobuf_available()}
    lacking = [name for name, installed in packages.items() if not installed]
    if lacking:
        raise CheckpointBroken(
            f"The tokenizer in {directory.name} is a SentencePiece file (tokenizer.model) without tokenizer.json, and "
            f"what reads it is not installed: {' and '.join(lacking)}. Run pip install {' '.join(lacking)}, or put the "
            "model's tokenizer.json beside it."
        )


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, named: str | None, folder: Path) -> None:
    """Write the tokenizer's files as `transformers` 4.57 reads them too.

    `named`: what the source's files call its class. Version 4 lacks the class of version 5 for a tokenizer that is all
    in tokenizer.json, and reads further special tokens under their older name alone; version 5 reads either. Raises
    `OSError` where a file cannot be written.
    """
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        number = _SYSTEM_ERROR.search(str(error))
        if isinstance(error, OSError) or number is None:
            raise
        # tokenizer.json is written in Rust, which raises a bare Exception where the disk is full
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    file = folder / CONFIG_FILE
    values = json.loads(file.read_text(encoding="utf-8"))
    name = named or values["tokenizer_class"]
    values["tokenizer_class"] = "PreTrainedTokenizerFast" if name == "TokenizersBackend" else name
    if isinstance(values.get("extra_special_tokens"), list):
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    file.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def tokenizer_class(directory: Path, config: PreTrainedConfig) -> str | None:
    """What the tokenizer's files, or else the configuration, call its class; None where neither does.

    Raises `CheckpointBroken` where that is no tokenizer: `transformers` would load any class, and a model class would
    open pickled weights; `AutoTokenizer` would start over without our refusal of code.
    """
    try:
        named = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        named = named.get("tokenizer_class") if isinstance(named, dict) else None
    except FileNotFoundError:
        named = None
    except (ValueError, OSError, RecursionError):
        raise CheckpointBroken(f"{CONFIG_FILE} in {directory.name} is not valid JSON. Download it again.") from None
    both = [name for name in (named, getattr(config, "tokenizer_class", None)) if name is not None]
    for name in both:
        if not (isinstance(name, str) and _CLASS.fullmatch(name)):
            raise CheckpointBroken(
                f"The files of {directory.name} name {str(name)[:100]!r} as their tokenizer's class, which is none. "
                f"Remove tokenizer_class from {CONFIG_FILE} and config.json, or download them again."
            )
    return next(iter(both), None)
