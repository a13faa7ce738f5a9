"""The answer of /v1/classify: several images' answers as one, with the archive that they come from."""

import json
from collections.abc import Sequence
from typing import Any

from serving.front_door.bodies import Part
from serving.served import Served

Classified = tuple[int, bytes]  # an image's status and JSON body


def classification(served: Served, parts: Sequence[Part], answers: Sequence[Classified]) -> Classified:
    """200 when any image has a prediction, else the highest status; a lone image's error is the whole answer."""
    if len(answers) == 1 and answers[0][0] != 200:
        return answers[0]
    results = [_result(part, status, body) for part, (status, body) in zip(parts, answers, strict=True)]
    status = 200 if any(status == 200 for status, _ in answers) else max(status for status, _ in answers)
    content = {"model": served.name, "version": served.version, "digest": served.digest, "results": results}
    return status, json.dumps(content).encode()


def _result(part: Part, status: int, body: bytes) -> dict[str, Any]:
    content = json.loads(body)
    if status != 200:
        return {"file": part.filename, "error": content}
    label = max(content, key=content.__getitem__)
    return {"file": part.filename, "label": label, "probability": content[label], "probabilities": content}
