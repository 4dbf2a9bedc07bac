"""What a server under test was asked and what it answered, as JSON lines in the file JOURNAL."""

import json
import os
import time
from pathlib import Path
from typing import Any

from asgi_mcp_auth.cli.demo.exchanges import Exchange, observed


def journaled(app: Any, server: str) -> Any:
    journal = Path(os.environ["JOURNAL"])

    def tell(exchange: Exchange) -> None:
        line = {
            "server": server,
            "method": exchange.method,
            "path": exchange.path,
            "status": exchange.status,
            "operation": exchange.operation,
            "query": exchange.query,
            "form": exchange.form,
            "message": exchange.message,
            "answer": exchange.answer,
            "challenge": exchange.response_fields.get("www-authenticate"),
            "sent_to": exchange.sent_to,
            "token": exchange.request_fields.get("authorization", "").removeprefix("Bearer "),
        }
        with journal.open("a", encoding="utf-8") as file:  # small appends are whole, whoever else appends
            file.write(json.dumps(line) + "\n")

    return observed(app, server, tell)


def clock() -> float:
    """The time, moved ahead by as many seconds as the file CLOCK says."""
    return time.time() + float(Path(os.environ["CLOCK"]).read_text(encoding="utf-8"))
