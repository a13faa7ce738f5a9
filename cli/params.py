"""params.yaml as checked keyword arguments: a stage function's typed signature is the schema of its section."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml

PARAMS_FILE = Path("params.yaml")


def section(name: str, stage: Callable[..., Any], *, run: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The section `name` of params.yaml for `run`, checked against the keyword-only parameters of `stage` that have no default.

    Parameters of `stage` with a default are wired by the caller, not configured. Overrides read `section.key=value`.

    Raises: ValueError naming the key, what was got and what was wanted; FileNotFoundError outside a checkout.
    """
    if not PARAMS_FILE.exists():
        raise FileNotFoundError(f"no {PARAMS_FILE} in {Path.cwd()}: run slipway from the root of its checkout")
    document = _parse(PARAMS_FILE.read_text(), str(PARAMS_FILE))
    if not isinstance(document, dict):
        raise ValueError(f"{PARAMS_FILE} wants a section a stage, got {document!r:.40}")
    changes = (document.get("runs") or {}).get(run) or {}
    if unknown := sorted(set(changes) - set(document)):
        raise ValueError(f"{PARAMS_FILE}: runs.{run} changes {', '.join(unknown)}, which is no section; there are {', '.join(document)}")
    values = {**(document.get(name) or {}), **(changes.get(name) or {})}
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or path.count(".") != 1:
            raise ValueError(f"--set wants section.key=value, got {override!r}")
        if path.split(".")[0] not in document:
            raise ValueError(f"--set {override}: params.yaml has no section {path.split('.')[0]!r}; it has {', '.join(document)}")
        if path.split(".")[0] == name:
            values[path.split(".")[1]] = _parse(text, f"--set {override}")
    return check(name, stage, values)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is no YAML: {' '.join(str(error).split())}") from None


def check(name: str, stage: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values` unchanged (whole numbers where a float is wanted become floats), after each key and type was checked."""
    hints = get_type_hints(stage)
    wanted = {
        key: hints[key]
        for key, parameter in inspect.signature(stage).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    }
    if unknown := sorted(set(values) - set(wanted)):
        raise ValueError(f"params.yaml: {name} does not know {', '.join(unknown)}; it knows {', '.join(wanted)}")
    if missing := [key for key in wanted if key not in values]:
        raise ValueError(f"params.yaml: {name} lacks {', '.join(missing)}")
    return {key: _typed(f"{name}.{key}", hint, values[key]) for key, hint in wanted.items()}


def _typed(path: str, hint: Any, value: Any) -> Any:
    kind = getattr(hint, "__origin__", hint)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        hint_name = getattr(hint, "__name__", str(hint))
        advice = " (YAML reads 1e-3 as text: write 1.0e-3)" if kind is float else ""
        raise ValueError(f"params.yaml: {path} wants {hint_name}, got {value!r}{advice}")
    return value
