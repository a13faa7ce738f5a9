"""Which file is an image of which class, told from the folders alone."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from model.archives import Listing

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def classes_of(listing: Listing) -> tuple[dict[str, str], dict[str, str]]:
    """The class of each image file by path, and why each other file was left out. A lone top folder is looked through.

    Raises: ValueError for fewer than two classes, a class without images, names that clash, and folders that are splits.
    """
    left_out = dict(listing.left_out)
    images: list[str] = []
    for path in listing.sizes:
        if any(part.startswith((".", "__MACOSX")) for part in path.split("/")):
            left_out[path] = "hidden file"
        elif PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
            left_out[path] = "not an image by its name"
        else:
            images.append(path)
    top = _lone_top(images)
    labels: dict[str, str] = {}
    for path in images:
        label, inside, _ = path.removeprefix(top).partition("/")
        if inside:
            labels[path] = label
        else:
            left_out[path] = "not in the folder of a class"
    folders = {folder.removeprefix(top).split("/")[0] for folder in listing.folders if folder.startswith(top) and folder + "/" != top}
    check_classes(labels.values(), {folder for folder in folders if not folder.startswith((".", "__MACOSX"))})
    return labels, dict(sorted(left_out.items()))


def _lone_top(images: list[str]) -> str:
    """The folders, with a closing slash, that hold every image and no image directly; "" when the classes are at the top."""
    top = ""
    while True:
        rest = [path.removeprefix(top).split("/") for path in images]
        if not rest or min(map(len, rest)) < 3 or len({parts[0] for parts in rest}) > 1:
            return top
        top += rest[0][0] + "/"


def check_classes(found: Iterable[str], folders: Iterable[str]) -> None:
    """Raise ValueError unless `found` are two or more distinct classes and every one of `folders` is among them."""
    names = sorted(set(found))
    if names and all(name.casefold() in SPLIT_NAMES for name in names):
        raise ValueError(f"the folders {', '.join(names)} look like splits, not classes: import one of them (images are split here)")
    if len(names) < 2:
        got = f"only {names[0]!r}" if names else "none"
        raise ValueError(f"wanted images in at least two class folders, got {got}: lay the images out as SRC/CLASS/IMAGE.jpg")
    if empty := sorted(set(folders) - set(names)):
        raise ValueError(f"no images in the class {', '.join(empty)}: add some or remove the folder")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", name).casefold()).strip("_")].append(name)
    if clashes := [group for group in alike.values() if len(group) > 1]:
        raise ValueError(f"the class names {' and '.join(clashes[0])} differ only in case or punctuation: merge or rename the folders")
