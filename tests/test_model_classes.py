"""Class names come from folders, and doubtful layouts are refused."""

import pytest

from model.archives import Listing
from model.classes import classes_of


def listing(*paths, folders=()):
    return Listing(dict.fromkeys(paths, 1), frozenset(folders), {}, lambda path: b"")


def test_the_first_folder_is_the_class():
    labels, left_out = classes_of(listing("cat/1.jpg", "cat/more/2.PNG", "dog/3.jpeg"))
    assert labels == {"cat/1.jpg": "cat", "cat/more/2.PNG": "cat", "dog/3.jpeg": "dog"}
    assert left_out == {}


def test_a_lone_top_folder_is_looked_through():
    labels, _ = classes_of(listing("pets/cat/1.jpg", "pets/dog/2.jpg", "pets/README.md", folders=["pets", "pets/cat", "pets/dog"]))
    assert labels == {"pets/cat/1.jpg": "cat", "pets/dog/2.jpg": "dog"}


def test_other_files_are_reported():
    _, left_out = classes_of(listing("a/1.jpg", "b/2.jpg", "top.jpg", "a/notes.txt", "a/._1.jpg", "__MACOSX/a/1.jpg", ".git/x.png"))
    assert left_out == {
        "top.jpg": "not in the folder of a class",
        "a/notes.txt": "not an image by its name",
        "a/._1.jpg": "hidden file",
        "__MACOSX/a/1.jpg": "hidden file",
        ".git/x.png": "hidden file",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (listing("a/1.jpg", "a/2.jpg"), "at least two class folders, got only 'a'"),
        (listing("1.jpg", "2.jpg"), "at least two class folders, got none"),
        (listing(), "at least two class folders, got none"),
        (listing("a/1.jpg", "b/1.jpg", folders=["a", "b", "c"]), "no images in the class c"),
        (listing("a/1.jpg", "b/1.jpg", "c/notes.txt", folders=["c"]), "no images in the class c"),
        (listing("t/a/1.jpg", "t/b/1.jpg", folders=["t", "t/c"]), "no images in the class c"),
        (listing("rolled_in/1.jpg", "Rolled-In/1.jpg", "b/1.jpg"), "Rolled-In and rolled_in differ only in case or punctuation"),
        (listing("train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg"), "look like splits"),
    ],
)
def test_doubtful_layouts_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        classes_of(given)
