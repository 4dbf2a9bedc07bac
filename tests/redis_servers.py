"""A Redis server as processes: alone, with TLS, with Sentinel, as a Cluster; and a slow network before it.

The program is `redis-server`; the environment variable `REDIS_SERVER` names another one, for example `valkey-server`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import anyio
import anyio.abc
from processes import Process, free_port, running
from proxies import require_program

__all__ = ("RedisServer", "cluster", "redis", "sentinel", "slow_network", "wait_for")

SERVER = os.environ.get("REDIS_SERVER", "redis-server")


class RedisServer:
    """One server, and what an operator does to it."""

    def __init__(self, port: int, process: Process) -> None:
        self.port = port
        self.process = process

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def ask(self, *command: str) -> bytes:
        """Return the raw answer to one command."""
        return ask(self.port, *command)

    @contextlib.contextmanager
    def stopped(self) -> Generator[None]:
        """Stop the process with SIGSTOP: connections stay open, and nothing answers."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


def ask(port: int, *command: str) -> bytes:
    message = b"".join(b"$%d\r\n%s\r\n" % (len(part.encode()), part.encode()) for part in command)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"*%d\r\n%s" % (len(command), message))
        return connection.recv(1_000_000)


def wait_for(port: int, command: str, expected: bytes, seconds: float = 20) -> None:
    """Wait until the answer to a command contains some bytes."""
    deadline = time.monotonic() + seconds
    while expected not in (answer := ask(port, *command.split())):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


@contextlib.contextmanager
def redis(directory: Path, *options: str, port: int | None = None) -> Generator[RedisServer]:
    """Run a server without persistence, but for what `options` say."""
    require_program(SERVER, SERVER)
    port = port or free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "", *options]
    with running([SERVER, *arguments], ready_line="Ready to accept connections") as process:
        yield RedisServer(port, process)


@contextlib.contextmanager
def sentinel(directory: Path, server: RedisServer, *settings: str) -> Generator[int]:
    """Run a Sentinel that knows the server as `main`; yield its port. `settings` are settings of `main`."""
    port = free_port()
    lines = [f"port {port}", f"dir {directory}", f"sentinel monitor main 127.0.0.1 {server.port} 1"]
    lines += [f"sentinel {name} main {value}" for name, value in (setting.split() for setting in settings)]
    file = directory / "sentinel.conf"
    file.write_text("\n".join(lines) + "\n")
    with running([SERVER, str(file), "--sentinel"], ready_port=port):
        yield port


@contextlib.contextmanager
def cluster(directory: Path) -> Generator[tuple[int, int]]:
    """Run a Cluster of two nodes; yield their ports. A node has a second port, 10,000 above."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for name, slots in (("a", ("0", "8191")), ("b", ("8192", "16383"))):
            (directory / name).mkdir()
            port = free_port()
            while port > 55_000:
                port = free_port()
            stack.enter_context(redis(directory / name, "--cluster-enabled", "yes", port=port))
            ask(port, "CLUSTER", "ADDSLOTSRANGE", *slots)
            ports.append(port)
        ask(ports[0], "CLUSTER", "MEET", "127.0.0.1", str(ports[1]))
        for port in ports:
            wait_for(port, "CLUSTER INFO", b"cluster_state:ok")
        yield ports[0], ports[1]


@contextlib.asynccontextmanager
async def slow_network(port: int, seconds: float) -> AsyncGenerator[int]:
    """Forward connections to a port of this machine; every byte to the server arrives later. Yield the new port."""

    async def forward(client: anyio.abc.SocketStream) -> None:
        async with client, await anyio.connect_tcp("127.0.0.1", port) as server, anyio.create_task_group() as group:

            async def back() -> None:
                with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    while True:
                        await client.send(await server.receive())

            group.start_soon(back)
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    data = await client.receive()
                    await anyio.sleep(seconds)
                    await server.send(data)
            group.cancel_scope.cancel()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, forward)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()
