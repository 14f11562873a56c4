"""Takes the README's picture of a running app: python -m tests.e2e.screenshot http://127.0.0.1:7860/"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.e2e.explorer import Explorer

PICTURE = Path(__file__).resolve().parents[2] / "assets" / "screenshot.png"
_SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def main(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_SWITCHES)
        explorer = Explorer(browser, url)
        explorer.click_row("heads-plot", 0.4)
        explorer.page.wait_for_timeout(1500)
        explorer.page.mouse.move(2, 2)
        explorer.page.wait_for_timeout(500)
        explorer.page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
