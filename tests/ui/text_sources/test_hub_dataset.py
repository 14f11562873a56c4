"""Streamed datasets: which rows are read, one sentence for each way it fails, and the lines that read them again."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import datasets
import pandas as pd
import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import errors as hub_errors

import transact as ta
from tests import dataset_hub
from tests.ui.text_sources.test_dataset_card import dataset as card_of
from ui.errors import WrongInput
from ui.state import plan_of_choice
from ui.state.session import BUNDLED, Choice, Sampling, Session
from ui.text_sources import hub_dataset, text_source
from ui.text_sources.hub_dataset import DatasetRequest, streamed
from ui.text_sources.text_source import DatasetChoice, TextSource
from ui.views.python_code import Recipe, code
from ui.work import scoring
from ui.work.jobs import Jobs, Watch
from ui.work.registry import Registry

ROOT = Path(__file__).resolve().parents[3]
WIKI = ["", " = Foxes = \n", "", " A fox is a small dog . \n", "\n", " It eats berries . \n", " And mice . \n"]
"""Rows as WikiText has them: empty ones, headings, and one paragraph a row."""


def folder_of(path: Path, rows: list[dict], name: str = "train.jsonl") -> Path:
    path.mkdir(exist_ok=True)
    (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def wiki(tmp_path) -> Path:
    return folder_of(tmp_path / "wiki", [{"id": index, "text": text} for index, text in enumerate(WIKI)])


@pytest.fixture
def parquet(tmp_path) -> Path:
    folder = tmp_path / "stories"
    folder.mkdir()
    for split in ("train", "test"):
        frame = pd.DataFrame({"n": [1, 2], "title": ["A", "B"], "story": [f"{split} one", f"{split} two"]})
        frame.to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture
def configs(tmp_path) -> Path:
    folder = tmp_path / "languages"
    folder_of(folder, [{"text": "good day"}], "en.jsonl")
    folder_of(folder, [{"text": "guten Tag"}], "de.jsonl")
    lines = [f"- config_name: {name}\n  data_files: {name}.jsonl" for name in ("en", "de")]
    (folder / "README.md").write_text("\n".join(["---", "configs:", *lines, "---", ""]))
    return folder


class TestWhatIsRead:
    def test_the_first_rows_that_hold_text(self, wiki):
        source = streamed(DatasetChoice(str(wiki)), limit=2)
        assert source == TextSource(
            f"{wiki} (train)", (WIKI[1], WIKI[3]), "dataset", dataset=DatasetChoice(str(wiki), None, "train", "text")
        )
        assert not source.is_document

    def test_fewer_where_the_dataset_ends(self, wiki):
        assert len(streamed(DatasetChoice(str(wiki)), limit=100).texts) == 4

    def test_no_more_rows_than_needed(self, monkeypatch):
        taken = []

        def endless():
            for number in count():
                taken.append(number)
                yield {"text": str(number) if number % 2 else ""}

        stream = datasets.IterableDataset.from_generator(endless)
        monkeypatch.setattr(hub_dataset, "pinned", lambda place: "c0ffee")
        monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: stream)
        source = streamed(DatasetChoice("team/endless"), limit=200)
        assert source.texts == tuple(str(number) for number in range(1, 400, 2))
        time.sleep(0.1)  # whatever was fetched ahead has come by now
        assert max(taken) < 400 + 2 * hub_dataset._ROWS_AHEAD

    def test_at_most_so_many_rows_and_characters(self, wiki, monkeypatch):
        monkeypatch.setattr(hub_dataset, "MAX_ROWS", 4)
        assert streamed(DatasetChoice(str(wiki)), limit=9).texts == (WIKI[1], WIKI[3])
        monkeypatch.setattr(hub_dataset, "MAX_CHARACTERS", len(WIKI[1]))
        assert streamed(DatasetChoice(str(wiki)), limit=9).texts == (WIKI[1],)

    def test_split_and_column(self, parquet):
        def read(split, column):
            return streamed(DatasetChoice(str(parquet), None, split, column), limit=9)

        assert read("train", None).texts == ("A", "B")
        assert read("train", None).dataset.column == "title"
        assert read("test", "story").texts == ("test one", "test two")
        assert read("train+test", "story").texts == ("train one", "train two", "test one", "test two")

    def test_config(self, configs):
        source = streamed(DatasetChoice(str(configs), "de"), limit=9)
        assert source.texts == ("guten Tag",)
        assert source.name == f"{configs} (de, train)"

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("train.csv", "n,body\n1,\n2,two\n", ("two",)),
            ("train.txt", "One\n\nTwo\n", ("One", "Two")),
            (
                "train.json",
                '[{"n": 1, "Text": "One"}, {"n": 2, "Text": null}, {"n": 3, "Text": "Two"}]',
                ("One", "Two"),
            ),
        ],
    )
    def test_formats_that_do_not_declare_their_columns(self, tmp_path, name, content, expected):
        (tmp_path / name).write_text(content)
        assert streamed(DatasetChoice(str(tmp_path)), limit=9).texts == expected

    def test_a_folder_may_be_named_from_home_or_here(self, wiki, monkeypatch):
        monkeypatch.setenv("HOME", str(wiki.parent))
        monkeypatch.chdir(wiki.parent)
        for name in ("~/wiki", "wiki", "./wiki"):
            source = streamed(DatasetChoice(name), limit=1)
            assert (source.name, source.dataset.name) == (f"{name} (train)", str(wiki))


class TestProgress:
    def test_counts_texts_and_stops_between_rows(self, wiki):
        seen = []

        def progress(done, total, unit):
            seen.append((done, total, unit))
            if done == 2:
                raise ta.Cancelled

        with pytest.raises(ta.Cancelled):
            streamed(DatasetChoice(str(wiki)), 3, progress)
        assert seen[0] == (0, 3, "texts")
        assert seen[-1] == (2, 3, "texts")

    def test_a_job_that_waits_for_the_hub_stops_at_once(self, monkeypatch):
        asked, answer = threading.Event(), threading.Event()

        def hangs(*args, **kwargs):
            asked.set()
            answer.wait(30)
            raise ConnectionError

        monkeypatch.setattr(hub_dataset, "pinned", hangs)
        jobs = Jobs()
        ticks = jobs.run("visitor", "Reading", DatasetRequest(DatasetChoice("team/slow"), 3).read)
        next(ticks)
        assert asked.wait(10)
        began = time.monotonic()
        jobs.stop("visitor")
        with pytest.raises(ta.Cancelled):
            list(ticks)
        assert time.monotonic() - began < 20  # the hub would answer after 30
        answer.set()

    def test_a_hub_that_falls_silent_is_given_up(self, monkeypatch):
        answer = threading.Event()
        monkeypatch.setattr(hub_dataset, "_SILENCE_SECONDS", 0.3)
        monkeypatch.setattr(hub_dataset, "pinned", lambda place: answer.wait(30))
        with pytest.raises(WrongInput, match="team/slow has sent nothing for 0 seconds; try again later"):
            streamed(DatasetChoice("team/slow"), 3)
        answer.set()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."),
            "no public dataset “a/b”",
        ),
        (DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub. Visit"), "a/b is gated: accept its terms"),
        (ConnectionError("Couldn't reach 'a/b' on the Hub (ConnectError)"), "The hub could not be reached"),
        (TimeoutError(), "The hub could not be reached"),
        (hub_errors.LocalEntryNotFoundError("x"), "The hub could not be reached"),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), "a/b would run code of its own"),
        (ValueError("Bad split: train. Available splits: ['test', 'validation']"), "choose one of test, validation"),
        (ValueError("BuilderConfig 'en' not found. Available: ['de', 'fr']"), "no config “en”; choose one of de, fr"),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['de', 'fr']\nExample"),
            "a/b has several configs, and none was named; choose one of de, fr",
        ),
        (
            ImportError("To support decoding images, please install 'Pillow'."),
            "cannot be read .*install 'Pillow'.; choose",
        ),
        (KeyError(), "a/b .en, train. cannot be read .KeyError"),
    ],
)
def test_what_datasets_raises_becomes_one_sentence(monkeypatch, error, sentence):
    def refused(*args, **kwargs):
        raise error

    monkeypatch.setattr(hub_dataset, "pinned", lambda place: "c0ffee")
    monkeypatch.setattr(datasets, "load_dataset", refused)
    with pytest.raises(WrongInput, match=sentence) as caught:
        streamed(DatasetChoice("a/b", "en"), 3)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


class TestWhatIsRefused:
    def refused(self, *choice) -> str:
        with pytest.raises(WrongInput) as caught:
            streamed(DatasetChoice(*map(str, choice)) if None not in choice else DatasetChoice(*choice), 3)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("", "No dataset was named; give a hub id such as “Salesforce/wikitext” or the folder"),
            ("/no/such/folder", "There is no folder “/no/such/folder”, and it is no hub id either; give a hub id"),
            ("~nobody/x", "There is no folder"),
            ("two words", "There is no folder"),
            ("a/b/c", "There is no folder"),
            ("a\0b", "There is no folder"),
            ("x" * 5000, "There is no folder"),
            ("https://huggingface.co/datasets/a/b", "There is no folder"),
            ("json", "“json” is the name of a file format and not of a dataset"),
            ("text", "“text” is the name of a file format"),
            ("nobody/nothing", "The hub could not be reached (offline mode is on: HF_HUB_OFFLINE), so nobody/nothing"),
        ],
    )
    def test_names(self, name, sentence):
        assert self.refused(name).startswith(sentence)

    def test_a_file_and_a_whole_disk(self, wiki, monkeypatch):
        assert "is a file; upload it instead" in self.refused(wiki / "train.jsonl")
        monkeypatch.setattr(hub_dataset, "_MAX_FILES", 0)
        assert "holds more than 0 files; name the folder of one dataset" in self.refused(wiki)

    def test_split_config_and_column(self, wiki, parquet, configs):
        assert self.refused(parquet, None, "validation").endswith("no split “validation”; choose one of train, test.")
        assert self.refused(configs).endswith("several configs, and none was named; choose one of en, de.")
        assert self.refused(configs, "fr").endswith("no config “fr”; choose one of en, de.")
        assert self.refused(parquet, None, "train", "body").endswith(
            "no text column “body”; choose one of title, story."
        )
        assert self.refused(parquet, None, "train", "n").endswith("no text column “n”; choose one of title, story.")

    def test_no_text(self, tmp_path):
        numbers = folder_of(tmp_path / "numbers", [{"n": 1, "m": [2]}])
        assert "has no column of text (its columns: n, m)" in self.refused(numbers)
        blank = folder_of(tmp_path / "blank", [{"text": ""}, {"text": " "}])
        assert "Column “text” of" in self.refused(blank)
        assert "holds no text in its first 200,000 rows" in self.refused(blank)

    def test_a_first_text_beyond_all_bounds(self, wiki, monkeypatch):
        monkeypatch.setattr(hub_dataset, "MAX_CHARACTERS", 5)
        assert "The first text in" in self.refused(wiki)

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            (None, b"", "holds no file that can be read"),
            ("train.jsonl", b'{"text": "a"}\n{"text": \n', "cannot be read (JSON parse error"),
            ("train.parquet", b"PAR1 nope", "cannot be read (Parquet magic bytes not found"),
            ("train.csv", b"text\ncaf\xe9\n", "is not UTF-8 text"),
            ("README.md", b"---\nconfigs:\n- config_name: [\n---\n", "cannot be read"),
            ("broken.py", b"raise SystemExit", "would run code of its own (a loading script)"),
        ],
    )
    def test_broken_folders(self, tmp_path, name, content, sentence):
        folder = tmp_path / "broken"
        folder.mkdir()
        if name:
            (folder / name).write_bytes(content)
        assert sentence in self.refused(folder)

    def test_a_broken_row_after_good_ones_is_not_passed_over(self, tmp_path):
        folder = folder_of(tmp_path / "long", [{"text": "x" * 1000}] * 12_000)
        with (folder / "train.jsonl").open("a") as file:
            file.write('{"text": \n')
        assert len(streamed(DatasetChoice(str(folder)), 5).texts) == 5
        with pytest.raises(WrongInput, match="cannot be read .JSON parse error"):
            streamed(DatasetChoice(str(folder)), 20_000)


ASK = """
import json, sys
from ui.text_sources.hub_dataset import streamed
from ui.text_sources.text_source import DatasetChoice
answers = {}
for choice in json.loads(sys.argv[1]):
    try:
        source = streamed(DatasetChoice(*choice), 2)
        answers[choice[0]] = [source.name, *source.texts, source.dataset.revision]
    except Exception as error:
        answers[choice[0]] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


