"""Real servers as processes, for tests that talk to them over loopback.

Every helper is a context manager: the process is ready when the block is entered and gone when
it is left. One that does not get ready raises `ProcessError` with everything it printed.
"""

import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx
import pytest

_SERVER = Path(__file__).parent / "counterparts" / "authorization_server"
_STOP_TIMEOUT = 10.0


class ProcessError(Exception):
    """A process ended or did not get ready in time; the message contains its output."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


class Process:
    """A started process. Its output, stdout and stderr together, goes to a file."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._log = log
        self._gone = False
        self.argv = list(argv)
        # readline, which debuggers import, exports COLUMNS: output would be folded as on a terminal.
        inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        with log.open("wb") as file:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**inherited, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                # A group of its own, so that stop() also reaches the workers of a server.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status (the negative signal number if killed), None while running."""
        return self._popen.poll()

    @property
    def output(self) -> str:
        """The output of the process so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout: float = _STOP_TIMEOUT) -> int:
        """Wait for the process to end by itself and return its exit status."""
        return self._popen.wait(timeout)

    def stop(self) -> int:
        """Terminate the process, kill it if it does not end in time, and return the exit status."""
        if self.returncode is None:
            self._popen.terminate()
        try:
            return self._popen.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            return self.kill()
        finally:
            self._kill_group()

    def kill(self) -> int:
        """Kill the process and its children and return the exit status."""
        self._kill_group()
        return self._popen.wait()

    def _kill_group(self) -> None:
        if self._gone:
            return
        self._gone = True  # from now on, another process may have the group ID
        if sys.platform == "win32":
            self._popen.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until `ready()`; raise `ProcessError` if the process ends or the time is over."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.returncode is not None:
                raise ProcessError(self._complaint(f"exited with status {self.returncode}"))
            if time.monotonic() > deadline:
                raise ProcessError(self._complaint(f"was not ready after {timeout:g} s"))
            time.sleep(0.02)

    def _complaint(self, what: str) -> str:
        return f"{' '.join(self.argv)}\n{what}; its output:\n{self.output or '(none)'}"


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    *,
    ready_url: str | None = None,
    ready_line: str | None = None,
    ready_port: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 20.0,
) -> Generator[Process, None, None]:
    """Run a program from the time it is ready to the end of the block.

    It is ready when `ready_line` is in its output, `ready_port` of 127.0.0.1 accepts connections
    and `ready_url` gives an answer, whatever its status: those of the three that are given.
    `env` is added to the environment of this process. The output is at hand in the block only.
    """

    def ready() -> bool:
        return (
            (ready_line is None or ready_line in process.output)
            and (ready_port is None or _accepts(ready_port))
            and (ready_url is None or _answers(ready_url))
        )

    # A server may still be writing when it is killed, hence the tolerance.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        process = Process(argv, log=Path(directory) / "output.log", env=env, cwd=cwd)
        try:
            process.wait_until(ready, timeout)
            yield process
        finally:
            process.stop()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=1.0, trust_env=False)
    except httpx.TransportError:
        return False
    return True


# ASGI servers


@dataclass(frozen=True)
class AsgiServer:
    """An ASGI app served on 127.0.0.1."""

    url: str
    """The base URL without a trailing slash."""
    port: int
    process: Process


@contextlib.contextmanager
def uvicorn(
    app: str,
    *,
    app_dir: Path,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
) -> Generator[AsgiServer, None, None]:
    """Serve `app` ("module:name", found in `app_dir`) with uvicorn and further `args`."""
    port = port or free_port()
    argv = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    # A request would reach the app, so readiness is a printed line and an accepted connection. The line alone is early
    # with --workers, and the connection alone may reach another process that has taken the port.
    with running(
        [*argv, *args],
        ready_line="Uvicorn running on",
        ready_port=port,
        env=importing_from(app_dir, env),
    ) as process:
        yield AsgiServer(f"http://127.0.0.1:{port}", port, process)


@contextlib.contextmanager
def hypercorn(
    app: str,
    *,
    app_dir: Path,
    port: int | None = None,
    worker: Literal["asyncio", "trio"] = "asyncio",
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
) -> Generator[AsgiServer, None, None]:
    """Serve `app` ("module:name", found in `app_dir`) with Hypercorn and further `args`."""
    port = port or free_port()
    argv = [sys.executable, "-m", "hypercorn", app, "--bind", f"127.0.0.1:{port}"]
    with running(
        [*argv, "--worker-class", worker, *args],
        ready_line="Running on http",
        ready_port=port,
        env=importing_from(app_dir, env),
    ) as process:
        yield AsgiServer(f"http://127.0.0.1:{port}", port, process)


def importing_from(directory: Path, env: Mapping[str, str] | None) -> dict[str, str]:
    added = dict(env or {})
    path = added.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
    added["PYTHONPATH"] = os.pathsep.join([str(directory), *([path] if path else [])])
    return added


# The authorization server


def why_no_authorization_server() -> str | None:
    """Return what `authorization_server` lacks on this machine, or None if it can run."""
    if shutil.which("node") is None:
        return "The authorization server of the tests needs Node.js (node), 20 or newer."
    missing = missing_packages(_SERVER)
    if not missing:
        return None
    return (
        f"The authorization server of the tests needs the npm packages {', '.join(missing)}. "
        "In the root of the repository, run: npm install --no-package-lock --no-audit "
        "--no-fund --prefix tests/counterparts/authorization_server"
    )


def require_authorization_server() -> None:
    """Skip the test if `authorization_server` cannot run here; in CI, fail it."""
    message = why_no_authorization_server()
    if message is None:
        return
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def missing_packages(directory: Path) -> list[str]:
    """Return the npm packages, with versions, that a package.json pins and its node_modules lacks."""
    pins: dict[str, str] = _load_json(directory / "package.json")["dependencies"]
    wanted = ((name, pin.rpartition("@")[2] if pin.startswith("npm:") else pin) for name, pin in pins.items())
    return [f"{name} {version}" for name, version in wanted if _installed_version(directory, name) != version]


def _installed_version(directory: Path, package: str) -> str | None:
    try:
        version: str = _load_json(directory / "node_modules" / package / "package.json")["version"]
    except FileNotFoundError:
        return None
    return version


def _load_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class AuthorizationServer:
    """A running authorization server, with methods that act as its clients and that change its behaviour."""

    issuer: str
    metadata: dict[str, Any]
    """Its metadata document (RFC 8414): jwks_uri, token_endpoint, ..."""
    process: Process
    _http: httpx.Client

    def client_credentials(self, *, resource: str | None, scope: str | None = "mcp:read") -> str:
        """Return an access token for the client m2m: a JWT, or opaque without a resource."""
        answer = self._token({"grant_type": "client_credentials"}, resource, scope)
        token: str = answer["access_token"]
        return token

    def authorization_code(self, *, resource: str | None, scope: str | None = "mcp:read") -> dict[str, Any]:
        """Get alice's consent for the client native and return the whole token response."""
        redirect_uri = f"http://127.0.0.1:{free_port()}/callback"  # never requested
        verifier = secrets.token_urlsafe(48)
        challenge = hashlib.sha256(verifier.encode()).digest()
        parameters = {
            "response_type": "code",
            "client_id": "native",
            "redirect_uri": redirect_uri,
            "state": secrets.token_urlsafe(),
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **_without_none({"resource": resource, "scope": scope}),
        }
        answer = self._authorize(parameters)
        assert answer["state"] == parameters["state"]
        assert answer["iss"] == self.issuer  # RFC 9207
        request = {
            "grant_type": "authorization_code",
            "client_id": "native",
            "code": answer["code"],
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        return self._token(request, resource)

    def refresh(self, refresh_token: str, *, resource: str | None = None) -> dict[str, Any]:
        """Return the token response to a refresh token; the refresh token cannot be used again."""
        request = {
            "grant_type": "refresh_token",
            "client_id": "native",
            "refresh_token": refresh_token,
        }
        return self._token(request, resource)

    def stats(self) -> dict[str, int]:
        """Return the number of requests by path, those made by this object included."""
        counts: dict[str, int] = self._control("GET", "stats")
        return counts

    def reset_stats(self) -> None:
        """Reset the counts of requests."""
        self._control("POST", "stats")

    def rotate(self, mode: Literal["stage", "roll", "drop", "replace"]) -> list[str]:
        """Change the signing keys and return the published key IDs, the signer's first.

        stage: publish a new key besides the one in use. roll: sign with the staged key, or with
        a new one, and keep publishing the old one. drop: publish only the key in use. replace:
        sign with a new key and publish nothing else, without notice.
        """
        kids: list[str] = self._control("POST", "rotate", {"mode": mode})["kids"]
        return kids

    def fault(
        self,
        path: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        delay_ms: int | None = None,
        destroy: bool | None = None,
        times: int | None = None,
    ) -> None:
        """Make the next `times` (default: all) requests for `path` fail.

        After the delay, if there is one, the connection is cut (`destroy`), or `status` is
        answered with the body (a string as it is, anything else as JSON), or else the real
        answer follows. Faults of the same path take effect in the order they were added.
        """
        fault = {
            "status": status,
            "headers": dict(headers) if headers else None,
            "body": body,
            "delay_ms": delay_ms,
            "destroy": destroy,
            "times": times,
        }
        self._control("POST", "fault", {"path": path, **_without_none(fault)})

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._control("POST", "fault", {})

    def log_out(self, subject: str) -> None:
        """Send the client native a back-channel logout token, and wait for its answer."""
        self._control("POST", "logout", {"sub": subject})

    def private_keys(self) -> list[dict[str, Any]]:
        """Return the private keys (JWK), the one in use first."""
        keys: list[dict[str, Any]] = self._control("GET", "jwks-private")["keys"]
        return keys

    def _authorize(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Act as the browser: follow the redirects until the redirect to the client."""
        url = f"{self.metadata['authorization_endpoint']}?{urlencode(parameters)}"
        with httpx.Client(trust_env=False) as browser:  # one per flow, for its cookies
            for _ in range(10):  # it takes five
                response = browser.get(url)
                if not response.is_redirect:
                    raise AssertionError(f"{url}: {response.status_code} {response.text}")
                url = urljoin(url, response.headers["location"])
                if url.startswith(parameters["redirect_uri"]):
                    answer = {key: v[0] for key, v in parse_qs(urlsplit(url).query).items()}
                    if "code" not in answer:
                        raise AssertionError(f"no authorization: {answer}")
                    return answer
        raise AssertionError(f"too many redirects: {url}")

    def _token(self, request: Mapping[str, str], resource: str | None, scope: str | None = None) -> dict[str, Any]:
        public = "client_id" in request
        response = self._http.post(
            self.metadata["token_endpoint"],
            data={**request, **_without_none({"resource": resource, "scope": scope})},
            auth=httpx.Auth() if public else httpx.BasicAuth("m2m", "m2m-secret"),
        )
        answer: dict[str, Any] = _answer(response)
        return answer

    def _control(self, method: str, action: str, body: object = None) -> Any:
        url = urljoin(self.issuer, f"/__control/{action}")
        return _answer(self._http.request(method, url, json=body))


@contextlib.contextmanager
def authorization_server(
    *,
    alg: str = "RS256",
    ttl: int = 300,
    path: str = "",
    scopes: str = "mcp:read mcp:write mcp:admin",
    port: int | None = None,
    keys: Sequence[Mapping[str, Any]] | None = None,
    ahead: float = 0.0,
    opaque: bool = False,
    logout: str = "",
) -> Generator[AuthorizationServer, None, None]:
    """Run the authorization server; `path` ("/tenant1") becomes part of the issuer.

    Its access tokens are signed with `alg` and live for `ttl` seconds. `port` and `keys` (private
    JWKs, the signer's first) are for one that is restarted; its clock is `ahead` by so many seconds.
    It sends back-channel logout tokens of the client native to `logout`.
    With `opaque`, only the introspection endpoint explains its tokens, to the client rs.
    See `require_authorization_server` for what it takes.
    """
    port = port or free_port()
    issuer = f"http://127.0.0.1:{port}{path}"
    env = {
        "PORT": str(port),
        "ISSUER": issuer,
        "AT_ALG": alg,
        "AT_TTL": str(ttl),
        "SCOPES": scopes,
        "AHEAD": str(ahead),
        "AT_FORMAT": "opaque" if opaque else "jwt",
        "LOGOUT": logout,
        **({"KEYS": json.dumps(list(keys))} if keys else {}),
    }
    with (
        running(
            ["node", str(_SERVER / "server.mjs")],
            ready_line="authorization server ready",
            env=env,
        ) as process,
        httpx.Client(trust_env=False, timeout=10.0) as client,
    ):
        well_known = f"/.well-known/oauth-authorization-server{path}"
        metadata = _answer(client.get(urljoin(issuer, well_known)))
        server = AuthorizationServer(issuer, metadata, process, client)
        server.reset_stats()
        yield server


def _answer(response: httpx.Response) -> Any:
    """Return the JSON of a successful answer; fail the test with the text of any other answer."""
    assert response.is_success, f"{response.request.url}: {response.status_code} {response.text}"
    return response.json()


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
