"""How quick the page feels, measured in a browser, on scores of random numbers in the shape of a large model.

    python -m benchmarks.interface [--moves 40] [--visits 5]

- From a slider's move to painted marks in both maps and new savings, at 32 layers x 32 heads x 11,008 channels;
  target: median under 150 ms. And the same on the bundled model.
- From the browser's request to drawn maps; target: under 3 s.

Needs Debian's chromium and Playwright (requirements-dev.txt).
"""

import argparse
import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, Page, sync_playwright
from transformers import AutoConfig

import transact as ta
from benchmarks.harness import median, publish, table
from ui.application import build, launch_options
from ui.state.session import ModelKey, Sampling, Scored
from ui.text_sources.text_source import TextSource

_SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_DRAWN = "#channels-plot .heatmaplayer image"
_MOVE = """([slider, value]) => new Promise((resolve) => {
  const plots = ["heads-plot", "channels-plot"].map((id) => document.querySelector(`#${id} .js-plotly-plot`));
  const waits = slider === "attention-sparsity" ? plots.slice(0, 1) : plots.slice(1);
  const range = document.querySelector(`#${slider} input[type=range]`);
  const began = performance.now();
  const savings = new Promise((done) => {
    const watcher = new MutationObserver(() => { watcher.disconnect(); done(); });
    watcher.observe(document.querySelector("#savings"), {subtree: true, childList: true, characterData: true});
  });
  const marks = waits.map((plot) => new Promise((done) => plot.once("plotly_restyle", done)));
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(range, value);
  range.dispatchEvent(new Event("input", {bubbles: true}));
  Promise.all([savings, ...marks]).then(() => requestAnimationFrame(() => setTimeout(
    () => resolve(performance.now() - began), 0)));
})"""
"""Moves a slider as a hand does; resolves with milliseconds once both are changed and the next frame is painted."""


def synthetic() -> Scored:
    """Random scores for LLaMA-2-7B's shape; no weights."""
    config = AutoConfig.for_model(
        "llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    )
    spec = ta.ModelSpec.from_config(config)
    scores = {metric: ta.ImportanceScores.random(spec) for metric in ta.METRICS}
    return Scored(
        key=ModelKey("random scores"),
        spec=spec,
        text=TextSource("random", ("none",), "sample"),
        sampling=Sampling(),
        calibration=ta.CalibrationSet.from_token_ids([[1, 2, 3]]),
        tokenizer=None,
        seconds=0.0,
        statistics=None,
        scores=scores,
    )


@contextlib.contextmanager
def served(opening: Scored | None) -> Iterator[str]:
    page = build(opening)
    _, url, _ = page.launch(
        server_name="127.0.0.1", server_port=None, prevent_thread_lock=True, quiet=True, **launch_options()
    )
    try:
        yield url
    finally:
        page.close()


def visited(browser: Browser, url: str) -> tuple[Page, float]:
    """A page in a profile of its own, and seconds from asking for it to drawn maps."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(url)
    page.wait_for_selector(_DRAWN, timeout=60_000)
    return page, page.evaluate("performance.now()") / 1000


def measured(name: str, opening: Scored | None, browser: Browser, moves: int, visits: int) -> dict:
    with served(opening) as url:
        paints = []
        for _ in range(visits):
            page, seconds = visited(browser, url)
            paints.append(seconds)
            page.context.close()
        page, _ = visited(browser, url)
        page.wait_for_timeout(3000)
        taken = {"attention-sparsity": [], "mlp-sparsity": []}
        for turn in range(moves):
            for slider, values in (("attention-sparsity", ("0.5", "0.25")), ("mlp-sparsity", ("0.6", "0.3"))):
                taken[slider].append(page.evaluate(_MOVE, [slider, values[turn % 2]]))
                page.wait_for_timeout(400)  # what follows a moment later is not part of the move
        page.context.close()
    everything = sorted(taken["attention-sparsity"] + taken["mlp-sparsity"])
    return {
        "model": name,
        "first_paint_seconds": median(paints),
        "attention_milliseconds": median(taken["attention-sparsity"]),
        "mlp_milliseconds": median(taken["mlp-sparsity"]),
        "move_milliseconds": median(everything),
        "move_milliseconds_90th": everything[int(0.9 * len(everything))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=40, help="moves of each slider")
    parser.add_argument("--visits", type=int, default=5, help="page loads that the first paint is the median of")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_SWITCHES)
        rows = [
            measured(name, opening, browser, arguments.moves, arguments.visits)
            for name, opening in (("32 x 32 x 11,008, random scores", synthetic()), ("bundled", None))
        ]
        browser.close()
    text = table(
        ["shape", "first paint", "heads slider", "channels slider", "both, median", "both, 90 %"],
        [
            [
                row["model"],
                f"{row['first_paint_seconds']:.2f} s",
                f"{row['attention_milliseconds']:.0f} ms",
                f"{row['mlp_milliseconds']:.0f} ms",
                f"{row['move_milliseconds']:.0f} ms",
                f"{row['move_milliseconds_90th']:.0f} ms",
            ]
            for row in rows
        ],
    )
    publish("interface", "From a slider's move to painted marks and savings", text, {"rows": rows})


if __name__ == "__main__":
    main()
