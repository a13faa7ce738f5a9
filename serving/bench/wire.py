"""HTTP/1.1 as the load generators write and read it: no more than an image up and one whole answer down."""

import json


def post_of(host: str, path: str, body: bytes) -> bytes:
    """The bytes of one request."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def beginning(label: str) -> bytes:
    """How an answer begins whose highest class is `label`, from a server that writes no spaces."""
    return b"{" + json.dumps(label).encode() + b":"


def names(label: str, body: bytes) -> bool:
    """Whether `label` is the highest class of an answer."""
    try:
        answer = json.loads(body)
        return bool(max(answer, key=answer.__getitem__) == label)
    except (ValueError, TypeError, AttributeError):
        return False


def whole_answer(data: bytes) -> tuple[bytes, bytes] | None:
    """Head and body of one whole answer, None while bytes are missing."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, body = data[:end], data[end + 4 :]
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return (head, body) if length and len(body) >= int(length) else None
