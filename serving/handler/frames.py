"""Many byte strings in one body: what the front door and the handler say to each other inside one TorchServe request.

Layout, little-endian: u32 number of parts, u32 length of each part, then the parts. Part 0 is JSON, the meta.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any

CONTENT_TYPE = "application/x-slipway-frames"


def pack(meta: dict[str, Any], parts: Sequence[bytes | memoryview]) -> bytes:
    """One body that holds `meta` and `parts`."""
    every = [json.dumps(meta, separators=(",", ":")).encode(), *parts]
    return b"".join([struct.pack(f"<{1 + len(every)}I", len(every), *map(len, every)), *every])


def unpack(body: bytes | bytearray | memoryview) -> tuple[dict[str, Any], list[memoryview]]:
    """The meta and the parts of a body made by `pack`; the parts are views into it.

    Raises: ValueError when the body is no such body or was cut.
    """
    view = memoryview(body)
    try:
        (count,) = struct.unpack_from("<I", view)
        lengths = struct.unpack_from(f"<{count}I", view, 4)
    except struct.error:
        raise ValueError(f"got {len(view)} bytes that are no frames") from None
    start = 4 + 4 * count
    if not count or start + sum(lengths) != len(view):
        raise ValueError(f"got frames of {len(view)} bytes, their header names {start + sum(lengths)}")
    parts = []
    for length in lengths:
        parts.append(view[start : start + length])
        start += length
    meta = json.loads(bytes(parts[0]))
    if not isinstance(meta, dict):
        raise ValueError("got frames whose meta is no JSON object")
    return meta, parts[1:]
