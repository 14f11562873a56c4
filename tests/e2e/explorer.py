"""The page as a visitor uses it: the steps by name, and a record of what the browser complained about."""

import time

from playwright.sync_api import Browser, JSHandle, Page, Request, TimeoutError

SLOW = 180_000
"""Milliseconds; far above what a step takes, so that a busy machine fails no test."""


_TABS = {
    "unit": (
        "unit", "locks", "lock-keep", "lock-remove", "lock-free", "unlock-all", "layer-select", "layer-groups",
        "layer-channels", "layer-table", "layer-heads-plot", "layer-channels-plot", "head-channels-plot",
        "distribution-plot", "concentration", "closer", "closer-layer", "closer-reading", "closer-texts",
        "closer-trust", "closer-attention", "attention-text", "attention-summary", "attention-plot", "contrast-unit",
    ),
    "results": (
        "queue-add", "queue-list", "queue-start", "queue-clear",
        "tried", "result-table", "probes-plot", "answers", "answers-of", "answers-kind",
        "answers-table", "prompt", "generate-button", "generation-dense", "generation-pruned",
        "history-table", "history-csv", "pareto-plot", "compare-first", "compare-second", "restore-button",
        "side-by-side", "pair-prompt", "pair-button", "pair-texts", "tasks-table", "map-button", "redundancy-plot",
        "redundancy-note",
    ),
    "train": (
        "recover-shots", "recover-shot-tokens", "recover-tokens", "recover-rate", "recover-loss", "recover-text",
        "recover-estimate", "recover-button", "recover-plot", "recover-note",
    ),
    "take": (
        "export-button", "export-plan", "export-texts", "export-layers", "export-gguf", "export-note", "gguf-type",
        "code-view", "command-view", "settings-link", "settings-address", "push-repository", "push-private",
        "push-replace", "push-button",
        "sign-in",
    ),
    "live": ("live-prompt", "live-masks", "live-dense", "live-masked", "live-next"),
}  # fmt: skip
"""What stands in which tab, by `elem_id`."""


