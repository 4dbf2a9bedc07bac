"""The types of a configuration and of a verified caller, where users of `mcpauth` look for them."""

from asgi_mcp_auth._verify.verifier import VerifyFunction
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.context import AuthInfo

__all__ = ("AuthInfo", "ResourceServerConfig", "ResourceServerMetadata", "VerifyFunction")
