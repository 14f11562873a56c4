"""The API reference: every module has a page, every public name is explained, and all of it reads offline."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import transact as ta
from docs.build import build
from tests.conftest import ROOT

pytestmark = pytest.mark.long


class _Page(HTMLParser):
    """The anchors of a page, the links on it, and what a browser fetches to show it."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links, self.fetched = set(), set(), set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        # what style sheets ask for; quoted source code holds no such addresses
        self.fetched |= set(re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", self.text))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.add(values.get("id"))
        if tag == "a":
            self.links.add(values.get("href"))
        else:
            self.fetched |= {values[name] for name in ("src", "href", "data") if values.get(name)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The modules that were documented, and their pages by path."""
    folder = tmp_path_factory.mktemp("reference")
    modules = build(folder)
    return modules, {path.resolve(): _Page(path) for path in sorted(folder.rglob("*.html"))}, folder


def test_every_module_has_a_page(reference):
    _, pages, folder = reference
    files = {path.relative_to(ROOT) for path in (ROOT / "transact").rglob("*.py") if path.stem != "__main__"}
    expected = {(path.parent if path.stem == "__init__" else path).with_suffix(".html") for path in files}
    assert {path.relative_to(folder.resolve()) for path in pages} == {*expected, Path("index.html")}


def test_every_public_name_is_explained(reference):
    modules, pages, folder = reference
    page = pages[(folder / "transact.html").resolve()].text
    without, pythons_own, not_shown = [], [], []
    for name in ta.__all__:
        docstring = modules["transact"].members[name].docstring
        entry = page.partition(f'<section id="{name}">')[2].partition("</section>")[0]
        if not docstring.strip():
            without.append(name)
        if docstring.startswith((f"{name}(", "Base class for protocol")):
            pythons_own.append(name)
        if 'class="docstring"' not in entry.partition('class="classattr"')[0]:
            not_shown.append(name)
    assert ta.__all__
    assert (without, pythons_own, not_shown) == ([], [], [])


def test_private_names_have_no_entry(reference):
    _, pages, _ = reference
    private = {anchor for page in pages.values() for anchor in page.anchors if re.match(r"(.*\.)?_[a-z]", anchor or "")}
    assert not private


def test_nothing_comes_from_another_host(reference):
    _, pages, folder = reference
    fetched = {address for page in pages.values() for address in page.fetched}
    assert not {address for address in fetched if urlsplit(address).scheme not in ("", "data") or "//" in address[:2]}
    assert (folder / "search.js").stat().st_size > 10_000


def test_links_lead_somewhere(reference):
    _, pages, _ = reference
    broken = []
    for path, page in pages.items():
        for link in page.links - {None}:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target not in pages or (parts.fragment and unquote(parts.fragment) not in pages[target].anchors):
                broken.append(f"{path.name}: {link}")
    assert not broken
