"""What touches an ASGI scope, `receive` and `send`: answering, and running the protected app."""
