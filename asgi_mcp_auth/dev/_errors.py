"""The errors with which the development authorization server refuses a request.

OAuthError   a JSON error response, or an error redirect from the authorization endpoint
PageError    an HTML page for the person at the browser, where an automatic redirect would be unsafe

Neither error contains a code, a token or a secret.
"""

from __future__ import annotations

from asgi_mcp_auth._oauth.responses import Header

__all__ = ("OAuthError", "PageError")


class OAuthError(Exception):
    """An error of RFC 6749, RFC 7591 or RFC 8707.

    Attributes:
        error: The error code.
        description: A text for the developer, in the characters of RFC 6749 section 5.2, without secrets.
        status: The HTTP status, unless the error is sent by redirect.
        headers: More header fields of the response: `Allow`, `WWW-Authenticate`.
    """

    def __init__(self, error: str, description: str, *, status: int = 400, headers: tuple[Header, ...] = ()) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers

    def members(self) -> dict[str, str]:
        """Return the parameters of the error response."""
        return {"error": self.error, "error_description": self.description}


class PageError(Exception):
    """An error that a person reads on a page.

    Attributes:
        error: The error code, for the log and for a developer who reads the page.
        what: A sentence that says what is wrong.
        fix: A sentence that says how to fix the problem.
        status: The HTTP status.
        return_to: The redirect URI with the error response, as a link for the person to follow. None if the redirect
            URI is unknown.
    """

    def __init__(self, error: str, what: str, fix: str, *, status: int = 400, return_to: str | None = None) -> None:
        super().__init__(f"{error}: {what}")
        self.error = error
        self.what = what
        self.fix = fix
        self.status = status
        self.return_to = return_to
