"""`load_app`: import an app and protect it in one expression, for the command line of a server.

`load_app` returns a protected app or raises; it never returns the app without protection.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from asgi_mcp_auth._policy.problems import show
from asgi_mcp_auth._settings.loader import import_object
from asgi_mcp_auth._settings.reader import UnusableError
from asgi_mcp_auth.auth import MCPAuth, MCPAuthMiddleware
from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = ("load_app",)


def load_app(app: str, config: str | os.PathLike[str] | None = None) -> MCPAuthMiddleware:
    """Return an ASGI app, imported by its import string and protected.

    For gunicorn: `wsgi_app = "asgi_mcp_auth:load_app('shop.main:app', config='mcp-auth.toml')"`.

    Args:
        app: `"module:attribute"`, or `"module:factory()"` for the result of a function without arguments.
        config: The path of a TOML file, relative to the working directory; None to read the environment
            (`MCPAuth.from_env`).

    Raises:
        ConfigurationError: The configuration or the import string is not usable. An exception that the app's module
            raises itself passes through.
    """
    try:
        auth = MCPAuth.from_env() if config is None else MCPAuth.from_toml(config)
        return auth.wrap(_imported(app))
    except ConfigurationError as error:
        raise _for_gunicorn(error) from None


def _imported(app: object) -> object:
    if not isinstance(app, str):
        raise ConfigurationError([Problem("app", f"{show(app)} is not an import string.", "Write 'module:attribute'.")])
    try:
        return import_object(app)
    except UnusableError as error:
        raise ConfigurationError([Problem("app", error.what, error.fix)]) from error


def _for_gunicorn(error: ConfigurationError) -> ConfigurationError:
    """Return the error as a subclass of the exceptions that gunicorn prints without a traceback before it stops.

    gunicorn handles `AppImportError` in a worker and `RuntimeError` with preload.
    """
    gunicorn: Any = sys.modules.get("gunicorn.errors")
    if gunicorn is None:
        return error
    kind = type("AppConfigurationError", (ConfigurationError, gunicorn.AppImportError, RuntimeError), {})
    error_for_gunicorn: ConfigurationError = kind(error.problems)
    return error_for_gunicorn
