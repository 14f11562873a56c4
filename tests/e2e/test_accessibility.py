"""For everyone: no barrier that axe-core knows of, and the whole main way from the keyboard alone."""

import os
import sys
from pathlib import Path

import pytest

from tests.e2e.explorer import SLOW, Explorer
from tests.tiers import cases
from ui.views.lessons import LESSONS

AXE = Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
TABS = (
    "live", "results", "train", "take", "unit", "closer-reading", "closer-texts", "closer-trust", "closer-layer",
)  # fmt: skip
"""Outer ones first; the last four stand within “Unit”."""


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.exists():
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(f"REQUIRE_BROWSER=1, but {AXE} is not there; make test installs it where there is npm")
        pytest.skip("needs axe-core (make test installs it where there is npm)")
    return AXE.read_text(encoding="utf-8")


def barriers(explorer: Explorer, axe: str) -> list[str]:
    """What axe-core finds against WCAG 2.1 AA: rule, and the elements."""
    explorer.page.evaluate(axe)
    found = explorer.page.evaluate("rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES)[
        "violations"
    ]
    return [f"{rule['id']}: {[node['html'][:160] for node in rule['nodes']][:4]}" for rule in found]


@pytest.mark.long
@pytest.mark.parametrize(
    ("theme", "width"), cases([("light", 1280), ("dark", 1280), ("light", 390)], test=[("dark", 1280)])
)
def test_no_barriers(browser, app_url, axe, theme, width):
    explorer = Explorer(browser, app_url, theme=theme, width=width)
    explorer.prune(1)
    for tab in TABS:
        explorer.page.click(f"#{tab if tab.startswith('closer') else f'part-{tab}'}-button")
        explorer.page.wait_for_timeout(600)
        assert not barriers(explorer, axe), tab
    explorer.page.click("#guide-open")
    for lesson in range(len(LESSONS)):
        assert not barriers(explorer, axe), f"lesson {lesson + 1}, asking"
        explorer.page.locator("#guide article:visible [data-option]").first.click()
        assert not barriers(explorer, axe), f"lesson {lesson + 1}, revealing"
        explorer.page.keyboard.press("ArrowRight")
    explorer.close()


def tab_to(explorer: Explorer, selector: str, presses: int = 160) -> None:
    """Press Tab until the element (or something in it) has the focus."""
    for _ in range(presses):
        explorer.page.keyboard.press("Tab")
        if explorer.page.evaluate(f"!!document.activeElement.closest({selector!r})"):
            return
    raise AssertionError(f"{selector} cannot be reached by Tab")


@pytest.mark.exhaustive
def test_the_main_way_from_the_keyboard_alone(explorer):
    page = explorer.page
    keys = page.keyboard
    tab_to(explorer, "#calibration-source")
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("Enter")
    explorer.reads("estimate", "A run reads")
    tab_to(explorer, "#score-button")
    keys.press("Enter")
    explorer.says("Scored")

    tab_to(explorer, "#part-unit-button")
    keys.press("Enter")
    page.wait_for_selector("#unit", timeout=SLOW)
    page.locator("#score-button").focus()
    tab_to(explorer, "#heads-plot")
    keys.press("ArrowRight")
    explorer.reads("unit", "layer 0, head 0")
    keys.press("ArrowDown")
    keys.press("k")
    explorer.reads("unit", "locked to stay")
    tab_to(explorer, "#attention-sparsity")
    tab_to(explorer, "#mlp-sparsity")
    while page.evaluate("document.activeElement.type") != "range":
        keys.press("Tab")
    explorer.after_change("savings", lambda: keys.press("ArrowRight"))

    page.evaluate("document.body.focus()")
    keys.press("Shift+Tab")
    page.locator("#try-button").focus()
    keys.press("Shift+Tab")
    tab_to(explorer, "#prune-button")
    keys.press("Enter")
    explorer.says("Result 1 is ready")
    tab_to(explorer, "#part-take-button")
    keys.press("Enter")
    page.wait_for_selector("#export-button", timeout=SLOW)
    tab_to(explorer, "#export-button")
    with page.expect_download(timeout=SLOW):
        keys.press("Enter")


@pytest.mark.exhaustive
def test_every_control_has_a_name(explorer):
    for part in ("unit", "results", "train", "take", "live"):
        explorer.page.click(f"#part-{part}-button")
        explorer.page.wait_for_timeout(600)
        assert not unnamed(explorer), part


def unnamed(explorer: Explorer) -> list[str]:
    """The controls in view that nothing names."""
    return explorer.page.evaluate(
        """() => [...document.querySelectorAll('button, input:not([type=hidden]), textarea, select, [role=tab]')]
          .filter((node) => node.getClientRects().length)
          .filter((node) => !(node.innerText?.trim() || node.getAttribute('aria-label') || node.labels?.length
            || node.getAttribute('aria-labelledby') || node.title || node.closest('label')))
          .map((node) => node.outerHTML.slice(0, 120))"""
    )
