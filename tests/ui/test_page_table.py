"""The table of pages is complete, and what it says of each page holds."""

from pathlib import Path

import ui
from ui.events import panels
from ui.page_table import BAR, MAIN, PAGES, RAIL, TABS


def files_of(folder: str) -> set[str]:
    """The names of the modules in a folder of `ui`."""
    files = (Path(ui.__file__).parent / folder).glob("*.py")
    return {f"ui.{folder}.{path.stem}" for path in files if path.stem != "__init__"}


def test_every_page_stands_in_it_once():
    assert sorted(page.module.__name__ for page in PAGES) == sorted(files_of("pages"))
    assert len({page.name for page in PAGES}) == len(PAGES)


def test_every_file_of_events_is_connected():
    shared = {f"ui.events.{name}" for name in ("panels", "runner", "page_load", "texts")}
    assert {page.events.__name__ for page in PAGES if page.events} == files_of("events") - shared


def test_pages_are_repainted_by_tags_that_there_are():
    for page in PAGES:
        assert page.module.PAINTS.keys() <= panels.TAGS.keys(), page.name
        assert not page.module.PAINTS or "all" in page.module.PAINTS, page.name
    assert {tag for page in PAGES for tag in page.module.PAINTS} == set(panels.TAGS)


def test_every_page_has_its_place():
    for page in PAGES:
        assert page.place in (BAR, RAIL, MAIN, *TABS)
        assert bool(page.title) == bool(page.tab_id), page.name
    for place in (BAR, RAIL, MAIN, *TABS):  # all parts of a place are seen at once, or one at a time
        assert len({bool(page.title) for page in PAGES if page.place == place}) == 1, place
