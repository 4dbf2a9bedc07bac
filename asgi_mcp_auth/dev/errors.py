"""How a request to the development authorization server is refused.

OAuthError     at an endpoint that answers JSON; at the authorization endpoint: by redirect
PageRefused    where nobody can be redirected to: an HTML page for the person at the browser

Neither ever carries a code, a token or a secret.
"""

from __future__ import annotations

from typing import ClassVar

from asgi_mcp_auth._policy.responses import Header

__all__ = ("OAuthError", "PageRefused")


class OAuthError(Exception):
    """An error of RFC 6749, 7591 or 8707.

    Attributes:
        error: The code.
        description: For the developer, in the characters of RFC 6749 section 5.2; it quotes no secret.
        status: The HTTP status, where the answer is not a redirect.
        headers: Header fields that go with it: `Allow`, `WWW-Authenticate`.
    """

    def __init__(self, error: str, description: str, *, status: int = 400, headers: tuple[Header, ...] = ()) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers

    def members(self) -> dict[str, str]:
        """As it is sent."""
        return {"error": self.error, "error_description": self.description}


class PageRefused(Exception):  # noqa: N818 - the names of the tree say what is shown
    """A page that says what is wrong, and what to do about it.

    Attributes:
        error: A code, for the log and for the developer who reads the page.
        what: What is wrong, in a sentence.
        fix: What to do about it.
        status: The HTTP status.
    """

    TITLE: ClassVar[str] = "This request cannot be answered"

    def __init__(self, error: str, what: str, fix: str, *, status: int = 400) -> None:
        super().__init__(f"{error}: {what}")
        self.error = error
        self.what = what
        self.fix = fix
        self.status = status
