"""Real MCP clients that are whole programs: mcp-remote and the MCP Inspector's command line.

Both listen for the browser's return themselves; here a scripted user follows the URL that they print.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import processes
from clients import CLIENTS, Conversation, allow, require_npm_clients

PROGRAM_SECONDS = 45.0
LISTEN_SECONDS = 10.0
URL = re.compile(r"https?://127\.0\.0\.1:\d+/\S*[?&]response_type=code\S*")


def no_browser(directory: Path) -> dict[str, str]:
    """Return an environment in which programs open no browser and store their files in a directory."""
    for name in ("xdg-open", "x-www-browser", "sensible-browser"):
        program = directory / name
        program.write_text("#!/bin/sh\nexit 0\n", encoding="ascii")
        program.chmod(0o755)
    path = f"{directory}:{Path(require_npm_clients()).parent}:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(directory), "BROWSER": "true"}


class User:
    """A watcher of the output of a program: it opens an authorization URL and follows the redirect back."""

    def __init__(self, follow: Callable[[str], str] = allow) -> None:
        self._follow = follow
        self._threads: list[threading.Thread] = []
        self.asked: list[str] = []
        self.returned: list[str] = []
        self.problems: list[Exception] = []

    def watch(self, line: str) -> None:
        """Handle one line of output."""
        found = URL.search(line)
        if found is None or found[0] in self.asked:
            return
        self.asked.append(found[0])
        thread = threading.Thread(target=self._go, args=(found[0],))
        self._threads.append(thread)
        thread.start()

    def _go(self, url: str) -> None:
        try:
            back = self._follow(url)
            self.returned.append(back)
            _visit(back)
        except Exception as problem:  # noqa: BLE001 - raised in the test's own thread, at the end
            self.problems.append(problem)

    def close(self) -> None:
        """Wait until no authorization is in progress."""
        for thread in self._threads:
            thread.join(15)
        if self.problems:
            raise self.problems[0]


def _visit(url: str) -> None:
    """Open a page, and retry while the port is closed: mcp-remote opens it after it has sent its user away."""
    deadline = time.monotonic() + LISTEN_SECONDS
    while True:
        try:
            httpx.get(url, timeout=10, trust_env=False).raise_for_status()
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


class Remote:
    """mcp-remote: an MCP server over stdio in front, and an MCP client with OAuth behind."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._id = 0

    def request(self, method: str, **params: object) -> Any:
        """Return the response to a JSON-RPC request; an error is returned unchanged."""
        self._id += 1
        self._conversation.say({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        while (heard := self._conversation.hear()).get("id") != self._id:
            pass
        return heard

    def initialize(self) -> str:
        """Initialize the session and return the name of the server."""
        info = {"name": "asgi-mcp-auth-tests", "version": "1"}
        answer = self.request("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
        self._conversation.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        name: str = answer["result"]["serverInfo"]["name"]
        return name

    def call(self, tool: str) -> Any:
        """Return the text of a tool's result, or the error."""
        answer = self.request("tools/call", name=tool, arguments={})
        return answer["result"]["content"][0]["text"] if "result" in answer else answer["error"]


@contextlib.contextmanager
def mcp_remote(url: str, directory: Path, user: User, *more: str) -> Generator[Remote]:
    """Run mcp-remote for a protected server's URL, with `more` options."""
    program = CLIENTS / "node_modules" / "mcp-remote" / "dist" / "proxy.js"
    options = [str(processes.free_port()), "--host", "127.0.0.1", "--transport", "http-only", *more]
    env = no_browser(directory) | {"MCP_REMOTE_CONFIG_DIR": str(directory)}
    conversation = Conversation([require_npm_clients(), str(program), url, *options], env, user.watch)
    try:
        yield Remote(conversation)
        user.close()
    finally:
        conversation.end()


def watched(argv: list[str], env: dict[str, str], user: User) -> tuple[int, str]:
    """Run a program to its end, with a user that authorizes; return the exit status and the output."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    ) as process:
        guard = threading.Timer(PROGRAM_SECONDS, process.kill)
        guard.start()
        said: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            user.watch(line)
        status = process.wait(5)
        guard.cancel()
    user.close()
    return status, "".join(said)


def inspector(url: str, tool: str, directory: Path, user: User, *more: str) -> tuple[int, str]:
    """Call a tool with the MCP Inspector's command line; return the exit status, and the tool's text or the output."""
    package = CLIENTS / "node_modules" / "@modelcontextprotocol" / "inspector"
    argv = [require_npm_clients(), str(package / "clients" / "launcher" / "build" / "index.js"), "--cli", url]
    argv += ["--transport", "http", "--method", "tools/call", "--tool-name", tool, "--format", "json", *more]
    settings = {
        "MCP_AUTO_OPEN_ENABLED": "true",
        "MCP_INSPECTOR_SECRET_STORE": "file",
    }  # without a terminal it does not ask
    env = {**os.environ, **no_browser(directory), **settings}
    status, whole = watched(argv, env, user)
    found = re.search(r'"text":\s*"([^"]*)"', whole)
    return status, whole if found is None else found[1]
