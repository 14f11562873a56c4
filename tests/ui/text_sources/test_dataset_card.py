"""Datasets whose card names files of another place: of this machine, or of the network that it can reach."""

import json
from pathlib import Path

import pytest

from transact.models import front_matter
from ui.errors import WrongInput
from ui.text_sources.dataset_card import _leads_out, _strings
from ui.text_sources.hub_dataset import streamed
from ui.text_sources.text_source import DatasetChoice


def dataset(folder: Path, address: str, card: str = "README.md") -> Path:
    folder.mkdir()
    files = [{"split": "train", "path": address}]
    settings = json.dumps({"configs": [{"config_name": "default", "data_files": files}]})
    (folder / card).write_text(f"---\n{settings}\n---\n" if card == "README.md" else settings)
    (folder / "own.jsonl").write_text('{"text": "own"}\n')
    return folder


@pytest.fixture
def secret(tmp_path) -> Path:
    (tmp_path / "secret.txt").write_text("the secret of this machine\n")
    return tmp_path / "secret.txt"


def test_files_elsewhere_are_not_read(tmp_path, secret):
    for number, address in enumerate((str(secret), "../secret.txt", f"file://{secret}", "http://127.0.0.1:1/x.jsonl")):
        folder = dataset(tmp_path / f"d{number}", address)
        with pytest.raises(WrongInput, match="names a file outside of itself"):
            streamed(DatasetChoice(str(folder)), 3)
    assert streamed(DatasetChoice(str(dataset(tmp_path / "good", "own.jsonl"))), 3).texts == ("own",)


@pytest.mark.parametrize(
    "address", ["zip://a.txt::https://x.y/z.zip", "C:\\x", "~/x", "a/../../b", "\\\\host\\x", "s3://b"]
)
def test_every_form_of_elsewhere(address):
    assert _leads_out(address)


@pytest.mark.parametrize("address", ["data/train-*.parquet", "train.jsonl", "**/*.txt", "a..b.txt", "[0-9].csv"])
def test_a_datasets_own_files(address):
    assert not _leads_out(address)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
"""A thousand billion texts in eleven lines."""


@pytest.mark.parametrize("merged", ["configs: [*a11]", "configs: {<<: [{b: *a11}]}"])
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_a_card_that_repeats_itself_without_end(tmp_path, card, merged):
    folder = dataset(tmp_path / "bomb", "own.jsonl")
    text = f"{BOMB}{merged}\n"
    (folder / card).write_text(f"---\n{text}---\n" if card == "README.md" else text)
    with pytest.raises(WrongInput, match="cannot be read .it repeats parts of itself more than 20 times"):
        streamed(DatasetChoice(str(folder)), 3)


def test_what_is_repeated_is_looked_at_once():
    """Also a part that holds itself."""
    value = [{"path": "a"}]
    for _ in range(100):
        value = [value, value, {"config_name": "not a file"}]
    value.append(value)
    assert list(_strings(value, set())) == ["a"]


def test_a_card_larger_than_cards_are(tmp_path, monkeypatch):
    monkeypatch.setattr(front_matter, "_MAX_BYTES", 10)
    with pytest.raises(WrongInput, match="README.md has 0 MB, and at most 0 MB are read"):
        streamed(DatasetChoice(str(dataset(tmp_path / "large", "own.jsonl"))), 3)
