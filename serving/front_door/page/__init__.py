"""The pages for people: / to try images, /docs for the API. One file each, nothing from elsewhere; golden images as samples to try."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from serving.front_door.errors import ApiError
from serving.front_door.problems import problems
from serving.served import Served

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'"
HEADERS = {"content-security-policy": POLICY, "cache-control": "no-cache"}
FILES = {"/": "index.html", "/docs": "docs.html"}
A_SAMPLE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}


def add_page(app: FastAPI, served: Served) -> None:
    """Add the pages, and the samples that the first one offers."""
    for path, file in FILES.items():
        app.add_route(path, _answering(HTMLResponse((Path(__file__).parent / file).read_text(), headers=HEADERS)), include_in_schema=False)

    @app.get("/samples", tags=["state"], summary="Images of the archive to try")
    async def samples() -> dict[str, list[dict[str, Any]]]:
        return {"samples": [{"file": golden.file, "url": f"samples/{number}"} for number, golden in enumerate(served.golden)]}

    @app.get("/samples/{number}", tags=["state"], summary="One of them", response_class=Response, responses=A_SAMPLE | problems(404))
    async def sample(number: str) -> Response:
        if not number.isdecimal() or int(number) >= len(served.golden):
            raise ApiError(404, "UnknownSample", f"got sample {number}, the archive has {len(served.golden)}, counted from 0")
        golden = served.golden[int(number)]
        kind = {".jpg": "jpeg", ".jpeg": "jpeg"}.get(suffix := Path(golden.file).suffix.lower(), suffix.removeprefix("."))
        return Response(golden.image, media_type=f"image/{kind}", headers={"cache-control": "max-age=3600"})


def _answering(response: Response) -> Callable[[Request], Response]:
    return lambda _: response
