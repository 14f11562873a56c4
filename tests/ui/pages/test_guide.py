"""The guide: lessons that ask before they tell, with drawings that are whole and keep to themselves."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tests.conftest import ROOT
from ui.pages import guide
from ui.state.lesson_settings import Press
from ui.views.lessons import LESSONS, Lesson

SVG = "{http://www.w3.org/2000/svg}"
DRAWINGS = sorted(guide.DRAWINGS.glob("*.svg"))
SOURCES = [
    *(path for path in (ROOT / "ui").rglob("*.py") if path.name != "lessons.py"),
    ROOT / "transact" / "scoring" / "metrics.py",
    ROOT / "transact" / "repair" / "repairs.py",
]
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
HOSTILE = Lesson(
    title='<b>"1" & 2</b>', words="a < b > c", target='x" onclick="y', question="<u>why?</u>", options=("<1>", '"2"'),
    right=1, reveal="<script>z</script>", figure="<i></i>", yours="<script>u</script>", press=Press(),
)  # fmt: skip


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


def test_eight_lessons_each_with_a_question_of_which_one_answer_is_right():
    assert 6 <= len(LESSONS) <= 8
    assert len({lesson.title for lesson in LESSONS}) == len(LESSONS)
    for lesson in LESSONS:
        assert lesson.question.endswith("?"), lesson.title
        assert 3 <= len(set(lesson.options)) == len(lesson.options) <= 5, lesson.title
        assert 0 <= lesson.right < len(lesson.options), lesson.title
        for words in (lesson.words, lesson.reveal, lesson.yours):
            assert 1 <= len(re.findall(r"[.?!”](?: |$)", words)) <= 6, words
            assert words.endswith((".", "?", "”")), words


def test_four_minutes_are_enough_to_read_all_of_it():
    words = sum(
        len(f"{each.words} {each.question} {' '.join(each.options)} {each.reveal} {each.yours}".split())
        for each in LESSONS
    )
    assert words < 4 * 300


def test_a_lesson_speaks_of_something_on_the_page():
    for lesson in LESSONS:
        assert f'elem_id="{lesson.target}"' in SOURCE, lesson.title


def test_a_quoted_label_stands_on_the_page_in_the_same_words():
    for label in sorted({label for lesson in LESSONS for label in re.findall("“(.*?)”", lesson.yours)}):
        assert (
            f'"{label}"' in SOURCE
            or all(f'"{part}"' in SOURCE for part in label.split("/"))
            or (f">{label}<" in SOURCE)
        ), label


def test_every_drawing_belongs_to_a_lesson():
    named = [lesson.drawing for lesson in LESSONS if lesson.drawing]
    assert sorted(named) == sorted(set(named) & {path.stem for path in DRAWINGS})
    assert {path.stem for path in DRAWINGS} == set(named)


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
    ids = _Page(guide.card(LESSONS, drawings)).having("id")
    assert {"guide", "guide-open"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_the_card_holds_every_lesson_in_order_hidden_and_counted_and_hides_what_it_reveals():
    page = _Page(guide.card(LESSONS[:3], {lesson.drawing: "<svg></svg>" for lesson in LESSONS[:3]}))
    articles = [attributes for tag, attributes in page.tags if tag == "article"]
    assert [article["data-target"] for article in articles] == [lesson.target for lesson in LESSONS[:3]]
    assert [article["data-right"] for article in articles] == [str(lesson.right) for lesson in LESSONS[:3]]
    assert all("hidden" in article for article in articles)
    revealing = [attributes for _, attributes in page.tags if attributes.get("class") == "lesson-reveal"]
    assert len(revealing) == 3 and all("hidden" in attributes for attributes in revealing)
    assert re.findall(r"Lesson (\d of \d)", page.text) == ["1 of 3", "2 of 3", "3 of 3"]
    assert page.text.count("Measured beforehand, as follows") == 3


def test_the_buttons_are_those_that_the_script_knows():
    named = set(_Page(guide.card(LESSONS[:1], {LESSONS[0].drawing: ""})).having("data-guide"))
    (actions,) = re.findall(r"const actions = \{(.*?)\};", guide.SCRIPT.read_text(encoding="utf-8"), re.DOTALL)
    assert named == {"back", "close", "large", "link", "next", "open"}
    assert all(re.search(rf"\b{name}\b", actions) for name in named)


def test_words_are_text_and_never_markup():
    page = _Page(guide.card((HOSTILE,), {}))
    assert {"script", "svg", "u"}.isdisjoint(tag for tag, _ in page.tags)
    assert page.having("onclick") == []
    for words in (HOSTILE.title, HOSTILE.words, HOSTILE.question, HOSTILE.reveal, HOSTILE.yours, *HOSTILE.options):
        assert words in page.text
    assert page.having("data-target") == [HOSTILE.target]


def test_a_missing_drawing_is_noticed():
    with pytest.raises(KeyError, match="nowhere"):
        guide.card((replace(HOSTILE, drawing="nowhere"),), {})
