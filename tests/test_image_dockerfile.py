"""serving/Dockerfile by its text; that it builds, fits its budget and serves is proved by building it, and in tests marked cluster."""

import re

from first_party import ROOT

TEXT = (ROOT / "serving" / "Dockerfile").read_text()
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of that name, in order."""
    return [line.split(None, 1)[1] for line in LINES if line.startswith(f"{name} ")]


def test_every_stage_begins_at_a_base_that_is_pinned_by_its_digest():
    (base,) = [argument for argument in instructions("ARG") if argument.startswith("BASE=")]
    assert re.fullmatch(r"BASE=[\w./:-]+@sha256:[0-9a-f]{64}", base)
    bases = dict(reversed(stage.split(" AS ")) for stage in instructions("FROM"))
    assert all(base == "${BASE}" or base in bases for base in bases.values())
    assert [*bases][-1] == "cpu", "the stage that is built when none is named"


def test_it_ends_as_nobody_under_an_init():
    stages = TEXT.split("\nFROM ")[1:]
    for stage in stages:
        if (users := re.findall(r"^USER (.+)$", stage, re.MULTILINE)) or "ENTRYPOINT" in stage:
            assert users[-1] == "10001:10001"
    (serving,) = [stage for stage in stages if "ENTRYPOINT" in stage]
    assert 'ENTRYPOINT ["tini", "--", "slipway"]' in serving


def test_python_packages_are_those_of_the_lock_by_their_hashes():
    installs = re.findall(r"pip install.*", "\n".join(LINES))
    assert [re.findall(r"(\w+)\.lock", install) for install in installs] == [["serve"], ["gpu"]]
    assert all({"--require-hashes", "--no-deps", "--only-binary"} <= set(install.split()) for install in installs)


def test_compilers_and_pip_stay_in_the_first_stages():
    parts, serving, gpu_parts, gpu, cpu = TEXT.split("\nFROM ")[1:]
    assert "gcc" in parts and "gcc" not in serving + gpu_parts
    assert re.findall(r"--no-install-recommends ([\w ]+?) *\\", serving) == ["python3 tini"]
    assert not re.search("apt-get|pip", gpu + cpu)


def test_the_context_is_only_what_is_copied():
    """A line of .dockerignore that begins with ! lets something in; each is the source of a COPY, or lies below one."""
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [copy.split()[0] for copy in instructions("COPY") if not copy.startswith("--from")]
    assert sorted(let_in) == ["build/*.mar", "cli", "requirements/gpu.lock", "requirements/serve.lock", "serving"]
    assert {source.split("/")[0] for source in copied} == {"requirements", "serving", "cli", "${ARCHIVE}"}
