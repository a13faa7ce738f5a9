"""The documents say what is true: commands, targets, parameters, folders, versions, links."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from command_lines import UsageError, check_make, parse_slipway, words
from first_party import ROOT

TREE = [Path(line) for line in subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).splitlines()]
PAGES = [path for path in TREE if path.suffix == ".md" and (ROOT / path).exists()]
DECISIONS = ROOT / "reports" / "decisions"
README = (ROOT / "README.md").read_text()


def in_blocks(text: str) -> list[str]:
    """Command lines of slipway and make in the code blocks of a page, as they would be typed."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL) + re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    lines = [re.sub(r"^\$ ", "", line.strip()).removeprefix(".venv/bin/") for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(slipway|make) \S", line)]


def in_spans(text: str) -> list[str]:
    """Commands of slipway and make that a page's sentences mention; arguments may be missing."""
    return re.findall(r"`((?:slipway|make) [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_in_a_document_exists(page):
    text = (ROOT / page).read_text()
    for line, whole in [*((line, True) for line in in_blocks(text)), *((line, False) for line in in_spans(text))]:
        program, *arguments = words(line)
        if program == "make":
            check_make(arguments)
        elif "STAGE" not in arguments:
            try:
                parse_slipway(arguments)
            except UsageError as error:
                lacks = type(error).__name__ in ("MissingParameter", "BadOptionUsage")
                assert lacks and not whole, f"{page}: {line}: {error.format_message()}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_between_documents_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (ROOT / page.parent / target).exists(), f"{page} links to {target}, which does not exist"


def test_every_metric_is_explained():
    told = set(re.findall(r'"(slipway_\w+)"', (ROOT / "serving" / "front_door" / "metrics.py").read_text()))
    page = (ROOT / "serving" / "README.md").read_text()
    missing = {name for name in told if not re.search(rf"`{name}(_total)?`", page)}
    assert told and not missing, f"serving/README.md does not explain {', '.join(sorted(missing))}"


def test_every_option_that_changes_what_callers_meet_is_explained():
    page = (ROOT / "serving" / "README.md").read_text()
    options = re.findall(r"^    (\w+): Annotated\[", (ROOT / "cli" / "serve.py").read_text().split("def serve(")[1].split("->")[0], re.M)
    known = {"archive", "host", "port", "workers", "threads"}
    missing = [f"--{option.replace('_', '-')}" for option in options if option not in known and f"--{option.replace('_', '-')}" not in page]
    assert len(options) > 8 and not missing, f"serving/README.md does not explain {', '.join(missing)}"


def test_the_readme_shows_every_make_target():
    targets = re.findall(r"^([a-z][\w-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(targets) <= 10
    missing = [target for target in targets if f"make {target}" not in README]
    assert not missing, f"README.md does not mention make {', make '.join(missing)}"


def test_every_parameter_is_explained():
    """By a comment on its line of params.yaml, or by `section.key` in the README."""
    unexplained, section = [], ""
    for line in (ROOT / "params.yaml").read_text().splitlines():
        if top := re.match(r"(\w+):\s*$", line):
            section = top[1]
        elif (key := re.match(r"  (\w+):", line)) and section != "runs" and " #" not in line and f"`{section}.{key[1]}`" not in README:
            unexplained.append(f"{section}.{key[1]}")
    assert not unexplained, f"a comment in params.yaml or a row in the README's table is wanted for: {', '.join(unexplained)}"


def test_the_readme_names_no_parameter_that_does_not_exist():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, key in re.findall(rf"`({'|'.join(params)})\.(\w+)`", README):
        assert f"{section}.{key}" in {"gate.json", "params.yaml"} or key in params[section] or (ROOT / section / f"{key}.py").exists()


def test_the_folder_map_of_the_readme_is_the_tree():
    """The map is the first code block after a heading with the word map, layout or folders; a line is a path, spaces, words."""
    block = re.search(r"^#+ [^\n]*\b(?:map|layout|folders)\b.*?\n\n((?:    .*\n|\n)+|```.*?```)", README, re.I | re.M | re.S)
    assert block, "README.md wants a heading such as 'Folder map' and below it a code block: a line is a path, spaces, what is there"
    shown = [line.split()[0].rstrip("/") for line in block[1].splitlines() if re.match(r"\s*[\w.][\w./-]*\s{2,}\S", line)]
    missing = [path for path in shown if not (ROOT / path).exists()]
    assert not missing, f"the map shows {', '.join(missing)}, which the tree does not have"
    folders = {path.parts[0] for path in TREE if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    unshown = folders - {path.split("/")[0] for path in shown}
    assert not unshown, f"the map lacks {', '.join(sorted(unshown))}"


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[:1] == [version], "the newest number in CHANGELOG.md and the version in pyproject.toml"


def test_decision_records_are_numbered_whole_and_listed():
    records = sorted(path for path in DECISIONS.glob("*.md") if path.name not in ("README.md", "template.md"))
    listed = re.findall(r"^\| \[(\d{4})\]\(([\w.-]+)\) \| (.+) \|$", (DECISIONS / "README.md").read_text(), re.MULTILINE)
    assert [path.name[:5] for path in records] == [f"{number:04d}-" for number in range(1, len(records) + 1)]
    assert [(path.name[:4], path.name) for path in records] == [(number, name) for number, name, _ in listed]
    for path, (number, _, title) in zip(records, listed, strict=True):
        text = path.read_text()
        assert text.startswith(f"# {number}: {title}\n"), f"{path.name}: its title and the one in README.md differ"
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Rejected", "Consequences"], path.name


def test_no_document_or_setting_names_a_place_on_somebodys_machine():
    names = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/\w")
    for path in TREE:
        if path.suffix in {".md", ".toml", ".yaml", ".yml", ".lock", ".py", ""} and (ROOT / path).is_file() and path.name != "test_docs.py":
            found = names.search((ROOT / path).read_text())
            assert not found, f"{path} names {found[0]}..."
