"""The tables of the READMEs that derive from declarations. `python tests/readme_tables.py` writes them.

A table stands between `<!-- table NAME -->` and `<!-- end -->`. tests/test_readme.py fails if one is not current.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from asgi_mcp_auth import (
    ApiKeys,
    AuthServerConfig,
    Choose,
    ClientCertificates,
    DPoPSettings,
    EventTransmitter,
    Introspection,
    ResourceServerMetadata,
    ScopePolicy,
    TokenExchange,
    TrustedTokenHeader,
)
from asgi_mcp_auth._options import MCPAuthOptions, ShorthandOptions, declared
from asgi_mcp_auth.config import DEFAULT_ALGORITHMS, JWKSCacheSettings, ScopeRule
from asgi_mcp_auth.dev import DevServer, Switch
from asgi_mcp_auth.doctor import CODES

__all__ = ("DEV_FLAGS", "PACKAGE", "TABLES", "arguments", "filled")

PACKAGE = Path(__file__).parent.parent / "asgi_mcp_auth"
"""The sources; the tests may run with the installed package."""

DEV_FLAGS: Mapping[str, str] = {
    "issuer": "`--host`, `--port`, `--path`, `--issuer`",
    "resources": "`--resource`",
    "scopes": "`--scope`",
    "default_scopes": "`--default-scope`",
    "users": "`--user`",
    "auto_approve": "`--auto-approve`",
    "clients": "`--clients`, `--curl-secret`",
    "registration": "`--no-registration`",
    "default_auth_method": "`--default-auth-method`",
    "private_schemes": "`--no-private-schemes`",
    "strict_application_type": "`--strict-application-type`",
    "client_documents": "`--no-cimd`",
    "insecure_client_documents": "`--insecure-cimd`",
    "oidc": "`--no-oidc`",
    "algorithms": "`--algorithm`",
    "dialect": "`--dialect`",
    "faults": "`--fault`",
    "token_lifetime": "`--token-lifetime`",
    "refresh_lifetime": "`--refresh-lifetime`",
    "code_lifetime": "`--code-lifetime`",
    "state": "`--state`",
    "dangerously_allow_remote": "`--dangerously-allow-remote`",
}
"""The options of `asgi-mcp-auth dev-server` by the parameter of `DevServer` that they set."""


def arguments(docstring: str | None, section: str = "Args") -> dict[str, str]:
    """Return what a Google-style docstring says about each parameter."""
    body = re.search(rf"^{section}:\n((?:    .*\n|\n)+)", inspect.cleandoc(docstring or "") + "\n", flags=re.MULTILINE)
    entries = re.split(r"^(?=\S)", textwrap.dedent(body[1]), flags=re.MULTILINE) if body else []
    found: dict[str, str] = {}
    for entry in filter(None, map(str.strip, entries)):
        names, _, meaning = entry.partition(": ")
        for name in names.split(", "):
            found[name.strip("*")] = " ".join(meaning.split())
    return found


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _shown(default: object) -> str:
    if default is dataclasses.MISSING:
        return "required"
    if default is DEFAULT_ALGORITHMS:
        return "`DEFAULT_ALGORITHMS`"
    if isinstance(default, (JWKSCacheSettings, ScopePolicy)):
        return f"`{type(default).__name__}()`"
    return "`time.time`" if default is time.time else f"`{default!r}`".replace("'", '"')


def _declared(options: type[Any]) -> str:
    rows = ((f"`{name}`", _shown(option.default), option.meaning) for name, option in declared(options).items())
    return _table(("option", "default", "meaning"), rows)


def _fields(values: type[Any]) -> str:
    meanings = arguments(values.__doc__)
    rows: list[tuple[str, str, str]] = []
    for field in dataclasses.fields(values):
        default = field.default_factory() if callable(field.default_factory) else field.default
        rows.append((f"`{field.name}`", _shown(default), meanings.get(field.name, "a member of RFC 9728")))
    return _table(("field", "default", "meaning"), rows)


def _dev_options() -> str:
    meanings = arguments(DevServer.__doc__) | arguments(DevServer.__init__.__doc__)
    parameters = dict(inspect.signature(DevServer.__init__).parameters)
    del parameters["self"]
    rows = (
        (f"`{name}`", DEV_FLAGS.get(name, "none"), _shown(parameter.default), meanings[name])
        for name, parameter in parameters.items()
    )
    return _table(("option of `DevServer`", "option of the command", "default", "meaning"), rows)


def _faults() -> str:
    return _table(("fault", "what is wrong"), ((f"`{switch.value}`", switch.meaning) for switch in Switch))


def _codes() -> str:
    rows = ((f"`{code.name}`", code.severity, code.means, code.fix) for code in CODES)
    return _table(("code", "severity", "what was found", "how to fix it"), rows)


TABLES: Mapping[str, tuple[Path, Callable[[], str]]] = {
    "options": (PACKAGE / "README.md", lambda: _declared(MCPAuthOptions)),
    "shorthand": (PACKAGE / "README.md", lambda: _declared(ShorthandOptions)),
    "AuthServerConfig": (PACKAGE / "README.md", lambda: _fields(AuthServerConfig)),
    "JWKSCacheSettings": (PACKAGE / "README.md", lambda: _fields(JWKSCacheSettings)),
    "ResourceServerMetadata": (PACKAGE / "README.md", lambda: _fields(ResourceServerMetadata)),
    "ScopePolicy": (PACKAGE / "README.md", lambda: _fields(ScopePolicy)),
    "ScopeRule": (PACKAGE / "README.md", lambda: _fields(ScopeRule)),
    "Choose": (PACKAGE / "README.md", lambda: _fields(Choose)),
    "Introspection": (PACKAGE / "README.md", lambda: _fields(Introspection)),
    "TrustedTokenHeader": (PACKAGE / "README.md", lambda: _fields(TrustedTokenHeader)),
    "EventTransmitter": (PACKAGE / "README.md", lambda: _fields(EventTransmitter)),
    "TokenExchange": (PACKAGE / "README.md", lambda: _fields(TokenExchange)),
    "ApiKeys": (PACKAGE / "README.md", lambda: _fields(ApiKeys)),
    "DPoPSettings": (PACKAGE / "README.md", lambda: _fields(DPoPSettings)),
    "ClientCertificates": (PACKAGE / "README.md", lambda: _fields(ClientCertificates)),
    "doctor-codes": (PACKAGE / "doctor" / "README.md", _codes),
    "dev-options": (PACKAGE / "dev" / "README.md", _dev_options),
    "dev-faults": (PACKAGE / "dev" / "README.md", _faults),
}


def filled(text: str, name: str, table: str) -> str:
    """Return the text with this table between its markers."""
    before, marker, rest = text.partition(f"<!-- table {name} -->\n")
    if not marker:
        msg = f"There is no <!-- table {name} -->."
        raise ValueError(msg)
    return f"{before}{marker}\n{table}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


if __name__ == "__main__":
    for table_name, (path, make) in TABLES.items():
        path.write_text(filled(path.read_text("utf-8"), table_name, make()), "utf-8")
