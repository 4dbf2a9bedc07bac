"""gunicorn for server.py, protected by mcp-auth.toml.

    RESOURCE=https://api.example.com/mcp ISSUER=https://auth.example.com gunicorn

Needs gunicorn, and server.py and mcp-auth.toml in the working directory.
"""

bind = "127.0.0.1:8000"
workers = 2
worker_class = "asgi"  # or "uvicorn_worker.UvicornWorker"
wsgi_app = "asgi_mcp_auth:load_app('server:app', config='mcp-auth.toml')"
limit_request_field_size = 16384  # long tokens: gunicorn rejects header fields of more than 8,190 bytes by default
