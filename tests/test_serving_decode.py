"""Every kind of image file to the network's input: expected values from Pillow, from torchvision, or by hand."""

import struct
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from serving.bench import attacks, hostile, pictures
from serving.bench.pictures import encode, photo
from serving.handler.decode import BadImage, Preprocess, decode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
TO = Preprocess(size_px=32, resize_px=32, max_image_bytes=attacks.MAX_BYTES, max_pixels=attacks.MAX_PIXELS)
ORIENTATION = 0x0112


def to(size_px: int, resize_px: int | None = None) -> Preprocess:
    return Preprocess(size_px=size_px, resize_px=resize_px or size_px, max_image_bytes=1 << 30, max_pixels=1 << 30)


def by_pillow(image: Image.Image, size_px: int = 32) -> np.ndarray:
    """The centre square of an RGB image, resized by Pillow."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.convert("RGB").resize((size_px, size_px), Image.Resampling.BILINEAR, box=box))


def by_torchvision(content: bytes, size_px: int) -> np.ndarray:
    import torch

    from model.transforms import reference

    torch.set_num_threads(1)
    pixels = torch.from_numpy(np.array(Image.open(BytesIO(content)).convert("RGB"))).permute(2, 0, 1)
    return reference(size_px)(pixels).permute(1, 2, 0).numpy()


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of grey levels."""
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def refusal(content: bytes, limits: Preprocess = TO) -> BadImage:
    with pytest.raises(BadImage) as caught:
        decode(content, limits)
    return caught.value


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "near"), [("JPEG", 1.0), ("PNG", 0.5), ("WEBP", 0.5), ("TIFF", 0.5)])
def test_exif_rotation_is_applied(kind: str, near: float, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encode(photo(80, 56), kind, exif=exif)
    got, stored = decode(content, TO), Image.open(BytesIO(encode(photo(80, 56), kind)))
    distances = {}
    for other in range(1, 9):
        exif[ORIENTATION] = other
        turned = stored.copy()
        turned.info["exif"] = exif.tobytes()
        distances[other] = distance(got, by_pillow(ImageOps.exif_transpose(turned)))
    assert min(distances, key=distances.__getitem__) == orientation
    assert distances[orientation] < near


def test_exif_rotation_is_found_behind_a_large_profile_and_in_xmp() -> None:
    stored, exif = photo(80, 56), Image.Exif()
    exif[ORIENTATION] = 6
    plain = encode(stored, "JPEG")
    turned = decode(encode(stored, "JPEG", exif=exif), TO)
    segment = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    other = b"ICC_PROFILE\0\1\1" + bytes(9000)
    before = b"\xff\xe2" + struct.pack(">H", len(other) + 2) + other
    far = plain[:20] + before + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[20:]
    assert np.array_equal(decode(far, TO), turned)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"></x:xmpmeta>'
    assert np.array_equal(decode(encode(stored, "JPEG", xmp=xmp[29:]), TO), turned)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_unknown_or_broken_rotation_leaves_the_image_as_it_is(value: object) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    content = encode(photo(), "JPEG", exif=exif)
    assert np.array_equal(decode(content, TO), decode(encode(photo(), "JPEG"), TO))
    start = content.find(b"Exif\0\0") + 6
    broken = content[:start] + b"\xff" * 12 + content[start + 12 :]
    assert np.array_equal(decode(broken, TO), decode(content, TO))


def grey_levels(pixels: np.ndarray) -> np.ndarray:
    """(S, S) of an image of three equal channels."""
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    grey = photo(32, 32).convert("L")
    got = grey_levels(decode(encode(grey, kind, **({"lossless": True} if kind == "WEBP" else {})), TO))
    assert distance(got, np.asarray(grey)) < (3 if kind == "JPEG" else 0.01)


def test_sixteen_bits_keep_their_upper_byte() -> None:
    levels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64 + 63
    for kind in ("PNG", "TIFF"):
        got = grey_levels(decode(encode(Image.fromarray(levels), kind), TO))
        assert np.array_equal(got, levels >> 8)
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in levels)
    assert np.array_equal(grey_levels(decode(_png16(rows), TO)), levels >> 8)


def _png16(rows: bytes) -> bytes:
    """A PNG of 32 x 32 pixels of 16-bit RGB."""
    import zlib

    content = bytearray(attacks.png(32, 32, rows=zlib.compress(rows)))
    content[24] = 16  # bit depth
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_cmyk_is_converted_as_pillow_does() -> None:
    content = encode(photo(32, 32).convert("CMYK"), "JPEG", quality=95)
    assert distance(decode(content, TO), np.asarray(Image.open(BytesIO(content)).convert("RGB"))) == 0
    assert distance(decode(content, TO), np.asarray(photo(32, 32))) < 6


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
def test_transparent_pixels_lie_on_white(mode: str, kind: str) -> None:
    picture = Image.new("RGBA", (32, 32), (100, 100, 100, 255))
    picture.paste((100, 100, 100, 0), (0, 0, 16, 32))
    picture.paste((100, 100, 100, 128), (0, 0, 32, 8))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    got = grey_levels(decode(encode(picture.convert(mode), kind, **options), TO))
    half = 100 * 128 / 255 + 255 * 127 / 255
    assert (got[16:, :16] == 255).all() and (got[16:, 16:] == 100).all()
    assert np.abs(got[:8] - half).max() <= 1


