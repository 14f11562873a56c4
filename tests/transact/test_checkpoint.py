"""What a saved checkpoint holds beside its weights, and what saving refuses. Exactness: test_exactness.py."""

import json

import pytest
import torch
from transformers import AutoTokenizer

import transact as ta
from tests.tiny_models import build
from transact import checkpoint


@pytest.fixture
def pruned(stories):
    target = ta.PruningTarget(keep_head_groups=2, keep_channels=86)
    plan = ta.make_plan(ta.ImportanceScores.random(stories.spec), stories.spec, target)
    return ta.prune(stories, plan)


def test_everything_travels_along(pruned, tmp_path):
    pruned.tokenizer.chat_template = "{{ messages }}"
    pruned.model.generation_config.max_length = 99
    (tmp_path / "out").mkdir()
    report = ta.save(pruned, tmp_path / "out")
    folder = tmp_path / "out"
    assert (folder / "plan.json").read_text() == pruned.plans[-1].to_json()
    assert json.loads((folder / "generation_config.json").read_text())["max_length"] == 99
    assert AutoTokenizer.from_pretrained(folder).chat_template == "{{ messages }}"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    card = (folder / "README.md").read_text()
    assert "| 260,032 | 146,752 |" in card
    assert report.notes == () and not report.padded
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "no partial folder is left"
    again = ta.load(str(folder))
    assert again.spec == pruned.spec
    assert ta.generate(again, "Once upon a time") == ta.generate(pruned, "Once upon a time")


def test_base_model_and_licence_stand_in_the_card(pruned, tmp_path):
    source = tmp_path / "base"
    ta.save(pruned, source)
    (source / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    base = ta.load(str(source))
    ta.save(base, tmp_path / "copy")
    assert "license: mit" in (tmp_path / "copy" / "README.md").read_text()
    from_hub = ta.LoadedModel(**{**vars(base), "source": "team/model"})
    ta.save(from_hub, tmp_path / "hub")
    assert "base_model: team/model" in (tmp_path / "hub" / "README.md").read_text()


def test_weights_can_be_written_in_another_dtype(tmp_path):
    dense = build("llama", torch.float32)
    ta.save(dense, tmp_path / "half", dtype="bfloat16")
    assert ta.load(str(tmp_path / "half")).stored_dtype == "bfloat16"
    assert dense.dtype == torch.float32


def test_a_folder_with_files_is_not_overwritten(pruned, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ta.SaveRefused, match="not an empty folder"):
        ta.save(pruned, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_leaves_nothing_half_written(pruned, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_card", full)
    with pytest.raises(ta.SaveRefused, match="No space left"):
        ta.save(pruned, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
