"""The page for people at /: one file without anything from elsewhere, and the golden images as samples to try."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from serving.front_door.errors import ApiError
from serving.served import Served

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'"


def add_page(app: FastAPI, served: Served) -> None:
    """Add / and the samples that it offers."""
    html = (Path(__file__).parent / "index.html").read_text()

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"content-security-policy": POLICY, "cache-control": "no-cache"})

    @app.get("/samples", tags=["state"], summary="Images of the archive to try")
    async def samples() -> dict[str, list[dict[str, Any]]]:
        return {"samples": [{"file": golden.file, "url": f"samples/{number}"} for number, golden in enumerate(served.golden)]}

    @app.get("/samples/{number}", tags=["state"], summary="One of them", response_class=Response)
    async def sample(number: int) -> Response:
        if not 0 <= number < len(served.golden):
            raise ApiError(404, "UnknownSample", f"got sample {number}, the archive has {len(served.golden)}, counted from 0")
        golden = served.golden[number]
        kind = {".jpg": "jpeg", ".jpeg": "jpeg"}.get(suffix := Path(golden.file).suffix.lower(), suffix.removeprefix("."))
        return Response(golden.image, media_type=f"image/{kind}", headers={"cache-control": "max-age=3600"})
