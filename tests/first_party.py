"""Which of our modules import which, read from their syntax trees."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "model", "serving", "reports")


@cache
def modules() -> dict[str, Path]:
    """Each of our modules by its dotted name; a package stands for its __init__.py."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        if "torch_stand_in" not in path.parts:  # another process's torch, not a part of the package
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    """The syntax tree of one of our modules."""
    return ast.parse(modules()[name].read_text())


def function(name: str, function_name: str) -> ast.FunctionDef:
    """The syntax tree of a module's function."""
    return next(node for node in tree(name).body if isinstance(node, ast.FunctionDef) and node.name == function_name)


def imported(name: str, node: ast.AST | None = None) -> set[str]:
    """Dotted names of all that module `name`, or `node` in it, imports at any depth, but not for type checking alone."""
    package = name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for statement in _statements(node or tree(name)):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            above = package.rsplit(".", statement.level - 1)[0] if statement.level else ""
            source = ".".join(part for part in (above, statement.module) if part)
            inside = {f"{source}.{alias.name}" for alias in statement.names}
            found |= inside & modules().keys() or {source}
    return found


def ours(name: str, node: ast.AST | None = None) -> set[str]:
    """The part of `imported` that is ours."""
    return imported(name, node) & modules().keys()


def reached(names: set[str]) -> set[str]:
    """`names` and all of ours that they import, directly or not."""
    found: set[str] = set()
    while names:
        found |= names
        names = set().union(*(ours(name) for name in names)) - found
    return found


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _statements(child)
