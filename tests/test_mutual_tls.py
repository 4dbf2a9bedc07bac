"""Certificate-bound tokens with real TLS: behind nginx in both forms of its header field, and on uvicorn itself.

Client certificates are self-signed: the binding is to the certificate, not to its issuer (RFC 8705 section 6.2).
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
from harness import ISS, R, token
from processes import AsgiServer, free_port, hypercorn, uvicorn
from proxies import certificates, client_certificate, nginx, readme_block, require_program

from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.full

COUNTERPARTS = Path(__file__).parent / "counterparts"
APP = "mutual_tls_app:app"
LINES = 40  # of base64 in a PEM text

# nginx has no variable with the certificate in one line, so a map joins the lines.
CAPTURES = "".join(rf"(?:(?<l{i}>[A-Za-z0-9+/=]+)\n)?" for i in range(LINES))
NGINX = f"""
map $ssl_client_raw_cert $client_cert {{
    "~^-----BEGIN CERTIFICATE-----\\n{CAPTURES}-----END" ":{"".join(f"${{l{i}}}" for i in range(LINES))}:";
    default "";
}}
server {{
    listen 127.0.0.1:{{port}} ssl;
    ssl_certificate {{directory}}/server.pem;
    ssl_certificate_key {{directory}}/server.key;
    ssl_verify_client optional_no_ca;
    location / {{
        proxy_pass http://127.0.0.1:{{upstream}};
        proxy_set_header Host $host;
        proxy_set_header Client-Cert $client_cert;
        proxy_set_header X-Client-Cert $ssl_client_escaped_cert;
    }}
}}
"""

SOURCES: dict[str, dict[str, Any]] = {
    "Client-Cert": {"header": "Client-Cert", "proxies": ["127.0.0.1"]},
    "X-Client-Cert": {"header": "X-Client-Cert", "format": "escaped-pem", "proxies": ["127.0.0.1"]},
}


class Client(NamedTuple):
    """A client with a certificate, and the thumbprint that its tokens contain."""

    certificate: str
    key: str
    thumbprint: str


class Tls(NamedTuple):
    """What the tests share: the files, two clients, and the issuer."""

    directory: Path
    own: Client
    other: Client
    issuer: Issuer

    def get(self, url: str, access: str, client: Client | None = None, **headers: str) -> httpx.Response:
        context = ssl.create_default_context(cafile=self.directory / "root.pem")
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        with httpx.Client(verify=context, trust_env=False) as http:
            return http.get(url, headers={"authorization": f"Bearer {access}", **headers})

    def env(self, source: dict[str, Any]) -> dict[str, str]:
        jwks = json.dumps(self.issuer.jwks())
        return {"RESOURCE": R, "ISSUER": ISS, "JWKS": jwks, "SOURCE": json.dumps(source)}

    def spoofed(self) -> dict[str, str]:
        """Return the fields that a proxy would send for the client's own certificate."""
        pem = Path(self.own.certificate).read_text("ascii")
        return {"Client-Cert": f":{''.join(pem.splitlines()[1:-1])}:", "X-Client-Cert": quote(pem, safe="")}

    def bound(self) -> str:
        return token(self.issuer, cnf={"x5t#S256": self.own.thumbprint})


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    directory = tmp_path_factory.mktemp("mutual-tls")
    certificates(directory)
    own, other = (Client(*client_certificate(directory, name)) for name in ("own", "other"))
    (directory / "clients.pem").write_text(Path(own.certificate).read_text() + Path(other.certificate).read_text())
    return Tls(directory, own, other, Issuer(ISS, algorithms=("ES256",)))


def flags(tls: Tls, prefix: str = "--ssl-") -> list[str]:
    """Return the options of a server that requests client certificates."""
    directory = tls.directory
    files = {"certfile": "server.pem", "keyfile": "server.key", "ca-certs": "clients.pem"}
    return [part for name, file in files.items() for part in (prefix + name, str(directory / file))]


