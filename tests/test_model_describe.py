"""The report says what needs a look; the pictures are drawn whole and alike every time."""

import io
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from model import describe, shards
from model.duplicates import Pair
from model.inspection import Rejected, Repeated
from model.shards import Record


def records(numbers: dict[str, int], **changed) -> list[Record]:
    rows = [(label, number) for label, total in numbers.items() for number in range(total)]
    facts = {"shard": "s", "offset": 0, "size": 10, "width": 64, "height": 64, "mode": "L", **changed}
    splits = ("train", "val", "calib", "test", "drift")
    return [
        Record(key=f"{i:016x}", label=label, split=splits[number % 5], group=i, source=f"{label}/{number}.png", **facts)
        for i, (label, number) in enumerate(rows)
    ]


def summary(rows, **changed):
    facts = {"found": {row.source: row.label for row in rows}, "rejected": [], "repeated": [], "pairs": [], "left_out": {}, **changed}
    return describe.summarise(rows, **facts)


def test_counts_add_up():
    report = summary(records({"a": 10, "b": 7}))
    assert report["images"] == sum(row["kept"] for row in report["classes"].values()) == 17
    assert report["classes"]["b"]["splits"] == {"train": 2, "val": 2, "calib": 1, "test": 1, "drift": 1}
    assert report["splits"] == {"train": 4, "val": 4, "calib": 3, "test": 3, "drift": 3}
    assert report["sizes"] == {"64 x 64": 17}
    assert report["imbalance"] == 1.429
    assert report["warnings"] == []


def test_each_doubt_is_a_warning():
    rows = records({"a": 31, "b": 10})
    joined = [row if i not in (0, 40) else Record(**{**vars(row), "group": 99}) for i, row in enumerate(rows)]
    report = summary(
        joined,
        rejected=[Rejected("a/x.png", "empty file")],
        repeated=[Repeated(("a/y.png", "b/y.png"), True)],
        pairs=[Pair(0, 40, 0.9)],
    )
    told = " | ".join(report["warnings"])
    for words in ("1 image files were refused", "1 contents lie in more than one class", "more than one class: look", "3.1 times"):
        assert words in told


def test_rare_sizes_are_summed():
    rows = [row for side in range(20) for row in records({"a": 1 + (side == 7)}, width=side)]
    sizes = summary(rows)["sizes"]
    assert len(sizes) == 13
    assert next(iter(sizes.items())) == ("7 x 64", 2)
    assert sum(sizes.values()) == 21


def data_folder(tmp_path):
    rng = np.random.default_rng(0)
    contents = {}
    for record in records({"cats & <dogs>": 12, "b": 3, "日本": 6}):
        buffer = io.BytesIO()
        shape = (40, 90, 3) if record.label == "b" else (64, 64)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(buffer, format="PNG")
        contents[record] = buffer.getvalue()
    placed = shards.write_shards(contents, tmp_path, read=contents.__getitem__, shard_bytes=1 << 20)
    shards.write_index(placed, tmp_path)
    return tmp_path


def test_the_pictures_are_drawn_alike_every_time(tmp_path):
    folder = data_folder(tmp_path)
    describe.draw(folder)
    first = {name: (folder / name).read_bytes() for name in ("contact_sheet.png", "classes.svg")}
    describe.draw(folder)
    assert first == {name: (folder / name).read_bytes() for name in first}
    assert not list(folder.glob("*.partial"))


def test_the_contact_sheet_has_a_row_a_class(tmp_path):
    folder = data_folder(tmp_path)
    sheet = describe.contact_sheet(folder, shards.read_index(folder))
    step = describe.TILE_PX + describe.GAP_PX
    assert sheet.height == 3 * step + describe.GAP_PX
    pixels = np.asarray(sheet.convert("L")).astype(int)
    left = sheet.width - 10 * step - describe.GAP_PX
    corners = [(row * step + 20, left + column * step + 20) for row in range(3) for column in range(10)]
    tiles = [pixels[y : y + 60, x : x + 60].std() > 5 for y, x in corners]
    assert [sum(tiles[row * 10 : row * 10 + 10]) for row in range(3)] == [3, 10, 6]


def test_the_class_plot_names_every_class_and_split(tmp_path):
    folder = data_folder(tmp_path)
    describe.draw(folder)
    texts = {
        "".join(node.itertext()).strip() for node in ElementTree.parse(folder / "classes.svg").iter("{http://www.w3.org/2000/svg}text")
    }
    assert {"cats & <dogs>", "b", "日本", "train", "val", "calib", "test", "drift", "12"} <= texts
