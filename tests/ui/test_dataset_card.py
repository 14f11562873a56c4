"""Datasets whose card names files of another place: of this machine, or of the network that it can reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import dataset_hub
from ui.dataset_card import _leads_out
from ui.errors import WrongInput
from ui.hub_texts import streamed
from ui.texts import DatasetChoice

ROOT = Path(__file__).resolve().parents[2]


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


ASK = """
import json, sys
from ui.hub_texts import streamed
from ui.texts import DatasetChoice
for name in sys.argv[1:]:
    try:
        print(json.dumps(streamed(DatasetChoice(name), 2).texts))
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def test_a_dataset_of_the_hub_reads_nothing_of_this_machine(tmp_path, secret):
    """`datasets` alone gives the secret here: an absolute path in a card is opened as it stands."""
    served = {
        "evil/card": dataset(tmp_path / "card", str(secret)),
        "evil/settings": dataset(tmp_path / "settings", str(secret), ".huggingface.yaml"),
        "evil/network": dataset(tmp_path / "network", "http://127.0.0.1:1/x.jsonl"),
        "good/own": dataset(tmp_path / "good", "own.jsonl"),
    }
    with dataset_hub.serve(served) as address:
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        asked = subprocess.run(
            [sys.executable, "-c", ASK, *served], env=environment, cwd=ROOT, capture_output=True, text=True
        )
    assert asked.returncode == 0, asked.stderr
    *refused, read = map(json.loads, asked.stdout.splitlines())
    assert all("names a file outside of itself" in said for said in refused), refused
    assert read == ["own"]