class Explorer:
    """One visitor with the page open."""

    def __init__(
        self, browser: Browser, url: str, *,
        width: int = 1280, theme: str = "light", query: str = "", tab: str | None = None,
    ):  # fmt: skip
        """`tab`: what a closed tab had kept for itself, which a browser gives back when it is reopened."""
        self.url = url
        self.errors: list[str] = []
        self.foreign_requests: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("request", self._note)
        if tab is not None:
            self.page.add_init_script(f"sessionStorage.setItem('transact-tab', {tab!r})")
        self.page.goto(f"{url}?__theme={theme}&{query}")
        self.page.wait_for_selector("#channels-plot .heatmaplayer image", timeout=SLOW)

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.foreign_requests.append(request.url)

    def bring(self, elem_id: str) -> None:
        """Open the tab that holds an element, where one does and another is open."""
        tab = next((tab for tab, held in _TABS.items() if elem_id in held), None)
        if tab is None or self.page.is_visible(f"#part-{tab}"):
            return
        self.page.click(f"#part-{tab}-button")
        self.page.wait_for_selector(f"#{elem_id}", state="attached", timeout=SLOW)

    def click(self, elem_id: str) -> None:
        self.bring(elem_id)
        self.page.click(f"#{elem_id}")

    def text(self, elem_id: str) -> str:
        """What an element shows; gradio's own clock, which it keeps in there unseen, left out."""
        self.bring(elem_id)
        return self.page.evaluate(
            "id => [...document.getElementById(id).children]"
            ".filter(part => !part.matches('[data-testid=status-tracker]')).map(part => part.innerText).join('\\n')",
            elem_id,
        )

    def says(self, words: str) -> str:
        """Wait until the message line holds `words`; the whole sentence."""
        try:
            said = self.wait_until(
                "words => (note => note?.innerText.includes(words) && note.innerText)"
                "(document.querySelector('#message .note'))",
                arg=words,
            )
        except TimeoutError:
            raise AssertionError(
                f"waited for {words!r}; the page says {self.text('message')!r}, progress {self.text('progress')!r}"
            ) from None
        return said.json_value()

    def wait_until(self, expression: str, arg=None) -> JSHandle:
        """Wait until JavaScript is true, with its value.

        It is asked for at intervals: a page that has nothing to draw runs no animation frames, at which Playwright
        would look otherwise.
        """
        return self.page.wait_for_function(expression, arg=arg, polling=100, timeout=SLOW)

    def type_number(self, elem_id: str, value: float) -> None:
        """Type into a slider's number box, as a visitor does, at one go."""
        self.bring(elem_id)
        box = self.page.locator(f"#{elem_id} input[type=number]")
        box.click()
        box.press("Control+a")
        self.page.keyboard.insert_text(str(value))
        box.press("Enter")

    def remove(self, attention: float, mlp: float) -> None:
        """Set both sliders to what they do not stand at yet."""
        for elem_id, share in (("attention-sparsity", attention), ("mlp-sparsity", mlp)):
            self.after_change("savings", lambda elem_id=elem_id, share=share: self.type_number(elem_id, share))

    def fill(self, form: str, **values) -> None:
        """Numbers of a form, typed into the boxes that are called `form`-name."""
        for name, value in values.items():
            self.bring(f"{form}-{name}")
            box = self.page.locator(f"#{form}-{name} input[type=number]").first
            box.click()
            box.press("Control+a")
            self.page.keyboard.insert_text(str(value))
            box.press("Tab")

    def choose(self, elem_id: str, label: str) -> None:
        """Pick an entry of a dropdown."""
        self.bring(elem_id)
        self.page.click(f"#{elem_id} input")
        self.page.get_by_role("option", name=label).click()

    def paste_own_text(self, text: str) -> None:
        """Choose to paste, wait until the sample has left the box, and put `text` there."""
        self.choose("calibration-source", "Paste your own")
        self.wait_until("document.querySelector('#calibration-text textarea').value === ''")
        self.page.locator("#calibration-text textarea").fill(text)

    def name_model(self, source: str) -> None:
        """Type a model's name and press Load."""
        box = self.page.locator("#model-select input")
        box.click()
        box.press("Control+a")
        box.type(source)
        box.press("Enter")
        self.page.click("#load-button")

    def value(self, elem_id: str, box: str = "textarea") -> str:
        """What stands in an element's box."""
        self.bring(elem_id)
        return self.page.input_value(f"#{elem_id} {box}".strip())

    def after_change(self, elem_id: str, act) -> str:
        """Do `act` and wait until the element reads differently; its new text."""
        before = self.text(elem_id)
        act()
        until = time.monotonic() + SLOW / 1000
        while time.monotonic() < until:
            if (now := self.text(elem_id)) != before:
                return now
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{elem_id} still reads {before!r}; the page says {self.text('message')!r}")

    def marks(self, plot_id: str) -> list[float | None]:
        """Horizontal ends of the hatched areas that are drawn now."""
        return self.page.evaluate(
            "id => [...document.querySelector(`#${id} .js-plotly-plot`)._fullData[1].x]"
            ".map(x => Number.isFinite(x) ? Math.round(x * 100) / 100 : null)",
            plot_id,
        )

    def click_at(self, plot_id: str, across: float, down: float) -> None:
        """Click in a figure at shares of its width and height; Plotly needs the pointer to come in first."""
        self.bring(plot_id)
        figure = self.page.locator(f"#{plot_id} .nsewdrag").first
        figure.scroll_into_view_if_needed()
        # the bar that stays in view may lie over what was scrolled to
        self.page.evaluate(
            "id => document.getElementById(id).scrollIntoView({block: 'center', behavior: 'instant'})", plot_id
        )
        box = figure.bounding_box()
        x, y = box["x"] + box["width"] * across, box["y"] + box["height"] * down
        self.page.mouse.move(x - 6, y)
        self.page.wait_for_timeout(200)
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(400)
        self.page.mouse.down()
        self.page.mouse.up()

    def click_row(self, plot_id: str, share: float) -> None:
        """Click in a map at `share` of its height."""
        self.click_at(plot_id, 0.45, share)

    def reads(self, elem_id: str, words: str) -> str:
        """Wait until an element's text holds `words`; the whole text."""
        self.bring(elem_id)
        try:
            said = self.wait_until(
                "([id, words]) => (text => text.includes(words) && text)(document.getElementById(id).innerText)",
                arg=[elem_id, words],
            )
        except TimeoutError:
            shown = self.text(elem_id)
            raise AssertionError(f"waited for {words!r} in {elem_id}; it reads {shown!r}") from None
        return said.json_value()

    def open_tab(self, name: str, holds: str) -> None:
        """Open one of the close-up tabs and wait for what it holds."""
        self.bring("closer")
        self.page.get_by_role("tab", name=name).click()
        self.page.wait_for_selector(f"#{holds}", timeout=SLOW)

    def drawn(self, plot_id: str, expression: str):
        """Wait until a JavaScript expression of `plot`, a drawn figure, is true; its value."""
        self.bring(plot_id)
        return self.wait_until(
            f"(plot => plot && plot._fullData?.length && ({expression}))"
            f"(document.querySelector('#{plot_id} .js-plotly-plot'))"
        ).json_value()

    def rows(self, table_id: str, columns: int) -> list[list[str]]:
        """The cells of a table, row by row."""
        self.bring(table_id)
        self.page.wait_for_selector(f"#{table_id} [role=gridcell]", timeout=SLOW)
        cells = [cell.strip() for cell in self.page.locator(f"#{table_id} [role=gridcell]").all_inner_texts()]
        return [cells[start : start + columns] for start in range(0, len(cells), columns)]

    def results(self) -> list[dict[str, str]]:
        """The table of all results as it stands: by row, what is visible, by the titles of its columns."""
        self.bring("history-table")
        self.page.wait_for_selector("#history-table tbody tr", timeout=SLOW)
        heads, rows = self.page.evaluate(
            "() => [[...document.querySelectorAll('#history-table thead th')], "
            "...[...document.querySelectorAll('#history-table tbody tr')].map(row => [...row.cells])]"
            ".map(cells => cells.slice(1).filter(cell => !cell.hidden).map(cell => cell.innerText.trim()))"
            ".reduce(([heads, rows], cells) => heads ? [heads, [...rows, cells]] : [cells, []], [null, []])"
        )
        return [dict(zip(heads, row, strict=True)) for row in rows]

    def prune(self, number: int, repair: str = "None") -> None:
        """Repair so, prune and measure; the result will have this number."""
        self.choose("repair-select", repair)
        self.page.click("#prune-button")
        self.says(f"Result {number} is ready")

    def close(self) -> None:
        self.page.close()