@pytest.mark.long
def test_the_hub_and_the_ways_it_says_no(wiki, parquet, tmp_path):
    script = tmp_path / "script"
    script.mkdir()
    (script / "script.py").write_text("raise SystemExit")
    (tmp_path / "empty").mkdir()
    (tmp_path / "secret.txt").write_text("of this machine")
    # an absolute path in a card would be opened as it stands
    elsewhere = {
        "evil/card": card_of(tmp_path / "card", str(tmp_path / "secret.txt")),
        "evil/settings": card_of(tmp_path / "settings", str(tmp_path / "secret.txt"), ".huggingface.yaml"),
        "evil/network": card_of(tmp_path / "network", "http://127.0.0.1:1/x.jsonl"),
    }
    served = {"team/wiki": wiki, "team/stories": parquet, "team/script": script, "team/empty": tmp_path / "empty"}
    served |= elsewhere
    with dataset_hub.serve(served, gated=frozenset({"team/gated"})) as address:
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        choices = [
            ["team/wiki"],
            ["team/stories", None, "test", "story"],
            ["team/script"],
            ["team/empty"],
            ["team/gated"],
            ["team/nobody"],
            *([name] for name in elsewhere),
        ]
        asked = subprocess.run(
            [sys.executable, "-c", ASK, json.dumps(choices)], env=environment, cwd=ROOT, capture_output=True, text=True
        )
    answers = json.loads(asked.stdout.splitlines()[-1])
    assert answers["team/wiki"] == ["team/wiki (train)", WIKI[1], WIKI[3], dataset_hub.COMMIT]
    assert answers["team/stories"] == ["team/stories (test)", "test one", "test two", dataset_hub.COMMIT]
    for name, said in {
        "team/script": "WrongInput: team/script would run code of its own",
        "team/empty": "WrongInput: team/empty holds no file that can be read",
        "team/gated": "WrongInput: team/gated is gated",
        "team/nobody": "WrongInput: The hub has no public dataset “team/nobody”",
    }.items():
        assert answers[name].startswith(said), answers[name]
    for name in elsewhere:
        assert answers[name].startswith(f"WrongInput: {name} names a file outside of itself"), answers[name]
    # no thread of a half-read parquet file may abort the process on its way out
    assert asked.returncode == 0, asked.stderr


