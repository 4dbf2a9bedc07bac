"""Import path of the types that `mcpauth` documents: re-exports, nothing else."""

from asgi_mcp_auth._verify.verifier import VerifyFunction
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.context import AuthInfo

__all__ = ("AuthInfo", "ResourceServerConfig", "ResourceServerMetadata", "VerifyFunction")
