"""`python -m asgi_mcp_auth`."""

import sys

from asgi_mcp_auth.cli import main

if __name__ == "__main__":
    sys.exit(main())