def test_a_palette_and_its_transparent_colour_are_looked_up() -> None:
    picture = Image.new("P", (32, 32), 1)
    picture.putpalette([250, 0, 0, 0, 120, 7, 0, 0, 0])
    picture.paste(0, (0, 0, 32, 16))
    for kind in ("PNG", "GIF"):
        opaque = decode(encode(picture, kind), TO)
        assert (opaque[:16] == (250, 0, 0)).all() and (opaque[16:] == (0, 120, 7)).all()
        seen_through = decode(encode(picture, kind, transparency=0), TO)
        assert (seen_through[:16] == 255).all() and (seen_through[16:] == (0, 120, 7)).all()


def test_one_bit_is_black_or_white() -> None:
    picture = Image.new("1", (32, 32), 0)
    picture.paste(1, (0, 0, 32, 16))
    for kind in ("PNG", "BMP", "TIFF", "GIF"):
        got = grey_levels(decode(encode(picture, kind), TO))
        assert (got[:16] == 255).all() and (got[16:] == 0).all()


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {"default_image": False})])
def test_of_an_animation_the_first_frame_counts(kind: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((200, 10, 10), (10, 200, 10), (10, 10, 200))]
    got = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options), TO)
    assert (got == (200, 10, 10)).all()


def test_a_camera_file_of_several_pictures_is_its_first() -> None:
    content = encode(photo(), "MPO", save_all=True, append_images=[photo(seed=9)])
    assert distance(decode(content, TO), by_pillow(Image.open(BytesIO(content)))) < 1


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"quality": 100}, {"keep_rgb": True}]
)
def test_every_usual_jpeg_is_as_pillow_decodes_it(options: dict[str, object]) -> None:
    content = encode(photo(32, 32), "JPEG", **options)
    assert distance(decode(content, TO), np.asarray(Image.open(BytesIO(content)))) < 0.1


def test_a_jpeg_with_garbage_around_its_pixels_stays_good() -> None:
    content = encode(photo(), "JPEG")
    whole = decode(content, TO)
    assert np.array_equal(decode(content + b"\r\n--boundary--\r\n" + bytes(999), TO), whole)
    extra = content[:-2] + b"\0\1\2\3" + content[-2:]  # libjpeg-turbo complains of these, Pillow shrugs
    assert distance(decode(extra, TO), whole) < 1.5


@pytest.mark.parametrize(
    ("width", "height"), [(401, 533), (1, 1), (1, 1000), (3000, 10), (10, 3000), (40000, 8), (33, 32), (31, 33), (2, 700), (500, 500)]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_odd_sizes_come_out_as_pillow_has_them(kind: str, width: int, height: int) -> None:
    content = encode(photo(width, height), kind)
    got = decode(content, TO)
    assert got.shape == (32, 32, 3)
    assert distance(got, by_pillow(Image.open(BytesIO(content)))) < (2 if kind == "JPEG" else 0.3)


@pytest.mark.parametrize("size_px", [32, 64, 96, 224])
@pytest.mark.parametrize(
    ("width", "height"),
    [(32, 32), (100, 100), (127, 127), (200, 200), (255, 255), (383, 383), (510, 510), (640, 480), (480, 640), (1600, 1200)],
)
def test_shrinking_agrees_with_torchvision(width: int, height: int, size_px: int) -> None:
    if size_px * max(width, height) % min(width, height) or (size_px * max(width, height) // min(width, height) - size_px) % 2:
        pytest.skip("torchvision itself rounds the crop by half a pixel here")
    for kind, near in (("PNG", 0.35), ("JPEG", 1.5)):
        content = encode(photo(width, height, seed=width), kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 1}))
        got, wanted = decode(content, to(size_px)), by_torchvision(content, size_px)
        assert distance(got, wanted) < near, kind
        assert abs(float(got.mean()) - float(wanted.mean())) < 0.35


