"""What TorchServe and its workers say: JSON lines; chatter is dropped, the rest is kept, and why a model did not load is found in it."""

import json
import logging
import re
from collections import deque
from typing import NamedTuple

KEPT_LINES = 200
# What every healthy start says; anything else is worth reading.
CHATTER = (
    "Model archive createdOn",
    "WARNING: sun.reflect.Reflection.getCallerClass",
    "nvidia-smi not available",
    "Model server started.",
    "s_name_part0=",
    "Listening on port:",
    "Successfully loaded ",
    "[PID]",
    "Torch worker started.",
    "Python runtime:",
    "Connection accepted:",
    "model_name:",
    "Frontend disconnected.",
)
LOADING_FAILED = ("Backend worker process died.", "Failed to load model")
REFUSED = re.compile(r"Failed to load model \S+, exception (.+)")
RAISED = re.compile(r"(?:\w+\.)*(\w*(?:Error|Exception|Interrupt)): (?!\d+ - )(.+)")


class Line(NamedTuple):
    """One message, and its level as a number of `logging`."""

    level: int
    text: str


class Log:
    """The last lines of a TorchServe process."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.loading_failed = False

    def add(self, raw: str) -> Line | None:
        """What is worth reading of a line of the JVM, None for chatter."""
        line = _parse(raw.rstrip())
        if not line.text or line.text.startswith(CHATTER):
            return None
        self.lines.append(line.text)
        self.loading_failed |= line.text.startswith(LOADING_FAILED)
        return line

    @property
    def raised(self) -> str:
        """What the handler raised, empty when it has not said so."""
        for line in self.lines:
            if refused := REFUSED.match(line):
                return refused[1]
        for line in reversed(self.lines):
            if raised := RAISED.match(line):
                return f"{raised[1]}: {raised[2]}"
        return ""

    def reason(self) -> str:
        """Why the model did not load: what the handler raised, else the last lines."""
        return self.raised or " / ".join(list(self.lines)[-3:]) or "it said nothing"


def _parse(raw: str) -> Line:
    """A line of LOG4J's pattern in config.py; anything else, as the JVM's own words, is an information."""
    try:
        said = json.loads(raw)
        return Line(logging.getLevelNamesMapping()[said["level"]], said["message"].rstrip())
    except (ValueError, KeyError, TypeError, AttributeError):
        return Line(logging.INFO, raw)
