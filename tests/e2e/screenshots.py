"""Takes the README's pictures of the running app: python -m tests.e2e.screenshots (or: make screenshots)"""

import tempfile
from pathlib import Path

from tests.e2e.explorer import Explorer
from tests.e2e.server import ROOT, chromium, running_app

PICTURES = ROOT / "assets" / "screenshots"


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder) / "app.log") as url, chromium() as browser:
        explorer = Explorer(browser, url)
        look(explorer)
        choose(explorer)
        compare(explorer)


def look(explorer: Explorer) -> None:
    """Both maps with a head selected and one locked, as a visitor sees them first."""
    explorer.remove(0.25, 0.5)
    explorer.click_at("heads-plot", 0.44, 0.42)
    explorer.reads("unit", "layer 2, head 3")
    explorer.click("lock-keep")
    explorer.reads("unit", "locked to stay")
    explorer.bring("live-masked")
    explorer.wait_until("document.querySelectorAll('#live-masked mark').length > 0")
    taken(explorer, "look", "#title")


def choose(explorer: Explorer) -> None:
    """The close-up of a layer, and where two texts differ."""
    explorer.click_at("channels-plot", 0.1, 0.42)
    explorer.reads("unit", "channel")
    explorer.open_tab("Two texts", "second-select")
    explorer.click("second-button")
    explorer.reads("contrast-summary", "addition against mixed")
    taken(explorer, "texts", "#closer")
    explorer.open_tab("Layer close up", "layer-detail")
    taken(explorer, "choose", "#layer-detail")


def compare(explorer: Explorer) -> None:
    """Several results, the front, and the redundancy map."""
    settings = ((0.25, 0.5, "Best"), (0.25, 0.5, "None"), (0.5, 0.25, "Best"), (0, 0.3, "Best"))
    for number, (attention, mlp, repair) in enumerate(settings, start=1):
        explorer.type_number("attention-sparsity", attention)
        explorer.type_number("mlp-sparsity", mlp)
        explorer.page.wait_for_timeout(1000)
        explorer.prune(number, repair)
    explorer.click("map-button")
    explorer.reads("redundancy-note", "40 of 40")
    taken(explorer, "compare", "#pareto-plot")


def taken(explorer: Explorer, name: str, at: str) -> None:
    """A picture of the window with `at` below the bar and the verdict, which stay in view."""
    explorer.page.mouse.move(2, 2)
    explorer.page.evaluate(
        "at => { const top = document.querySelector(at).getBoundingClientRect().top + scrollY;"
        " scrollTo({top: Math.max(0, top - 220), behavior: 'instant'}); }",
        at,
    )
    explorer.page.wait_for_timeout(1200)
    explorer.page.screenshot(path=PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
