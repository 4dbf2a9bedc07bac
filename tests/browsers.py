"""Debian's chromium, headless, driven by Playwright."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = [  # root needs the first; the others prevent requests of the browser's own
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
def browser() -> Generator[Browser]:
    """Run a browser until the end of the block."""
    require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield running
        finally:
            running.close()


@contextlib.contextmanager
def page(**options: Any) -> Generator[Page]:
    """A page in a separate browser."""
    with browser() as running, page_of(running, **options) as opened:
        yield opened


@contextlib.contextmanager
def page_of(running: Browser, **options: Any) -> Generator[Page]:
    """Open a page with separate cookies; every wait ends after 15 seconds."""
    context = running.new_context(**options)
    try:
        context.set_default_timeout(15_000)
        yield context.new_page()
    finally:
        context.close()


# For each visible text: the text, and the contrast of its colour with the background (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const solid = (color) => (color.length < 4 || color[3] === 1);
  const over = (front, back) => front.slice(0, 3).map((v, i) => v * (front[3] ?? 1) + back[i] * (1 - (front[3] ?? 1)));
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      layers.push(color);
      if (solid(color)) break;
    }
    const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255];
    return layers.reverse().reduce((back, front) => over(front, back), canvas);
  };
  const luminance = (color) => {
    const [r, g, b] = color.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join(' ').trim();
    if (!own || !element.checkVisibility()) continue;
    const back = behind(element);
    const [light, dark] = [luminance(back), luminance(over(numbers(getComputedStyle(element).color), back))].sort((a, b) => b - a);
    found.push([own, (light + 0.05) / (dark + 0.05)]);
  }
  return found;
}"""
