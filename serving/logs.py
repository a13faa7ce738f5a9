"""What a server says for people or for programs: one line a message, as text or as JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO


class Form(StrEnum):
    """How lines look."""

    text = "text"
    json = "json"


class AsText(logging.Formatter):
    """`slipway: message`, and before what TorchServe said, its name."""

    def format(self, record: logging.LogRecord) -> str:
        """One message."""
        source = "" if record.name == "slipway" else f"{record.name}: "
        return f"slipway: {source}{super().format(record)}"


class AsJson(logging.Formatter):
    """{"time", "level", "logger", "message"}, with "exception" where there is one; times are UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to(stream: TextIO | None, form: Form) -> None:
    """Send every logger's lines to `stream`, standard error by default: warnings of all, and all that the server itself has to say."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(AsJson() if form is Form.json else AsText())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("slipway", "torchserve"):
        logging.getLogger(name).setLevel(logging.INFO)
