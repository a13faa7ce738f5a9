"""The page at / in a real Chromium, before a real `slipway serve`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import picture
from test_torchserve import Serve, serving

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")]


@pytest.fixture(scope="module")
def served(archive: Path) -> Iterator[Serve]:
    with serving(archive, "--workers", "1") as serve:
        serve.wait_until_ready()
        yield serve


@pytest.fixture(scope="module")
def chromium() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1100, 800, "light"), (390, 844, "dark")], ids=["desk", "phone at night"])
def page(request: pytest.FixtureRequest, chromium: "playwright.Browser", served: Serve) -> Iterator["playwright.Page"]:
    width, height, scheme = request.param
    page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: pytest.fail(f"the page raised {error}"))
    page.goto(served.url)
    page.get_by_role("button", name="Golden image").first.wait_for()
    yield page
    assert all(url.startswith((served.url, "blob:", "data:")) for url in asked), asked
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), "it scrolls sideways"
    page.close()


def count(page: "playwright.Page", number: int) -> None:
    """Wait until so many images were answered."""
    page.locator(f"#count:text-is('{number}')").wait_for(timeout=10_000)


def test_it_says_what_is_served_and_that_it_is_ready(page: "playwright.Page", served: Serve) -> None:
    page.locator("#state.ready").wait_for()
    info = httpx.get(f"{served.url}/info").json()
    assert page.title() == "colours · Slipway"
    assert page.locator("#about").inner_text() == f"version 1.0 · fp32 · sha256 {info['digest'][:12]}"


def test_a_sample_is_classified_by_keyboard_alone(page: "playwright.Page") -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.querySelector('img')?.alt") == "Golden image golden/0.jpg"
    page.keyboard.press("Enter")
    count(page, 1)
    assert page.locator("#verdict").inner_text().startswith("red, 9")
    assert page.locator("#bars li").count() == 3


def test_chosen_images_are_answered_as_by_the_api_and_others_refused_in_words(
    page: "playwright.Page", served: Serve, tmp_path: Path
) -> None:
    (tmp_path / "blue.png").write_bytes(picture(0, 0, 255, kind="PNG"))
    (tmp_path / "notes.txt").write_text("no image")
    page.set_input_files("#file", [tmp_path / "notes.txt", tmp_path / "blue.png"])
    count(page, 2)
    expected = httpx.post(f"{served.url}/predictions/colours", content=(tmp_path / "blue.png").read_bytes()).json()
    assert page.locator("#verdict").inner_text() == f"blue, {100 * expected['blue']:.1f} %"
    assert page.locator("#refused").inner_text() == "1"
    rows = page.locator("#history tr").all_inner_texts()
    assert "blue" in rows[0] and "got 8 bytes that are no image" in rows[1]


def test_a_file_name_is_text_and_never_markup(page: "playwright.Page") -> None:
    name = "<img src=x onerror=document.title='owned'>.jpg"
    page.set_input_files("#file", [{"name": name, "mimeType": "image/jpeg", "buffer": picture(0, 255, 0)}])
    count(page, 1)
    assert name in page.locator("#history").inner_text()
    assert page.title() == "colours · Slipway"


def test_the_docs_show_every_route_and_ask_the_server(chromium: "playwright.Browser", served: Serve) -> None:
    page = chromium.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: pytest.fail(f"the page raised {error}"))
    page.goto(f"{served.url}/docs")
    page.locator("details").first.wait_for()
    document = httpx.get(f"{served.url}/openapi.json").json()
    shown = {" ".join(text.split()) for text in page.locator("summary code").all_inner_texts()}
    assert shown == {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}
    models = page.locator("details", has=page.locator("code", has_text="GET /models"))
    models.locator("summary").click()
    models.get_by_role("button", name="Send").click()
    models.locator("pre", has_text='"modelName": "colours"').wait_for(timeout=10_000)
    infer = page.locator("details", has=page.locator("code", has_text="POST /v2/models/{model}/infer"))
    assert f"{served.url}/v2/models/colours/infer" in infer.locator("pre").first.text_content()
    assert all(url.startswith((served.url, "data:")) for url in asked), asked
    page.close()
