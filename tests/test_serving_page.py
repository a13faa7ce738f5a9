"""The pages for people: whole in themselves, and linked to what exists."""

import re

import httpx
import pytest
from test_serving_front_door import Door

PAGES = ("/", "/docs")


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_takes_nothing_from_elsewhere(path: str, door: Door) -> None:
    answer = door.ask("GET", path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'<>)]*", answer.text.replace("http://www.w3.org/2000/svg", ""))
    assert addresses == [], "a namespace is a name; anything else would be fetched"
    assert not re.search(r"""(?:src|srcset)=["']|@import|<link(?! rel="icon" href="data:)""", answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_what_a_page_links_and_fetches_exists(path: str, door: Door) -> None:
    text = door.ask("GET", path).text
    wanted = set(re.findall(r'href="([^"#:]+)"', text)) | set(re.findall(r'fetch\("([^"]+)"\)', text))
    assert wanted, "each links the other"
    for target in wanted:
        assert door.ask("GET", str(httpx.URL("http://t/docs").join(target).path)).status_code == 200, target


def test_the_openapi_document_names_only_statuses_that_we_answer(door: Door) -> None:
    document = door.ask("GET", "/openapi.json").json()
    found = {status for path in document["paths"].values() for operation in path.values() for status in operation["responses"]}
    assert found == {"200", "400", "401", "404", "408", "413", "415", "429", "500", "503", "504"}
    assert sorted(document["components"]["schemas"]) == ["Classification", "Inferred", "Output", "Problem", "Result"]


@pytest.mark.parametrize("number", ["1", "-1", "x", "1.5"])
def test_a_sample_that_is_not_there_is_404(number: str, door: Door) -> None:
    answer = door.ask("GET", f"/samples/{number}")
    assert (answer.status_code, answer.json()["type"]) == (404, "UnknownSample")
