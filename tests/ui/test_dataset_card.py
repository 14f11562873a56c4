"""Datasets whose card names files of another place: of this machine, or of the network that it can reach."""

import json
from pathlib import Path

import pytest

from ui.dataset_card import _leads_out
from ui.errors import WrongInput
from ui.hub_texts import streamed
from ui.texts import DatasetChoice


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


@pytest.mark.parametrize("address", ["zip://a.txt::https://x.y/z.zip", "C:\\x", "~/x", "a/../../b", "\\\\host\\x", "s3://b"])
def test_every_form_of_elsewhere(address):
    assert _leads_out(address)


@pytest.mark.parametrize("address", ["data/train-*.parquet", "train.jsonl", "**/*.txt", "a..b.txt", "[0-9].csv"])
def test_a_datasets_own_files(address):
    assert not _leads_out(address)
