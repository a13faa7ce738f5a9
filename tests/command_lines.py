"""Command lines of documents and pipelines, checked against the real command line and the real Makefile."""

import re
import shlex

import typer
from first_party import ROOT

from cli import app

STOPS = {"|", "||", "&", "&&", ";", ">", ">>", "2>", "<"}  # where a shell's next command or a redirection begins
UsageError = typer.BadParameter.__bases__[0]  # of the click inside typer, which does not name it itself
MAKE_TARGETS = set(re.findall(r"^([a-z][\w-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def words(line: str) -> list[str]:
    """The words of the first command on a line, without what a shell does with it."""
    split = shlex.split(line, comments=True)
    return split[: next((index for index, word in enumerate(split) if word in STOPS), len(split))]


def parse_slipway(arguments: list[str]) -> str:
    """The name of the command that `slipway ARGUMENTS` would run, as "data synth"; nothing is run.

    Raises: UsageError for a command, an option or a value that does not exist, or an argument too few or too many.
    """
    command, context, names = typer.main.get_command(app), None, []
    while hasattr(command, "get_command"):
        context = command.context_class(command, parent=context)
        if not arguments or arguments[0].startswith("-"):
            return " ".join(names)
        found = command.get_command(context, arguments[0])
        if found is None:
            raise UsageError(f"slipway has no command {' '.join([*names, arguments[0]])}")
        command, names, arguments = found, [*names, arguments[0]], arguments[1:]
    command.make_context(" ".join(names), list(arguments), parent=context).close()
    return " ".join(names)


def check_make(arguments: list[str]) -> None:
    """Raises: AssertionError for a target that the Makefile does not have."""
    targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
    unknown = [target for target in targets if target not in MAKE_TARGETS]
    assert not unknown, f"the Makefile has no target {', '.join(unknown)}"
