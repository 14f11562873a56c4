"""The calibration form: fields as the page sends them become typed values, or one sentence."""

from dataclasses import fields, replace

import pandas as pd
import pytest

from ui.errors import WrongInput
from ui.events.load_and_score import read_form
from ui.pages import calibration
from ui.pages.calibration import CalibrationForm
from ui.state.session import Sampling
from ui.text_sources.hub_dataset import DatasetRequest
from ui.text_sources.text_source import DatasetChoice

UNTOUCHED = CalibrationForm(
    source="mixed",
    text=calibration.preview("mixed"),
    file=None,
    column=None,
    dataset="",
    config="",
    split="train",
    dataset_column="",
    num_samples=128,
    seq_len=256,
    seed=0,
    taylor=False,
    held_out=10,
)


def test_the_page_as_it_opens_is_the_first_sample():
    text, sampling = read_form(UNTOUCHED)
    assert (text.name, text.origin, sampling) == ("mixed", "sample", Sampling())


def test_what_stands_in_the_box_is_what_is_run():
    text, _ = read_form(replace(UNTOUCHED, text="My own.\n\nText."))
    assert (text.origin, text.texts) == ("pasted", ("My own.", "Text."))


@pytest.mark.parametrize(
    ("typed", "choice"),
    [
        (("Salesforce/wikitext", "wikitext-2-raw-v1", "test", "text"), ("wikitext-2-raw-v1", "test", "text")),
        ((" Salesforce/wikitext ", " ", "", None), (None, "train", None)),
    ],
)
def test_a_dataset_is_asked_for_and_not_yet_read(typed, choice):
    dataset, config, split, column = typed
    form = replace(
        UNTOUCHED, source=calibration.DATASET, dataset=dataset, config=config, split=split, dataset_column=column,
        text="something typed earlier", num_samples=7,
    )  # fmt: skip
    text, sampling = read_form(form)
    assert text == DatasetRequest(DatasetChoice("Salesforce/wikitext", *choice), limit=8)  # of which 10 % are held out
    assert text.name == "Salesforce/wikitext"
    assert sampling.num_samples == 7


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_upload_is_read_by_the_chosen_column(tmp_path, kind):
    file = tmp_path / f"two.{kind}"
    frame = pd.DataFrame({"title": ["A", "B"], "story": ["one", "two"]})
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    form = replace(UNTOUCHED, source=calibration.UPLOAD, file=str(file), column="story")
    assert read_form(form)[0].texts == ("one", "two")
    assert read_form(replace(form, column="title"))[0].texts == ("A", "B")
    with pytest.raises(WrongInput, match="choose one of title, story"):
        read_form(replace(form, column="body"))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"source": calibration.UPLOAD}, "No file has been uploaded yet"),
        ({"source": calibration.PASTE, "text": " "}, "The text is empty"),
        ({"num_samples": None}, "“Sequences” is nothing; give a whole number from 1 to 4,096"),
        ({"num_samples": 0, "source": calibration.DATASET, "dataset": "a/b"}, "“Sequences” is 0"),
        ({"seq_len": 1}, "“Tokens each” is 1; give a whole number from 2 to 8,192"),
        ({"seed": 1.5}, "“Seed” is 1.5"),
    ],
)
def test_wrong_fields_get_one_sentence(wrong, sentence):
    with pytest.raises(WrongInput, match=sentence):
        read_form(replace(UNTOUCHED, **wrong))


def test_the_panel_sends_what_the_form_holds():
    assert {field.name for field in fields(CalibrationForm)} <= {
        field.name for field in fields(calibration.CalibrationPanel)
    }
