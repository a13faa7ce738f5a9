"""What TorchServe and its workers say: chatter is dropped, the rest is kept, and why a model did not load is found in it."""

import re
from collections import deque

KEPT_LINES = 200
# What every healthy start says; anything else is worth reading.
CHATTER = (
    "WARN ModelArchive Model archive createdOn",
    "WARNING: sun.reflect.Reflection.getCallerClass",
    "nvidia-smi not available",
    "Model server started.",
    "INFO MODEL_LOG s_name_part0=",
    "INFO MODEL_LOG Listening on port:",
    "INFO MODEL_LOG Successfully loaded ",
    "INFO MODEL_LOG [PID]",
    "INFO MODEL_LOG Torch worker started.",
    "INFO MODEL_LOG Python runtime:",
    "INFO MODEL_LOG Connection accepted:",
    "INFO MODEL_LOG model_name:",
    "INFO MODEL_LOG Frontend disconnected.",
)
LOADING_FAILED = ("Backend worker process died.", "WARN ModelServer Failed to load model")
REFUSED = re.compile(r"Failed to load model \S+, exception (.+)")
RAISED = re.compile(r"(?:\w+\.)*(\w*(?:Error|Exception|Interrupt)): (?!\d+ - )(.+)")


class Log:
    """The last lines of a TorchServe process."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.loading_failed = False

    def add(self, line: str) -> str | None:
        """What is worth reading of a line of the JVM, None for chatter."""
        line = line.rstrip()
        if not line or line.startswith(CHATTER):
            return None
        text = line.removeprefix("INFO MODEL_LOG ").removeprefix("WARN MODEL_LOG ")
        self.lines.append(text)
        self.loading_failed |= text.startswith(LOADING_FAILED)
        return text

    def reason(self) -> str:
        """Why the model did not load: what the handler raised, else the last lines."""
        for line in self.lines:
            if refused := REFUSED.match(line):
                return refused[1]
        for line in reversed(self.lines):
            if raised := RAISED.match(line):
                return f"{raised[1]}: {raised[2]}"
        return " / ".join(list(self.lines)[-3:]) or "it said nothing"
