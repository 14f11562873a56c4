"""Calibration text from a visitor's own places: a Hugging Face dataset, and files with columns."""

import json

import pandas as pd
import pytest

from tests.e2e.explorer import SLOW, Explorer
from tests.tiers import cases

DATASET = "A Hugging Face dataset"


@pytest.fixture
def explorer(browser, app_url):
    opened = Explorer(browser, app_url)
    yield opened
    opened.close()
    assert not opened.errors


@pytest.fixture
def folder(tmp_path):
    """A dataset as it lies on a disk: two splits, empty rows among the others."""
    (tmp_path / "foxes").mkdir()
    for split in ("train", "test"):
        rows = [{"id": index, "text": f"A {split} fox met crow {index}." if index % 2 else ""} for index in range(60)]
        (tmp_path / "foxes" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "foxes"


def fill(explorer: Explorer, **values) -> None:
    for field, value in values.items():
        explorer.page.locator(f"#dataset-{field} :is(input, textarea)").fill(str(value))


def upload(explorer: Explorer, file) -> None:
    explorer.choose("calibration-source", "Upload a file")
    explorer.page.wait_for_selector("#calibration-file input[type=file]", state="attached", timeout=SLOW)
    explorer.page.set_input_files("#calibration-file input[type=file]", file)
    explorer.page.wait_for_selector(f"#calibration-file :text('{file.stem}')", timeout=SLOW)


def estimate_says(explorer: Explorer, words: str) -> None:
    explorer.wait_until("words => document.querySelector('#estimate').innerText.includes(words)", arg=words)


def test_a_dataset_is_read_and_scored(explorer, folder):
    page = explorer.page
    assert page.locator("#dataset-name").count() == 0 or page.is_hidden("#dataset-name")
    explorer.choose("calibration-source", DATASET)
    page.wait_for_selector("#dataset-name", timeout=SLOW)
    page.wait_for_selector("#calibration-text", state="hidden", timeout=SLOW)
    assert page.locator("#dataset-split :is(input, textarea)").input_value() == "train"
    for label in ("Dataset", "Config", "Split", "Column with the text"):
        assert page.locator("#rail").get_by_label(label).first.is_visible(), label

    fill(explorer, name=folder)
    page.get_by_label("Sequences").fill("12")
    page.click("#score-button")
    explorer.says("Scored")
    line = explorer.text("estimate")
    assert "foxes (train)" in line and "12 sequences" in line
    code = explorer.text("code-view")
    assert "datasets.load_dataset(" in code and "streaming=True" in code and "islice" in code

    fill(explorer, split="test", column="text")
    page.click("#score-button")
    estimate_says(explorer, "foxes (test)")

    explorer.choose("calibration-source", "Children's stories")
    page.wait_for_selector("#dataset-name", state="hidden", timeout=SLOW)
    assert page.is_visible("#calibration-text")


@pytest.mark.exhaustive
def test_a_wrong_dataset_gets_one_sentence_and_loses_nothing(explorer, folder):
    page, before = explorer.page, explorer.text("estimate")
    explorer.choose("calibration-source", DATASET)
    page.wait_for_selector("#dataset-name", timeout=SLOW)
    for values, sentence in (
        ({}, "No dataset was named"),
        ({"name": "nobody/nothing"}, "The hub could not be reached"),
        ({"name": "/no/such/folder"}, "There is no folder"),
        ({"name": folder, "split": "validation"}, "no split “validation”; choose one of train, test"),
        ({"split": "train", "config": "en"}, "no config “en”"),
        ({"config": "", "column": "id"}, "no text column “id”; choose one of text"),
    ):
        fill(explorer, **values)
        page.click("#score-button")
        assert "\n" not in explorer.says(sentence).strip()
        assert explorer.text("estimate") == before
    fill(explorer, column="")
    page.click("#score-button")
    explorer.says("Scored")


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", cases(["csv", "parquet"], test=["parquet"]))
def test_the_column_of_an_upload_is_chosen(explorer, tmp_path, kind):
    page = explorer.page
    file = tmp_path / f"tales.{kind}"
    frame = pd.DataFrame({"title": ["One", "Two", "Three"], "story": ["A fox ran.", "A crow flew.", ""]})
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    upload(explorer, file)
    page.wait_for_selector("#calibration-column", timeout=SLOW)
    estimate_says(explorer, "A run reads 3 sequences")
    explorer.choose("calibration-column", "story")
    estimate_says(explorer, "A run reads 2 sequences")

    explorer.choose("calibration-source", "Children's stories")
    page.wait_for_selector("#calibration-column", state="hidden", timeout=SLOW)
    explorer.choose("calibration-source", "Upload a file")
    page.wait_for_selector("#calibration-column", timeout=SLOW)

    page.click("#score-button")
    explorer.says("Scored")
    assert f"tales.{kind}: 2 sequences" in explorer.text("estimate")
    assert "['A fox ran.', 'A crow flew.']" in explorer.text("code-view")


@pytest.mark.exhaustive
def test_files_of_one_column_need_no_choice(explorer, tmp_path):
    page = explorer.page
    for name, content, count in (
        ("a.txt", "One fox.\n\nTwo foxes.\n", 2),
        ("b.jsonl", '{"n": 1, "text": "One."}\n{"n": 2, "text": "Two."}\n{"n": 3, "text": "Three."}\n', 3),
    ):
        file = tmp_path / name
        file.write_text(content)
        upload(explorer, file)
        estimate_says(explorer, f"A run reads {count} sequences")
        assert page.locator("#calibration-column").count() == 0 or page.is_hidden("#calibration-column")
        page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
        estimate_says(explorer, "Scored on mixed")
    page.click("#score-button")
    explorer.says("No file has been uploaded yet")


@pytest.mark.exhaustive
def test_a_long_line_is_cut_into_windows_and_what_is_missing_is_told(explorer, tmp_path):
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"text": "One day a fox met a crow. " * 400}) + '\n{"text": null}\n')
    upload(explorer, file)
    estimate_says(explorer, "128 samples were asked for")
    explorer.page.click("#score-button")
    said = explorer.says("Scored")
    for note in ("long.jsonl: rows without text, left out: 1.", "128 samples were asked for and the text gives"):
        assert note in said
    assert "longer ones in windows of 256" in explorer.text("estimate")
    assert 'windows="auto"' in explorer.text("code-view")


@pytest.mark.exhaustive
def test_conversations_need_a_model_with_a_chat_template(explorer, tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "A fox?"}]}) + "\n")
    upload(explorer, file)
    explorer.page.click("#score-button")
    explorer.says("This model's tokenizer has no chat template")
