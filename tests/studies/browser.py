"""A page in the system's headless Chromium, driven by Playwright: nothing but files is loaded, and every complaint is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Route, sync_playwright

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@dataclass
class Watched:
    """One page. A request that is not for a file is refused and kept in `requests`; `faults` is what the console had to say."""

    page: Page
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.route("**/*", self._files_only)
        self.page.on("console", self._heard)
        self.page.on("pageerror", self._failed)

    def open(self, path: Path, width: int = 1280) -> Page:
        """Load a file at a width in pixels and wait until its scripts ran."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme="light")
        self.page.goto(path.resolve().as_uri())
        return self.page

    def _files_only(self, route: Route) -> None:
        url = route.request.url
        if url.startswith("file:"):
            route.continue_()
        else:
            self.requests.append(url)
            route.abort()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def _failed(self, error: Error) -> None:
        self.faults.append(str(error))


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium; Playwright's own is not downloaded."""
    assert CHROMIUM is not None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
