"""The page as a visitor uses it: the steps by name, and a record of what the browser complained about."""

from playwright.sync_api import Browser, Page, Request, TimeoutError

SLOW = 60_000
"""Milliseconds; far above what a step takes, so that a busy machine fails no test."""


class Explorer:
    """One visitor with the page open."""

    def __init__(self, browser: Browser, url: str, *, width: int = 1280, theme: str = "light"):
        self.url = url
        self.errors: list[str] = []
        self.foreign_requests: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("request", self._note)
        self.page.goto(f"{url}?__theme={theme}")
        self.page.wait_for_selector("#channels-plot .heatmaplayer image", timeout=SLOW)

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.foreign_requests.append(request.url)

    def text(self, elem_id: str) -> str:
        return self.page.inner_text(f"#{elem_id}")

    def says(self, words: str) -> str:
        """Wait until the message line holds `words`; the whole sentence."""
        try:
            said = self.page.wait_for_function(
                "words => (text => text.includes(words) && text)(document.querySelector('#message').innerText)",
                arg=words,
                timeout=SLOW,
            )
        except TimeoutError:
            raise AssertionError(
                f"waited for {words!r}; the page says {self.text('message')!r}, progress {self.text('progress')!r}"
            ) from None
        return said.json_value()

    def type_number(self, elem_id: str, value: float) -> None:
        """Type into a slider's number box, as a visitor does."""
        box = self.page.locator(f"#{elem_id} input[type=number]")
        box.click()
        box.press("Control+a")
        box.type(str(value))
        box.press("Enter")

    def choose(self, elem_id: str, label: str) -> None:
        """Pick an entry of a dropdown."""
        self.page.click(f"#{elem_id} input")
        self.page.get_by_role("option", name=label).click()

    def paste_own_text(self, text: str) -> None:
        """Choose to paste, wait until the sample has left the box, and put `text` there."""
        self.choose("calibration-source", "Paste your own")
        self.page.wait_for_function("document.querySelector('#calibration-text textarea').value === ''", timeout=SLOW)
        self.page.locator("#calibration-text textarea").fill(text)

    def name_model(self, source: str) -> None:
        """Type a model's name and press Load."""
        box = self.page.locator("#model-select input")
        box.click()
        box.press("Control+a")
        box.type(source)
        box.press("Enter")
        self.page.click("#load-button")

    def after_change(self, elem_id: str, act) -> str:
        """Do `act` and wait until the element reads differently; its new text."""
        before = self.text(elem_id)
        act()
        self.page.wait_for_function(
            "([id, before]) => document.querySelector('#' + id).innerText !== before",
            arg=[elem_id, before],
            timeout=SLOW,
        )
        return self.text(elem_id)

    def marks(self, plot_id: str) -> list[float | None]:
        """Horizontal ends of the hatched areas that are drawn now."""
        return self.page.evaluate(
            "id => [...document.querySelector(`#${id} .js-plotly-plot`)._fullData[1].x]"
            ".map(x => Number.isFinite(x) ? Math.round(x * 100) / 100 : null)",
            plot_id,
        )

    def click_row(self, plot_id: str, share: float) -> None:
        """Click in a map at `share` of its height; Plotly needs the pointer to come in first."""
        box = self.page.locator(f"#{plot_id} .nsewdrag").first.bounding_box()
        x, y = box["x"] + box["width"] * 0.45, box["y"] + box["height"] * share
        self.page.mouse.move(x - 6, y)
        self.page.wait_for_timeout(200)
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(400)
        self.page.mouse.down()
        self.page.mouse.up()

    def close(self) -> None:
        self.page.close()