@pytest.mark.parametrize("size_px", [64, 96, 128])
@pytest.mark.parametrize(("width", "height"), [(401, 533), (533, 401), (200, 200), (257, 300), (80, 71), (1201, 1001)])
@pytest.mark.parametrize(("kind", "options"), [("PNG", {"compress_level": 1}), ("JPEG", {"quality": 98, "subsampling": 0})])
def test_a_picture_is_neither_shifted_nor_stretched(kind: str, options: dict[str, int], width: int, height: int, size_px: int) -> None:
    """Waves of 8 output pixels across in red and down in green: their phase near both borders tells the place to a hundredth of a pixel."""
    step = min(width, height) / size_px
    turn = 2 * np.pi / (8 * step)
    waves = np.stack(np.broadcast_arrays(np.cos(turn * np.arange(width))[None], np.cos(turn * np.arange(height))[:, None], 0), axis=2)
    got = decode(encode(Image.fromarray(np.rint(128 + 90 * waves).astype(np.uint8)), kind, **options), to(size_px)).astype(float)
    for length, line in ((width, got[..., 0].mean(axis=0)), (height, got[..., 1].mean(axis=1))):
        source = (length - size_px * step) / 2 + (np.arange(size_px) + 0.5) * step - 0.5
        for part in (slice(4, 28), slice(-28, -4)):
            phase = np.angle(np.sum((line[part] - 128) * np.exp(-1j * turn * source[part])))
            assert abs(phase) / (2 * np.pi) * 8 < 0.03, "output pixels"


def test_the_crop_may_be_smaller_than_the_resized_side() -> None:
    picture = photo(96, 96)
    wanted = np.asarray(picture.resize((48, 48), Image.Resampling.BILINEAR))[8:40, 8:40]
    assert distance(decode(encode(picture, "PNG"), to(32, 48)), wanted) < 0.1
    assert distance(decode(encode(picture, "JPEG", quality=98), to(32, 48)), wanted) < 2


@pytest.mark.parametrize("name", pictures.images())
def test_a_cut_file_is_refused_or_was_whole_already(name: str) -> None:
    content = pictures.images()[name]
    whole = decode(content, TO)
    for length in range(1, len(content), 1 if "png" in name else 7):
        try:
            assert np.array_equal(decode(content[:length], TO), whole), length  # only marks of the end were lost
        except BadImage as error:
            assert error.status == 400
    assert refusal(content[: len(content) // 3]).status == 400


def test_every_cut_of_a_jpeg_is_refused() -> None:
    content = pictures.images()["baseline"]
    assert {refusal(content[:length]).status for length in range(len(content))} == {400}


@pytest.mark.parametrize("name", attacks.constructed())
def test_a_constructed_body_is_refused_with_its_status(name: str) -> None:
    content, status = attacks.constructed()[name]
    started = time.perf_counter()
    error = refusal(content)
    assert error.status == status, error
    assert time.perf_counter() - started < 1.0
    assert error.kind.isalpha() and len(str(error)) < 250
    assert hostile.is_refused(content)


def test_nothing_and_too_much_are_told_in_bytes() -> None:
    assert (refusal(b"").status, refusal(b"").kind) == (400, "NotAnImage")
    exactly = encode(photo(), "JPEG").ljust(TO.max_image_bytes, b"\0")
    assert decode(exactly, TO).shape == (32, 32, 3)
    error = refusal(exactly + b"\0")
    assert (error.status, error.kind) == (413, "TooLarge")
    assert "got 200001 bytes, the limit is 200000" in str(error)


def test_as_many_pixels_as_allowed_and_no_more() -> None:
    for kind in ("JPEG", "PNG"):
        assert decode(encode(Image.new("L", (1000, 1000)), kind), TO).shape == (32, 32, 3)
        error = refusal(encode(Image.new("L", (1001, 1000)), kind))
        assert (error.status, error.kind) == (413, "TooLarge") and "1001 x 1000" in str(error)


def test_what_looks_like_an_attack_in_small_is_an_image() -> None:
    whole = Image.new("L", (96, 96), 90)
    assert distance(decode(attacks.many_scans(60), TO), by_pillow(whole)) < 1
    strips = encode(photo(40, 300), "TIFF", tiffinfo={278: 1})
    assert len(Image.open(BytesIO(strips)).tile) > 1
    assert distance(decode(strips, TO), by_pillow(photo(40, 300))) < 0.5


def test_bytes_of_any_kind_of_buffer_decode_alike() -> None:
    content = encode(photo(), "JPEG")
    for buffer in (bytearray(content), memoryview(content), memoryview(b"xx" + content)[2:]):
        assert np.array_equal(decode(buffer, TO), decode(content, TO))


def test_mutated_images_raise_nothing_else_and_agree_with_pillow() -> None:
    slowest = 0.0
    for body in hostile.hostile(3000, seed=7):
        started = time.process_time()
        try:
            refused = decode(body.content, TO).shape != (32, 32, 3)
        except BadImage as error:
            refused = True
            assert error.status in (400, 413, 415)
        slowest = max(slowest, time.process_time() - started)
        assert refused == body.refused, body.name
    assert slowest < 2.0
