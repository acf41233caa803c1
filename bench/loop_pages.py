"""Pictures of the page while the loop runs, in both languages; nothing where Chromium or playwright is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Pages"]

_LOOKS = {"en": ("en-GB", "light"), "zh": ("zh-CN", "dark")}


class Pages:
    """Takes pictures.

    Args:
        into: The folder for them.
        wanted: Whether there are to be any.

    Attributes:
        taken: File names of the pictures.
    """

    def __init__(self, into: Path, *, wanted: bool = True) -> None:
        self.taken: list[str] = []
        self._into = into
        self._chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        self._playwright: Any = None
        self._browser: Any = None
        if not wanted:
            return
        if self._chromium is None or importlib.util.find_spec("playwright") is None:
            print("no pictures of the page: they take Chromium and playwright (apt-get install chromium)")
            return
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        arguments = ["--no-sandbox"] * (os.geteuid() == 0)
        self._browser = self._playwright.chromium.launch(executable_path=self._chromium, args=arguments)

    def close(self) -> None:
        """End the browser."""
        if self._browser is not None:
            self._browser.close()
            self._playwright.stop()
            self._browser = None

    def tried(self, address: str, text: str, name: str) -> None:
        """A text that is asked, its answer, and why."""

        def ask(page: Any) -> None:
            page.get_by_role("textbox").first.fill(text)
            page.locator("form button[type=submit].main").first.click()
            page.locator(".shaded").wait_for()

        self._both(address, name, ask)

    def label(self, address: str, name: str) -> None:
        """A question to the labeller."""
        self._both(address, name, lambda page: _go(page, "#label", ".asked"))

    def board(self, address: str, name: str) -> None:
        """The board."""
        self._both(address, name, lambda page: _go(page, "#board", ".history"))

    def _both(self, address: str, name: str, act: Callable[[Any], None]) -> None:
        if self._browser is None:
            return
        for language in _LOOKS:
            with self._opened(address, language) as page:
                act(page)
                page.wait_for_timeout(300)
                self._into.mkdir(parents=True, exist_ok=True)
                file = f"{name}-{language}.png"
                page.screenshot(path=self._into / file, full_page=True)
                self.taken.append(file)

    @contextmanager
    def _opened(self, address: str, language: str) -> Iterator[Any]:
        locale, scheme = _LOOKS[language]
        context = self._browser.new_context(locale=locale, color_scheme=scheme, viewport={"width": 1180, "height": 800})
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.goto(address)
        page.locator("#which").wait_for()
        yield page
        context.close()


def _go(page: Any, view: str, there: str) -> None:
    page.click(f"a[href='{view}']")
    page.locator(there).first.wait_for()