def test_the_emitted_lines_read_the_same_texts_and_make_the_same_plan(configs, wiki, tmp_path, monkeypatch):
    sampling, watch, registry = Sampling(num_samples=3, seq_len=48, seed=3), Watch("test"), Registry()
    for choice in (DatasetChoice(str(wiki)), DatasetChoice(str(configs), "de", "train", "text")):
        text = DatasetRequest(choice, sampling.num_samples).read(watch)
        scored = scoring.score(registry, BUNDLED, text, sampling, watch)
        session = plan_of_choice.planned(
            Session("visitor", BUNDLED, registry.dense(BUNDLED).spec, scored, Choice(attention=0.25, mlp=0.5))
        )
        lines = code(Recipe.of_plan(scored, session.choice, session.plan))
        folder = tmp_path / f"run-{text.texts[0].strip()}"
        folder.mkdir()
        (folder / "assets").symlink_to(ROOT / "assets")
        monkeypatch.chdir(folder)
        names: dict = {}
        exec(compile(lines, "as-code", "exec"), names)
        assert names["calibration_texts"] == list(text.texts)
        assert names["plan"] == session.plan


def test_lines_of_two_kinds_of_text_import_what_each_needs(wiki):
    watch, registry = Watch("test"), Registry()
    text = DatasetRequest(DatasetChoice(str(wiki)), 3).read(watch)
    scored = scoring.score(registry, BUNDLED, text, Sampling(3, 48), watch)
    session = plan_of_choice.planned(Session("visitor", BUNDLED, registry.dense(BUNDLED).spec, scored, Choice()))
    recipe = replace(
        Recipe.of_plan(scored, session.choice, session.plan), measured_on=text_source.evaluation_sample("stories")
    )
    assert code(recipe).startswith(
        "import json\nfrom itertools import islice\n\nimport datasets\nimport transact as ta\n\nloaded = "
    )
