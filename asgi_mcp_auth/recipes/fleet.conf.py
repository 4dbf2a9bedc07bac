"""gunicorn for several workers that share state in Redis, with server.py and fleet.toml.

    RESOURCE=https://api.example.com/mcp ISSUER=https://auth.example.com \
    REDIS_URL=rediss://user:password@redis.internal:6380/0 SHARED_SECRET=$(cat secret) gunicorn -c fleet.conf.py

Needs gunicorn, uvicorn-worker, redis, and server.py and fleet.toml in the working directory. Every machine gets the
same SHARED_SECRET. Alert on these lines:

    logger asgi_mcp_auth.stores, ERROR     the database does not answer, or is full
    logger asgi_mcp_auth.stores, WARNING   the database may drop entries: set maxmemory-policy noeviction
    reason store_unavailable               requests get 503
    event keys_unavailable                 no process holds usable keys of an issuer
"""

bind = "127.0.0.1:8000"
workers = 4
worker_class = "uvicorn_worker.UvicornWorker"
wsgi_app = "asgi_mcp_auth:load_app('server:app', config='fleet.toml')"
max_requests = 10_000  # a new worker takes its keys from the store
max_requests_jitter = 1_000
limit_request_field_size = 16384  # long tokens: gunicorn rejects header fields of more than 8,190 bytes by default
