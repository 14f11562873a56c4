"""What a saved checkpoint holds beside its weights, and what saving refuses. Exactness: test_exactness.py."""

import copy
import errno
import json
import resource
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import transact as ta
from tests.faults.kernel import no_file_beyond
from tests.tiny_models import build, token_ids
from transact.export import checkpoint
from transact.models.tokenizer_files import write_tokenizer


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
    assert (folder / "plan.json").read_text() == pruned.cuts[-1].plan.to_json()
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


def test_the_card_says_which_layers_went(stories, tmp_path):
    target = ta.PruningTarget(keep_head_groups=2, keep_channels=86)
    plan = ta.make_plan(ta.ImportanceScores.random(stories.spec), stories.spec, target)
    first = ta.prune(stories, replace(plan, kept_layers=(0, 2, 4)))
    plan = ta.make_plan(ta.ImportanceScores.random(first.spec), first.spec, target)
    second = ta.prune(first, replace(plan, kept_layers=(0, 2)))
    for number, (loaded, sentence) in enumerate(
        ((first, "Of its 5 decoder layers, counted from 0, these were removed whole: 1, 3."), (second, ": 1, 2, 3."))
    ):
        ta.save(loaded, tmp_path / str(number))
        assert sentence in (tmp_path / str(number) / "README.md").read_text()
        assert json.loads((tmp_path / str(number) / "config.json").read_text())["num_hidden_layers"] == 3 - number
        kept = ta.PruningPlan.from_json((tmp_path / str(number) / "plan.json").read_text()).kept_layers
        assert kept == ((0, 2, 4), (0, 4))[number]


@pytest.mark.parametrize(
    ("name", "kept", "lists"),
    [
        ("gemma2", (0, 1), ["layer_types"]),
        ("gemma2", (0, 2), []),
        ("gemma2", (0, 1, 2), []),
        ("smollm3", (1, 2), ["no_rope_layers"]),
        ("llama", (0, 1), []),
    ],
)
def test_patterns_that_others_may_derive_are_told(name, kept, lists, tmp_path):
    dense = build(name)
    pruned = ta.prune(dense, replace(_plan(dense, ta.PruningTarget(2, 24)), kept_layers=kept))
    notes = [note for note in ta.save(pruned, tmp_path / "out").notes if "differ in kind" in note]
    assert [each for note in notes for each in ("layer_types", "no_rope_layers") if each in note] == lists


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
    (tmp_path / "there").mkdir()
    for folder in ("new", "there"):
        with pytest.raises(ta.SaveRefused, match="No space left"):
            ta.save(pruned, tmp_path / folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_disk_that_fills_while_the_tokenizer_is_written(pruned, tmp_path):
    """It is written last, by a library that says so in a bare Exception."""
    with no_file_beyond(4_000), pytest.raises(OSError, match="File too large") as full:
        write_tokenizer(pruned.tokenizer, None, tmp_path)
    assert full.value.errno == errno.EFBIG


def test_the_card_says_of_a_chat_template_that_it_is_somebodys_program(pruned, tmp_path):
    for source, name, said in (("team/chatty", "foreign", True), ("bundled", "own", False)):
        tokenizer = copy.deepcopy(pruned.tokenizer)
        tokenizer.chat_template = "{{ messages }}"
        ta.save(replace(pruned, source=source, tokenizer=tokenizer), tmp_path / name)
        card = (tmp_path / name / "README.md").read_text()
        assert ("program in Jinja that came with `team/chatty`" in card) is said
    tokenizer.chat_template = None
    ta.save(replace(pruned, source="team/plain", tokenizer=tokenizer), tmp_path / "none")
    assert "Jinja" not in (tmp_path / "none" / "README.md").read_text()


def test_a_disk_that_fills_while_weights_are_written(pruned, tmp_path):
    """The limit on file size is the kernel's own; safetensors reports it in its own exception."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ta.SaveRefused, match="Free some space"):
            ta.save(pruned, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_destinations(pruned, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    ta.save(pruned, tmp_path / "link")
    assert (tmp_path / "empty" / "config.json").exists()
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ta.save(pruned, ".")
    assert (tmp_path / "here" / "plan.json").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    ta.save(pruned, "~/home")
    assert (tmp_path / "home" / "plan.json").exists()
    with pytest.raises(ta.SaveRefused, match="cannot be a folder"):
        ta.save(pruned, "a\0b")


def test_published_generation_configs_do_not_stop_a_save(pruned, tmp_path):
    pruned.model.generation_config.temperature = 0.6  # without do_sample, as many published models have it
    pruned.model.generation_config.top_p = 0.9
    ta.save(pruned, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["temperature"] == 0.6
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.top_p == 0.9


@pytest.mark.parametrize("card", [b"---\nlicense: [\n---\n", b"---\n- a\n---\n", b"\xff\xfe", b"---\ntags: 5\n---\n"])
def test_a_base_whose_card_cannot_be_read_states_no_licence(card, tmp_path):
    ta.save(build("llama", torch.float32), tmp_path / "base")
    (tmp_path / "base" / "README.md").write_bytes(card)
    ta.save(ta.load(str(tmp_path / "base")), tmp_path / "copy")
    assert "license" not in (tmp_path / "copy" / "README.md").read_text()


def test_two_cuts_are_saved_as_one_plan_for_the_base(tmp_path):
    dense = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=20))
    first = ta.prune(dense, _plan(dense, ta.PruningTarget(3, 30)))
    statistics = ta.observe(first, calibration, gram=True)
    second_plan = ta.make_plan(ta.score(first, statistics), first.spec, ta.PruningTarget(2, 10))
    second = ta.prune(first, second_plan, compensation="least_squares", statistics=statistics)
    ta.save(second, tmp_path / "out")
    plan = ta.PruningPlan.from_json((tmp_path / "out" / "plan.json").read_text())
    assert plan.dense_spec == dense.spec
    assert ta.prune(dense, plan).spec == second.spec
    assert "compensation: none, least_squares" in (tmp_path / "out" / "README.md").read_text()


def test_what_padding_gives_back_is_reported(tmp_path):
    dense = build("llama")
    pruned = ta.prune(dense, _plan(dense, ta.PruningTarget((1, 3, 4), (5, 40, 7))))
    report = ta.save(pruned, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert report.parameters_written == sum(tensor.numel() for tensor in stored.values())
    assert report.parameters_lost == report.parameters_written - pruned.spec.num_parameters
    assert report.kv_bytes_per_token_lost == 2 * 2 * 4 * (3 * 4 - (1 + 3 + 4))
    assert pruned.spec.checkpoint_bytes(8) == report.parameters_written * 8


def _plan(loaded, target) -> ta.PruningPlan:
    return ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target)
