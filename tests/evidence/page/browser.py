"""A real browser without a window: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; skip the test where there is none, or nothing that drives it."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (setup.sh dev)")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} (apt-get install chromium)")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield started
        started.close()


GO = """(link) => new Promise((done) => {
  addEventListener("hashchange", done, { once: true });
  location.hash = link;
}).then(() => null)"""


class Tab:
    """A tab that keeps all that must not happen: errors, warnings, dialogs, requests to anywhere."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.page = browser.new_page(
            viewport={"width": 1200, "height": 900}, accept_downloads=True, **options
        )
        self.page.set_default_timeout(20_000)
        self.troubles: list[str] = []
        self.page.on("console", lambda x: self.troubles.append(f"{x.type}: {x.text}"))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.troubles.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda x: self._asked(x.url))

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "blob:", "data:")):
            self.troubles.append(url)

    def open(self, file: Path, link: str = "") -> None:
        """Open the page and wait until it is drawn."""
        self.page.goto("about:blank")
        self.page.goto(f"file://{file}#{link}")
        self.page.wait_for_selector("html[data-ready]", timeout=20_000)

    def show(self, file: Path, link: str = "") -> None:
        """Show a place of the page, which is loaded only where it is not open yet."""
        if not self.page.url.startswith(f"file://{file}"):
            self.open(file, link)
            return
        self.page.evaluate("document.activeElement.blur()")
        if self.page.url.partition("#")[2] != link:
            self.page.evaluate(GO, link)

    def hash(self) -> dict[str, str]:
        """Return what the address says was chosen."""
        return dict(self.page.evaluate("[...new URLSearchParams(location.hash.slice(1))]"))

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that a selector names."""
        return self.page.eval_on_selector_all(selector, "all => all.map((one) => one.textContent)")

    def saved(self, panel: str, kind: str) -> str:
        """Download a panel; return the file's text."""
        with self.page.expect_download() as waiting:
            self.page.click(f"#{panel} [data-save={kind}]")
        assert waiting.value.suggested_filename == f"toyqs-{panel}.{kind}"
        return Path(waiting.value.path()).read_text(encoding="utf-8")
