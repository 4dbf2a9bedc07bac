"""`load_app`: an app by its import string, protected by a configuration file, in one expression for a server.

It returns a protected app or raises: there is no way to an unprotected one.
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
    """Import an ASGI app and protect it.

    For gunicorn: `wsgi_app = "asgi_mcp_auth:load_app('shop.main:app', config='mcp-auth.toml')"`.

    Args:
        app: `"module:attribute"`, or `"module:factory()"` for what a function without arguments returns.
        config: A TOML file, relative to the working directory; None: the environment says (`MCPAuth.from_env`).

    Raises:
        ConfigurationError: The configuration, or the import string. What the app's module raises itself passes
            through.
    """
    try:
        auth = MCPAuth.from_env() if config is None else MCPAuth.from_toml(config)
        return auth.wrap(_imported(app))
    except ConfigurationError as error:
        raise _for_gunicorn(error) from None


def _imported(app: object) -> Any:
    if not isinstance(app, str):
        raise ConfigurationError([Problem("app", f"{show(app)} is not an import string.", "Write 'module:attribute'.")])
    try:
        return import_object(app)
    except UnusableError as error:
        raise ConfigurationError([Problem("app", error.what, error.fix)]) from error


def _for_gunicorn(error: ConfigurationError) -> ConfigurationError:
    """The same error, of the kinds that gunicorn prints as a message, without a traceback, and stops for.

    `AppImportError` in a worker, `RuntimeError` with preload.
    """
    gunicorn: Any = sys.modules.get("gunicorn.errors")
    if gunicorn is None:
        return error
    kind = type("AppConfigurationError", (ConfigurationError, gunicorn.AppImportError, RuntimeError), {})
    told: ConfigurationError = kind(error.problems)
    return told
