"""Model folders with a spoiled file: a model that computes, or one sentence."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import transact as ta
from tests.fuzz.strategies import fuzzing, one_sentence, spoiled_bytes, spoiled_json
from tests.tiny_models import build
from transact.errors import TransactError
from transact.models import sources

WORDS = ["<unk>", "<s>", "</s>", "a", "b", "c", "ab", "Ġ", "Ġa"]
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [
        {"id": index, "content": WORDS[index], "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for index in range(3)
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {word: index for index, word in enumerate(WORDS)},
        "merges": [["a", "b"], ["Ġ", "a"]],
    },
}  # fmt: skip
TOKENIZER_CONFIG = {
    "tokenizer_class": "TokenizersBackend", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
    "model_max_length": 64, "clean_up_tokenization_spaces": False, "added_tokens_decoder": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Llama with a tokenizer, as stock classes save it."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    build("llama", torch.float32).model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    assert ta.load(str(folder)).tokenizer("ab a", add_special_tokens=False)["input_ids"] == [6, 8]
    return folder


def load(folder: Path, name: str, content: bytes) -> None:
    """Load the folder with one file of other content, and compute with what comes out of it."""
    file = folder / name
    before = file.read_bytes() if file.exists() else None
    file.write_bytes(content)
    try:
        loaded = ta.load(str(folder))
        ta.CalibrationSet.from_texts(["ab a c"], loaded.tokenizer) if loaded.tokenizer else None
        assert loaded.spec.num_parameters > 0
    except TransactError as error:
        one_sentence(error)
    finally:
        file.unlink() if before is None else file.write_bytes(before)


@fuzzing("configurations")
@given(st.data())
def test_spoiled_configurations(folder, data):
    config = json.loads((folder / "config.json").read_text())
    load(folder, "config.json", data.draw(spoiled_json(config)).encode())


@fuzzing("weights", 0.25)
@given(st.data())
def test_spoiled_weights(folder, data):
    weights = (folder / "model.safetensors").read_bytes()
    load(folder, "model.safetensors", data.draw(spoiled_bytes(weights, within=6000)))


@fuzzing("weights", 0.75)
@given(st.data())
def test_spoiled_headers(folder, tmp_path_factory, data):
    """What is read of the files before anything else: the length, then the header as JSON."""
    weights = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(weights[:8], "little")
    header = data.draw(spoiled_json(json.loads(weights[8 : 8 + length]))).encode()
    said = data.draw(st.sampled_from([len(header), len(header), len(header), 0, 2**63, len(header) + 9, 5]))
    file = tmp_path_factory.getbasetemp() / "header.safetensors"
    file.write_bytes(said.to_bytes(8, "little") + header + weights[8 + length :])
    spec = ta.preflight(str(folder)).spec
    try:
        assert sources.check_weights((file,), spec) in ("float32", "float16", "bfloat16", "float64")
    except TransactError as error:
        one_sentence(error)


@fuzzing("indices")
@given(st.data())
def test_spoiled_indices(folder, tmp_path_factory, data):
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    place = tmp_path_factory.getbasetemp() / "sharded"
    place.mkdir(exist_ok=True)
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (place / name).touch()
    (place / "model.safetensors.index.json").write_text(data.draw(spoiled_json(index)))
    try:
        assert all(file.parent == place for file in sources.weight_files(place))
    except TransactError as error:
        one_sentence(error)


@fuzzing("tokenizers", 0.6)
@given(st.data())
def test_spoiled_tokenizers(folder, data):
    load(folder, "tokenizer.json", data.draw(spoiled_json(TOKENIZER)).encode())


@fuzzing("tokenizers", 0.4)
@given(st.data())
def test_spoiled_tokenizer_configurations(folder, data):
    load(folder, "tokenizer_config.json", data.draw(spoiled_json(TOKENIZER_CONFIG)).encode())
