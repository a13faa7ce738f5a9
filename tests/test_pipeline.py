"""dvc.yaml, the Makefile and the command line describe one chain of stages."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_lines import parse_slipway, words
from first_party import ROOT, function, modules, ours, reached

from cli.pipeline import DECIDE_WEIGHTS

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


def command_of(stage: str) -> tuple[str, ast.FunctionDef]:
    """The module and the function behind a stage's command."""
    name = parse_slipway(words(STAGES[stage]["cmd"])[1:])
    group, _, verb = name.rpartition(" ")
    module = f"cli.{group}" if group else "cli.pipeline"
    return module, function(module, verb)


def paths(stage: str, kind: str) -> list[str]:
    """The paths of a stage's deps or outs."""
    return [item if isinstance(item, str) else next(iter(item)) for item in STAGES[stage].get(kind, [])]


def made_by_make(target: str, *variables: str) -> list[str]:
    """The slipway commands of a make target, without where slipway lies."""
    done = subprocess.run(["make", "-n", target, *variables], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    return [" ".join(words(line)[1:]) for line in done.stdout.splitlines() if words(line)[:1] == [".venv/bin/slipway"]]


def test_make_demo_and_dvc_run_the_same_commands():
    assert [" ".join(words(stage["cmd"])[1:]) for stage in STAGES.values()] == made_by_make("demo")[:-1]
    assert made_by_make("demo")[-1] == "try --name demo"


def test_make_model_differs_from_the_demo_in_where_images_come_from():
    model = made_by_make("model", "DATA=my images", "NAME=steel")
    assert model[0] == "data import my images --name steel"
    assert [line.replace("steel", "demo") for line in model[1:]] == made_by_make("demo")[1:]


def test_every_command_of_make_parses():
    for line in [*made_by_make("demo"), *made_by_make("model", "DATA=images", "NAME=steel")]:
        parse_slipway(line.split())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_modules_that_it_imports(stage):
    module, command = command_of(stage)
    wanted = {str(modules()[name].relative_to(ROOT)) for name in reached(ours(module, command))}
    declared = {path for path in paths(stage, "deps") if not path.startswith("build/")}
    covered = {path for path in wanted if any(path == dep or path.startswith(f"{dep}/") for dep in declared)}
    assert not wanted - covered, f"add to the deps of {stage} in dvc.yaml"
    idle = {dep for dep in declared if not any(path == dep or path.startswith(f"{dep}/") for path in wanted)}
    assert not idle, f"{stage} does not import them: remove them from its deps in dvc.yaml"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_parameters_that_it_reads(stage):
    _, command = command_of(stage)
    calls = [node for node in ast.walk(command) if isinstance(node, ast.Call) and ast.unparse(node.func) == "section"]
    read = {call.args[0].value for call in calls}
    of_this_run = {f"runs.demo.{name}" for name in read & PARAMS["runs"]["demo"].keys()}
    assert set(STAGES[stage].get("params", [])) == read | of_this_run


def test_a_finished_training_is_repeated_after_a_change_of_any_module_that_decides_weights():
    run = {name.removeprefix("model.") for name in reached({"model.train"}) if name.startswith("model.")}
    assert run - {"checkpoint", "shards"} == set(DECIDE_WEIGHTS), "those two store and fetch; what they hand over is checked by digest"


def test_every_file_that_a_stage_reads_is_made_by_an_earlier_one():
    made: list[str] = []
    for stage in STAGES:
        for path in paths(stage, "deps"):
            there = (ROOT / path).exists() if not path.startswith("build/") else any(f"{path}/".startswith(f"{out}/") for out in made)
            assert there, f"{stage} reads {path}, which nothing before it makes"
        made += paths(stage, "outs")
    shown = [*PIPELINE["metrics"], *(plot for plot in PIPELINE["plots"] if isinstance(plot, str))]
    for path in shown:
        assert any(path.startswith(f"{out}/") for out in made), path


def test_nothing_is_cached_and_the_checkpoint_survives():
    outs = [out for stage in STAGES.values() for out in stage["outs"]]
    assert all(options["cache"] is False for out in outs for options in out.values())
    assert {"build/demo/train": {"cache": False, "persist": True}} in outs


def test_dvc_reads_the_pipeline(tmp_path):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    code = "from dvc.repo import Repo; print(*(stage.name for stage in Repo.init(no_scm=True).index.stages))"
    listed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert sorted(listed.stdout.splitlines()[-1].split()) == sorted(STAGES)


def test_every_check_of_the_pipeline_file_is_a_make_target():
    jobs = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
    scripts = {name: job["script"] for name, job in jobs.items() if isinstance(job, dict) and "script" in job}
    checks = scripts.keys() - {"build", "staging"}
    assert checks == {"lint", "test", "demo"}
    for name in checks:
        assert scripts[name].split()[:2] == ["make", name]
    in_order = re.findall(r"^make (\w+)$", Path(ROOT, ".ci", "run").read_text(), re.MULTILINE)
    assert set(in_order) == checks
    assert in_order[-1] == "test", "pytest's last line must be the last of all"
