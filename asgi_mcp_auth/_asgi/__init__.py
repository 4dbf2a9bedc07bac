"""The ASGI side: reading scope and receive, sending responses, running the app with the caller's identity."""
