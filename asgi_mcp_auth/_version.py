"""The version of the package: one place for the build, `asgi_mcp_auth.__version__` and the User-Agent header."""

__all__ = ("__version__",)

__version__ = "0.1.0"
