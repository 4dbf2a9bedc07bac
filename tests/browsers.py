"""Debian's chromium, headless, driven by Playwright."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Generator
from typing import Any

import pytest

CHROMIUM = "/usr/bin/chromium"
FLAGS = [  # root needs the first; the others keep it from calling home
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-default-apps", "--disable-sync", "--no-first-run", "--no-default-browser-check"),
]


def require_chromium() -> None:
    """Skip the test if there is no browser; in CI, fail it."""
    lacking = [
        what
        for what, there in (
            ("apt-get install chromium", shutil.which(CHROMIUM) is not None),
            ("pip install playwright", importlib.util.find_spec("playwright") is not None),
        )
        if not there
    ]
    if not lacking:
        return
    message = f"The browser tests need chromium and Playwright: {' and '.join(lacking)}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@contextlib.contextmanager
def browser() -> Generator[Any]:
    """A browser, to the end of the block."""
    require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield running
        finally:
            running.close()


@contextlib.contextmanager
def page(**options: Any) -> Generator[Any]:
    """A page in a browser of its own; every wait ends after 15 seconds."""
    with browser() as running:
        opened = running.new_page(**options)
        opened.set_default_timeout(15_000)
        yield opened
