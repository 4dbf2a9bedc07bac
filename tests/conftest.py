"""Fixtures for every test: event loops, no blocking call inside the package, and a clock that tests set."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import sys
from collections import Counter
from collections.abc import Generator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import requirements
from blockbuster import BlockBuster, blockbuster_ctx
from harness import ISS, Clock

from asgi_mcp_auth._keys.http import Fetcher
from asgi_mcp_auth.testing import Issuer

if TYPE_CHECKING:
    from clinic import Clinic
    from flows import Documents, World

pytest.register_assert_rewrite(
    "asgi_mcp_auth.testing.fixtures"
)  # a plugin of test_testing_fixtures, imported by others

Fetcher()  # loads httpx here, because loading blocks and some tests construct an MCPAuth inside an event loop

for httpx_transports in ("httpx._transports.default", "httpx2._transports.default"):
    # Each client loads the certificate store, even for http only; loading it once for all tests is faster.
    transports: Any = import_module(httpx_transports)
    transports.create_ssl_context = functools.cache(transports.create_ssl_context)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # inherited from a shell that runs the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run every server, framework, event loop, client and browser")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Use one process per processor for the whole suite, and no processes for selected tests, which then start sooner."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    return None if everything else 0


@pytest.hookimpl(tryfirst=True)  # before -k selects by requirement id
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    requirements.mark(config, items)
    if config.getoption("full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("full") is None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    requirements.check(item)


@pytest.fixture(autouse=True)
def _default_log_level() -> None:
    """Some frameworks configure the root logger when an app is made, so that later tests would see more records."""
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(autouse=True, scope="session")
def _no_blocking_calls() -> Generator[BlockBuster]:
    with blockbuster_ctx("asgi_mcp_auth") as blockbuster:
        measuring: Any = "coverage" in sys.modules and sys.modules["coverage"].Coverage.current()
        if measuring:  # coverage takes a lock of its own on every call, from the frame that it measures
            acquire, own = blockbuster.functions["threading.Lock.acquire"], measuring._collector.data_lock
            may_block = acquire.can_block_predicate
            acquire.deactivate()

            def may(lock: Any, *args: Any, **keywords: Any) -> bool:
                return lock is own or may_block(lock, *args, **keywords)

            acquire.can_block_predicate = may
            acquire.activate()
        yield blockbuster


@pytest.fixture
def blocking_calls(_no_blocking_calls: BlockBuster) -> Generator[None]:
    """Allow blocking calls, for code that does not run in a server."""
    _no_blocking_calls.deactivate()
    yield
    _no_blocking_calls.activate()


LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
if sys.version_info >= (3, 12):

    def eager_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    LOOPS["eager tasks"] = ("asyncio", {"loop_factory": eager_loop})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests on asyncio; tests marked `every_loop` on trio too, and with `--full` on uvloop and with eager tasks."""
    own = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "anyio_backend" not in metafunc.fixturenames or any("anyio_backend" in names for names in own):
        return
    marked = metafunc.definition.get_closest_marker("every_loop") is not None
    names = [
        name if name in {"asyncio", "trio"} else pytest.param(name, marks=pytest.mark.full)
        for name in (LOOPS if marked else ["asyncio"])
    ]
    metafunc.parametrize("anyio_backend", names, indirect=True, scope="function")


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return LOOPS[getattr(request, "param", "asyncio")]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def _keys() -> Issuer:
    """Generate keys once for all tests, because key generation is the slow part of an issuer."""
    return Issuer(ISS, algorithms=("RS256", "ES256", "Ed25519"))


@pytest.fixture
def issuer(_keys: Issuer, clock: Clock) -> Issuer:
    """The issuer `ISS` on the test's clock; it signs with RS256, and its other keys are ES256 and Ed25519."""
    fresh = Issuer(ISS, algorithms=(), clock=clock)
    fresh.keys = list(_keys.keys)
    return fresh


@pytest.fixture(scope="session")
def _clinic() -> Generator[Clinic]:
    from clinic import opened  # only the tests of the doctor need it

    with opened() as clinic:
        yield clinic


@pytest.fixture
def clinic(_clinic: Clinic) -> Clinic:
    """An issuer and a resource on real servers, without faults."""
    _clinic.heal()
    return _clinic


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Generator[Documents]:
    """A server of a client id metadata document."""
    from flows import serving_documents  # only the tests with real clients need it

    with serving_documents(tmp_path_factory.mktemp("documents")) as made:
        yield made


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory, documents: Documents) -> Generator[World]:
    """An authorization server that trusts the certificate authority of the documents' server."""
    from flows import world

    with world(tmp_path_factory.mktemp("world"), SSL_CERT_FILE=str(documents.trusted)) as made:
        yield made


@pytest.fixture
def here(_world: World) -> World:
    """An authorization server and a protected MCP server, with an empty journal."""
    _world.forget()
    return _world


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each skip reason once, with the number of skipped tests."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
