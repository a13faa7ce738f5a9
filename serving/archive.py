"""The archive: one .mar that holds the network, the code that runs it, and all that is known about it.

Built deterministically (stored, sorted, fixed times), so that the sha256 of its bytes is the model's identity.
"""

import hashlib
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

FORMAT = 1
CODE = Path(__file__).parent / "handler"
MAX_UNPACKED = 2 << 30
REQUIRED: Mapping[str, type] = {
    "format": int,
    "name": str,
    "version": str,
    "labels": list,
    "preprocess": dict,
    "limits": dict,
    "variant": str,
    "golden": list,
    "golden_tolerance": float,
    "lineage": dict,
    "gate": dict,
}
SIZES = {"preprocess": {"size_px", "resize_px"}, "limits": {"max_image_bytes", "max_pixels"}}
# What zipfile raises, one time or another, for a zip that was damaged.
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, OverflowError, OSError)


@dataclass(frozen=True)
class Archive:
    """An archive on disk: its path, the sha256 of its bytes, and its slipway.json."""

    path: Path
    digest: str
    about: dict[str, Any]


def write(target: Path, *, about: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    """The digest of the archive written to `target`: `about` as slipway.json, TorchServe's manifest, the handler, and `members`.

    Raises: ValueError when `about` lacks a key or holds one of another type.
    """
    _check_about(dict(about))
    manifest = {
        "runtime": "python",
        "model": {
            "modelName": about["name"],
            "modelVersion": about["version"],
            "handler": "handler",
            "serializedFile": "model.onnx",
        },
        "archiverVersion": "0.12.0",
    }
    files = {
        **members,
        **{f"handler/{path.name}": path.read_bytes() for path in CODE.glob("*.py")},
        "MAR-INF/MANIFEST.json": _json(manifest),
        "slipway.json": _json(about),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".partial.{target.name}")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, files[name])
    temporary.replace(target)
    return digest(target)


def digest(path: Path) -> str:
    """The sha256 of the file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> Archive:
    """The archive at `path`, after its structure was checked; `unpack` and the handler's golden check do the rest.

    Raises: FileNotFoundError; ValueError for a file that is no whole archive of ours, saying what is wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no archive at {path}: build one with `slipway package`, or give the path of a .mar")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive.infolist())
            if (broken := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"member {broken} is corrupt")
            about = json.loads(archive.read("slipway.json"))
            names = archive.namelist()
        _check_about(about)
        wanted = ["MAR-INF/MANIFEST.json", "handler/__init__.py", "model.onnx", *(golden["file"] for golden in about["golden"])]
        if missing := [name for name in wanted if name not in names]:
            raise ValueError(f"it lacks {', '.join(missing)}: build it again with `slipway package`")
    except DAMAGED as error:
        raise ValueError(f"{path} is no whole .mar ({error}): fetch or build it again") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: slipway.json cannot be read ({error}): build it again with `slipway package`") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Archive(path, digest(path), about)


def unpack(archive: Archive, target: Path) -> None:
    """Write every member below `target`, which exists."""
    with zipfile.ZipFile(archive.path) as file:
        file.extractall(target)


def verify(path: Path) -> tuple[Archive, dict[str, str]]:
    """The archive and the sha256 of each member, after its golden images predicted as recorded with the code inside it.

    Raises: ValueError, FileNotFoundError as `read`; ValueError when it does not load or a golden image predicts otherwise.
    """
    archive = read(path)
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        try:
            load_handler(Path(folder), threads=1)
        except Exception as error:  # whatever the code inside raises
            raise ValueError(f"{path} does not load: {error}") from error
        hashes = {
            str(member.relative_to(folder)): digest(member)
            for member in sorted(Path(folder).rglob("*"))
            if member.is_file() and "__pycache__" not in member.parts
        }
    return archive, hashes


def load_handler(folder: Path, *, threads: int) -> Any:
    """A ready handler made by the code inside the unpacked archive in `folder`, in this process, without TorchServe."""
    import importlib.util
    import sys

    name = f"handler_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "handler" / "__init__.py", submodule_search_locations=[str(folder / "handler")]
    )
    if spec is None or spec.loader is None:
        raise ValueError(f"{folder} holds no handler")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    handler = module.Handler()
    handler.open(folder, threads=threads, lone_threads=threads)
    return handler


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _check_about(about: Any) -> None:
    if not isinstance(about, dict):
        raise ValueError(f"slipway.json: wants an object, got {about!r:.40}")
    for key, kind in REQUIRED.items():
        if not isinstance(about.get(key), kind):
            raise ValueError(f"slipway.json: {key} wants {kind.__name__}, got {about.get(key)!r}")
    if about["format"] != FORMAT:
        raise ValueError(f"slipway.json: this Slipway reads archives of format {FORMAT}, got {about['format']}")
    for key, names in SIZES.items():
        if set(about[key]) != names or not all(isinstance(value, int) for value in about[key].values()):
            raise ValueError(f"slipway.json: {key} wants whole numbers {', '.join(sorted(names))}, got {about[key]}")
    if not about["labels"] or not all(isinstance(label, str) for label in about["labels"]):
        raise ValueError(f"slipway.json: labels wants names of classes, got {about['labels']}")
    if not about["golden"]:
        raise ValueError("slipway.json: an archive needs at least one golden image")
    for golden in about["golden"]:
        if not isinstance(golden, dict) or "file" not in golden or len(golden.get("probabilities", ())) != len(about["labels"]):
            raise ValueError(f"slipway.json: golden wants a file and a probability for each label, got {golden}")


def _check_members(members: Sequence[zipfile.ZipInfo]) -> None:
    names: set[str] = set()
    for member in members:
        parts = PurePosixPath(member.filename)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"member {member.filename!r} would land outside the archive's folder")
        if member.filename in names:
            raise ValueError(f"it has {member.filename} twice, and readers differ in which they take: build it again")
        names.add(member.filename)
    if "slipway.json" not in names:
        raise ValueError("it has no slipway.json: it was not built by `slipway package`")
    if sum(member.file_size for member in members) > MAX_UNPACKED:
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED >> 20} MiB")
