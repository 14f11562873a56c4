"""The guide: ten steps that speak of things on the page, with drawings that are whole and keep to themselves."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tests.conftest import ROOT
from ui.pages import guide
from ui.views.guide_steps import STEPS, Step

SVG = "{http://www.w3.org/2000/svg}"
DRAWINGS = sorted(guide.DRAWINGS.glob("*.svg"))
SOURCES = [
    *(path for path in (ROOT / "ui").rglob("*.py") if path.name != "guide_steps.py"),
    ROOT / "transact" / "scoring" / "metrics.py",
    ROOT / "transact" / "repair" / "repairs.py",
]
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
HOSTILE = Step('<b>"1" & 2</b>', "a < b > c", 'x" onclick="y', None, "<script>z</script>")


class _Page(HTMLParser):
    """All tags with their attributes, and all text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def having(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def test_ten_steps_each_with_words_and_something_to_do():
    assert len(STEPS) == 10
    assert len({step.title for step in STEPS}) == 10
    for step in STEPS:
        assert 2 <= len(re.findall(r"[.?!](?: |$)", step.words)) <= 4, step.title
        assert step.try_this.endswith((".", "?")), step.title


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_a_step_speaks_of_something_on_the_page(step):
    assert f'elem_id="{step.target}"' in SOURCE


@pytest.mark.parametrize("label", sorted({label for step in STEPS for label in re.findall("“(.*?)”", step.try_this)}))
def test_a_quoted_label_stands_on_the_page_in_the_same_words(label):
    assert f'"{label}"' in SOURCE


def test_every_drawing_belongs_to_a_step_and_there_are_at_least_six():
    named = [step.drawing for step in STEPS if step.drawing]
    assert sorted(named) == [path.stem for path in DRAWINGS]
    assert len(named) >= 6


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_a_drawing_is_whole_named_small_and_needs_nothing_from_elsewhere(path):
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img" and root.get("viewBox") == "0 0 320 180"
    assert root.find(f"{SVG}title").text.strip()
    assert len(text.encode()) < 4000
    assert {element.tag.removeprefix(SVG) for element in root.iter()}.isdisjoint(
        {"script", "style", "image", "use", "a"}
    )
    assert re.findall(r"https?:[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    ids = {element.get("id") for element in root.iter()} - {None}
    assert set(re.findall(r"url\(#([^)]+)\)", text)) == ids


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_a_drawing_reads_on_light_and_on_dark(path):
    """Every colour is the text's own, or a variable that the style sheet sets for either theme."""
    sheet = guide.STYLE_SHEET.read_text(encoding="utf-8")
    for element in ElementTree.fromstring(path.read_text(encoding="utf-8")).iter():
        for colour in filter(None, (element.get("fill"), element.get("stroke"))):
            variable = re.fullmatch(r"var\((--[\w-]+), #[0-9a-f]{6}\)", colour)
            assert variable or colour in ("none", "currentColor") or colour.startswith("url(#"), colour
            assert not variable or f"{variable[1]}:" in sheet, colour


def test_no_id_stands_twice_in_the_card():
    drawings = {path.stem: path.read_text(encoding="utf-8") for path in DRAWINGS}
    ids = _Page(guide.card(STEPS, drawings)).having("id")
    assert {"guide", "guide-open"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_the_card_holds_every_step_in_order_hidden_and_counted():
    page = _Page(guide.card(STEPS[:3], {step.drawing: "<svg></svg>" for step in STEPS[:3]}))
    articles = [attributes for tag, attributes in page.tags if tag == "article"]
    assert [article["data-target"] for article in articles] == [step.target for step in STEPS[:3]]
    assert all("hidden" in article for article in articles)
    assert re.findall(r"step (\d of \d)", page.text) == ["1 of 3", "2 of 3", "3 of 3"]
    assert sum(tag == "svg" for tag, _ in page.tags) == 3


def test_the_buttons_are_those_that_the_script_knows():
    html = guide.card(STEPS[:1], {STEPS[0].drawing: ""})
    assert sorted(_Page(html).having("data-guide")) == ["back", "close", "next", "open"]
    (actions,) = re.findall(r"const actions = \{(.*)\};", guide.SCRIPT.read_text(encoding="utf-8"))
    assert {name for name in ("open", "close", "back", "next") if re.search(rf"\b{name}\b", actions)} == {
        "open", "close", "back", "next",
    }  # fmt: skip


def test_words_are_text_and_never_markup():
    page = _Page(guide.card((HOSTILE,), {}))
    assert {"script", "svg"}.isdisjoint(tag for tag, _ in page.tags)
    assert page.having("onclick") == []
    for words in (HOSTILE.title, HOSTILE.words, HOSTILE.try_this):
        assert words in page.text
    assert page.having("data-target") == [HOSTILE.target]


def test_a_missing_drawing_is_noticed():
    with pytest.raises(KeyError, match="nowhere"):
        guide.card((replace(HOSTILE, drawing="nowhere"),), {})