@contextlib.contextmanager
def behind_nginx(tls: Tls, source: dict[str, Any]) -> Generator[tuple[str, AsgiServer]]:
    require_program("nginx", "nginx-light")
    with uvicorn(APP, app_dir=COUNTERPARTS, env=tls.env(source)) as upstream:
        port = free_port()
        config = NGINX.replace("{port}", str(port)).replace("{upstream}", str(upstream.port))
        own = tls.directory / f"nginx-{port}"
        own.mkdir()
        with nginx(config.replace("{directory}", str(tls.directory)), port, own):
            yield f"https://127.0.0.1:{port}/mcp", upstream


@pytest.mark.requirement("RS-150", "RS-151", "RS-153")
@pytest.mark.parametrize("field", SOURCES)
def test_behind_nginx_a_token_needs_its_certificate(tls: Tls, field: str) -> None:
    access, spoofed = tls.bound(), tls.spoofed()
    with behind_nginx(tls, SOURCES[field]) as (url, upstream):
        assert tls.get(url, access, tls.own).status_code == 200
        refused = [tls.get(url, access, client, **fields) for client in (None, tls.other) for fields in ({}, spoofed)]
        assert [answer.status_code for answer in refused] == [401] * 4
        assert tls.get(url, token(tls.issuer)).json()["fields"] == []
        accepted = tls.get(url, token(tls.issuer), None, **spoofed)
        assert accepted.json()["fields"] == [], "nginx replaces the fields of the client"
        # Another peer, without nginx: its field is dropped, and the other one is not configured.
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=transport, trust_env=False) as direct:
            answers = [
                direct.get(f"{upstream.url}/mcp", headers={"authorization": f"Bearer {sent}", **spoofed})
                for sent in (access, token(tls.issuer))
            ]
        assert [answer.status_code for answer in answers] == [401, 200]
        assert answers[1].json()["fields"] == sorted(name.lower() for name in SOURCES if name != field)


@pytest.mark.requirement("RS-150", "RS-151")
def test_uvicorn_reports_certificates_with_the_class_of_the_readme(tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "tls.py").write_text(readme_block("python", "# shop/tls.py"))
    env = tls.env({}) | {"PYTHONPATH": str(tmp_path)}
    args = [*flags(tls), "--ssl-cert-reqs", "1", "--http", "shop.tls:TLSProtocol", "--ws", "none"]
    with uvicorn(APP, app_dir=COUNTERPARTS, env=env, args=args) as server:
        url, access = f"https://127.0.0.1:{server.port}/mcp", tls.bound()
        own = tls.get(url, access, tls.own)
        assert (own.status_code, own.json()["extension"]) == (200, True)
        assert [tls.get(url, access, client).status_code for client in (None, tls.other)] == [401, 401]
        assert tls.get(url, token(tls.issuer)).status_code == 200
        assert "client_certificate_mismatch" in server.process.output


@pytest.mark.requirement("RS-151")
@pytest.mark.parametrize("name", ["uvicorn", "hypercorn"])
def test_a_server_that_does_not_report_certificates_refuses_bound_tokens(tls: Tls, name: str) -> None:
    """If this fails, the server has learnt the ASGI TLS extension: change the README."""
    more: dict[str, tuple[Any, Sequence[str]]] = {
        "uvicorn": (uvicorn, [*flags(tls), "--ssl-cert-reqs", "1"]),
        "hypercorn": (hypercorn, [*flags(tls, "--"), "--verify-mode", "CERT_OPTIONAL"]),
    }
    serve, args = more[name]
    with serve(APP, app_dir=COUNTERPARTS, env=tls.env({}), args=args) as server:
        url = f"https://127.0.0.1:{server.port}/mcp"
        assert tls.get(url, tls.bound(), tls.own).status_code == 401
        assert tls.get(url, token(tls.issuer), tls.own).json() == {"fields": [], "extension": False}
        assert re.search("client_certificate_missing.*no ASGI TLS extension", server.process.output)
