"""``data.resize``: how pictures are brought to one size, the same whatever gives them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset, TensorDataset

from classroomkd import data
from classroomkd.data import decode, geometry
from classroomkd.data import puppets as drawing
from classroomkd.data.sources import python
from classroomkd.data.sources.base import fingerprint
from classroomkd.data.spec import RESIZE
from classroomkd.errors import UserError

SIDES = [(300, 100), (100, 300), (97, 64), (64, 97), (20, 20), (33, 50), (500, 3), (64, 64), (31, 640), (5, 4)]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, shape, dtype=np.uint8))


def by_hand(image: Image.Image, size: int) -> Image.Image:
    """torchvision's Resize and CenterCrop, as its pages say it."""
    width, height = image.size
    short, long = min(width, height), int(size * max(width, height) / min(width, height))
    image = image.resize((size, long) if width == short else (long, size), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [32, 64, 37])
@pytest.mark.parametrize("side", SIDES)
def test_three_rules_in_lines_of_pillow(side: tuple[int, int], size: int, mode: str) -> None:
    image = picture(*side, mode)
    assert np.array_equal(geometry.fit_image(image, size, "crop"), pixels(by_hand(image, size)))
    stretched = image.resize((size, size), Image.Resampling.BILINEAR)
    assert np.array_equal(geometry.fit_image(image, size, "stretch"), pixels(stretched))
    if max(side) / min(side) <= 2 * size:  # Pillow refuses what has no width left
        boxed = ImageOps.pad(image, (size, size), Image.Resampling.BILINEAR)
        assert np.array_equal(geometry.fit_image(image, size, "letterbox"), pixels(boxed))


@pytest.mark.parametrize("side", SIDES)
def test_crop_is_torchvisions_to_the_bit(side: tuple[int, int]) -> None:
    try:
        from torchvision import transforms
    except (ImportError, RuntimeError):  # absent, or made for another torch
        pytest.skip("torchvision is not there")
    image = picture(*side)
    expected = transforms.Compose([transforms.Resize(48), transforms.CenterCrop(48)])(image)
    assert np.array_equal(geometry.fit_image(image, 48, "crop"), pixels(expected))


def test_small_pictures_are_enlarged_and_only_letterbox_and_pad_leave_black() -> None:
    white = Image.new("L", (50, 20), 255)
    black = {rule: int((geometry.fit_image(white, 64, rule) == 0).sum()) // 3 for rule in RESIZE}
    assert black == {"crop": 0, "letterbox": 64 * (64 - 26), "pad": 64 * 64 - 50 * 20, "stretch": 0}


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
def test_without_a_size_pictures_keep_theirs_but_small_ones(resize: str) -> None:
    for width, height in ((48, 32), (32, 40)):
        image = picture(width, height)
        assert np.array_equal(geometry.fit_image(image, None, resize), pixels(image))
        assert geometry.fitted_shape(height, width, None, resize) == (height, width)
    for side in ((28, 28), (100, 20), (8, 8)):
        image = picture(*side)
        assert np.array_equal(geometry.fit_image(image, None, resize), geometry.fit_image(image, 32, resize))
        assert geometry.fitted_shape(*image.size[::-1], None, resize) == (32, 32)


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_a_file_an_array_and_a_tensor_become_the_same_pixels(tmp_path: Path, ending: str, resize: str) -> None:
    image = picture(40, 60) if resize == "pad" else picture(100, 60)
    image.save(tmp_path / f"a.{ending}")
    file = decode.decode(tmp_path / f"a.{ending}", 64, resize)
    array = geometry.fit(pixels(image)[None], 64, resize)
    tensor = geometry.fit(torch.from_numpy(pixels(image).copy())[None], 64, resize)
    assert np.array_equal(file, array[0].numpy())
    assert torch.equal(array, tensor)


def test_a_large_jpeg_is_what_pillow_makes_of_it(tmp_path: Path) -> None:
    picture(900, 700).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        expected = pixels(by_hand(image.convert("RGB"), 64))
    assert np.array_equal(decode.decode(tmp_path / "a.jpg", 64, "crop"), expected)


def test_a_thread_of_pixels_is_refused_and_not_blown_up() -> None:
    with pytest.raises(UserError, match=r"here: it is 200000x1, too long and thin for resize: crop; choose letterbox"):
        geometry.fit(np.zeros((1, 1, 200_000), np.uint8), 224, "crop", where="here")
    assert geometry.fit(np.zeros((1, 1, 200_000), np.uint8), 224, "letterbox").shape == (1, 3, 224, 224)


# --- data sets --------------------------------------------------------------------------------------------------------


class Grey(Dataset[Any]):
    """40 pictures of the sides given, in turn, of two classes; as arrays, tensors or PIL images."""

    classes = ("a", "b")

    def __init__(self, *sides: tuple[int, int], kind: str = "pil") -> None:
        self.sides, self.kind = sides, kind

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[Any, int]:
        if i >= len(self):
            raise IndexError(i)
        width, height = self.sides[i % len(self.sides)]
        array = np.random.default_rng(i).integers(0, 256, (height, width), dtype=np.uint8)
        return {"pil": Image.fromarray, "array": np.asarray, "tensor": torch.from_numpy}[self.kind](array), i % 2


@pytest.mark.parametrize("resize", RESIZE)
def test_a_dataset_is_the_same_whatever_its_items_are(resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for kind, budget in (("pil", 2**30), ("array", 2**30), ("tensor", 2**30), ("pil", 0)):
        monkeypatch.setattr(python, "BUDGET", budget)
        images = data.load({"source": Grey((60, 40), (30, 50), kind=kind), "size": 64, "resize": resize})
        seen.append(images.test.batch(torch.arange(len(images.test)))[0])
    if resize == "pad":  # which has always resized arrays in another way
        seen = seen[1:3]
    assert all(torch.equal(seen[0], other) for other in seen)


PUPPETS = {"source": "puppets", "options": {"train": 40, "test": 20, "image_size": 32}}


def test_keys_of_pictures_that_had_their_size_stay() -> None:
    """What was stored of them before there were rules is still used."""
    text = f"puppets {drawing.VERSION} seed=0 hard=0.7 image_size=32 size=None {{'train': 40, 'test': 20}}"
    assert {data.load({**PUPPETS, "resize": rule}).fingerprint for rule in RESIZE} == {fingerprint(text)}
    assert not data.load(PUPPETS).resized
    keys = {rule: data.load({**PUPPETS, "size": 48, "resize": rule}).fingerprint for rule in RESIZE}
    assert keys["pad"] == fingerprint(text.replace("size=None", "size=48"))
    assert len(set(keys.values())) == len(RESIZE)


@pytest.mark.parametrize("memory_gib", [2.0, 0.0])
def test_keys_of_a_folder(tmp_path: Path, memory_gib: float) -> None:
    for i in range(12):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        picture(64 if i else 63, 64).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    folder = {"source": f"imagefolder:{tmp_path}", "size": 64, "options": {"memory_gib": memory_gib}}
    assert len({data.load({**folder, "resize": rule}).fingerprint for rule in RESIZE}) == len(RESIZE)
    picture(64, 64).save(tmp_path / "a" / "0.png")
    assert len({data.load({**folder, "resize": rule}).fingerprint for rule in RESIZE}) == 1


@pytest.mark.parametrize("budget", [2**30, 0])
def test_notes_say_what_is_cut_off(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "BUDGET", budget)

    def notes(*sides: tuple[int, int], **keys: Any) -> list[str]:
        return [note for note in data.load({"source": Grey(*sides), "size": 48, **keys}).notes if "resize:" in note]

    assert notes((300, 100)) == [
        "resize: crop cuts 67% on average off 40 of 40 pictures, which are much longer one way (up to "
        "300x100, width x height); data.resize: letterbox or stretch keeps all of a picture"
    ]
    (half,) = notes((60, 40), (50, 100), (64, 48), (48, 48))
    assert half.startswith("resize: crop cuts 50% on average off 10 of 40 pictures")
    assert notes((60, 40), (40, 60), (48, 48)) == []  # photographs
    assert notes((300, 100), resize="letterbox") == notes((300, 100), resize="stretch") == []
    assert notes((30, 20), (40, 40), (200, 90), resize="pad") == [
        "resize: pad leaves 27 of 40 pictures, of 30 to 40 pixels on the longer side, in black on 48x48 (53% of it);"
        " data.resize: crop enlarges them"
    ]
    assert notes((200, 90), (48, 48), resize="pad") == []


def test_digits_stand_in_no_black_by_themselves() -> None:
    fashion = Grey((28, 28))
    images = data.load({"source": fashion})
    assert images.shape == (3, 32, 32)
    assert not images.notes
    padded = data.load({"source": fashion, "resize": "pad"})
    assert "in black on 32x32 (23% of it)" in padded.notes[0]


def test_an_unknown_rule_and_a_rule_for_persons() -> None:
    with pytest.raises(UserError, match=r"data.resize = 'letterbx': .*did you mean 'letterbox'"):
        data.load({**PUPPETS, "resize": "letterbx"})
    with pytest.raises(UserError, match=r"data\.resize: 'crop' is for whole images"):
        data.load({"source": "puppets", "resize": "crop"}, task="pose")


# --- files and values -------------------------------------------------------------------------------------------------


def wide(tmp_path: Path, most: dict[str, int]) -> str:
    """A folder of 16-bit pictures of two classes whose values go up to so much."""
    for name, high in most.items():
        (tmp_path / name).mkdir()
        for i in range(10):
            values = np.random.default_rng(i).integers(high // 2, high + 1, (32, 32)).astype(np.uint16)
            values[0, 0] = high
            Image.fromarray(values).save(tmp_path / name / f"{i}.png")
    return f"imagefolder:{tmp_path}"


@pytest.mark.parametrize("memory_gib", [2.0, 0.0])
@pytest.mark.parametrize("most", [{"a": 4095, "b": 4095}, {"a": 65535, "b": 1023}, {"a": 255, "b": 65000}])
def test_sixteen_bits_of_which_few_are_used_are_noticed(
    tmp_path: Path, most: dict[str, int], memory_gib: float
) -> None:
    made = data.load({"source": wide(tmp_path, most), "options": {"memory_gib": memory_gib}})
    (note,) = [note for note in made.notes if "nearly black" in note]
    dim = sum(high < 2**14 for high in most.values())
    if memory_gib:
        assert note.startswith(f"{10 * dim} of 20 images are nearly black: no pixel above 63 of 255 (in ")
    named = re.search(r"\(in ([ab])/\d\.png \d+ at most\)", note)
    assert named is not None
    assert most[named[1]] < 2**14
    assert "16 bits by their upper byte" in note


def test_the_whole_range_is_no_note(tmp_path: Path) -> None:
    assert not [n for n in data.load(wide(tmp_path, {"a": 65535, "b": 40000})).notes if "black" in n]


@pytest.mark.parametrize("kind", ["floats of 0 to 1/255", "bytes of 0 and 1", "floats of 0 to 0.1"])
def test_values_of_another_range_are_noticed(kind: str) -> None:
    bits = torch.arange(40 * 32 * 32).reshape(40, 1, 32, 32) % 2
    values = {"floats of 0 to 1/255": bits / 255, "bytes of 0 and 1": bits.byte(), "floats of 0 to 0.1": bits / 10}
    made = data.load(TensorDataset(values[kind], torch.arange(40) % 2))
    assert sum("40 of 40 images are nearly black" in note for note in made.notes) == 1


@pytest.mark.parametrize("budget", [2**30, 0])
def test_black_data_are_an_error(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "BUDGET", budget)
    with pytest.raises(UserError, match=r"every pixel of \d+.* training images is 0\. Values count by the range"):
        data.load(TensorDataset(torch.full((40, 1, 32, 32), 1e-3), torch.arange(40) % 2))


def _exif(orientation: Any, damage: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    content = exif.tobytes()
    if damage == "cut":
        return content[: len(content) // 2]
    if damage == "header":
        return b"Exif\0\0XX" + content[8:]
    if damage == "offset":
        return content[:10] + b"\xff\xff\xff\x7f" + content[14:]
    return content


@pytest.mark.parametrize("damage", ["none", "cut", "header", "offset"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 0, 99])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_sound_pictures_with_broken_exif(tmp_path: Path, orientation: int, damage: str, ending: str) -> None:
    image = Image.fromarray(np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((16, 16), np.uint8)))
    file = tmp_path / f"a.{ending}"
    image.convert("RGB").save(file, exif=_exif(orientation, damage))
    seen = decode.decode(file, None, "crop")
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}
    with Image.open(file) as plain:
        plain = plain.convert("RGB")
        shown = plain.transpose(turns[orientation]) if damage == "none" and orientation in turns else plain
    turned = damage == "none" and orientation == 6
    assert decode.oriented_size(file) == seen.shape[1:] == ((64, 48) if turned else (48, 64))
    assert np.array_equal(seen, pixels(shown))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_are_turned_once(tmp_path: Path, orientation: int) -> None:
    image = picture(64, 40)
    for ending in ("tif", "png"):
        image.save(tmp_path / f"a.{ending}", exif=_exif(orientation, "none"))
    made = [decode.decode(tmp_path / f"a.{ending}", None, "crop") for ending in ("tif", "png")]
    assert np.array_equal(*made)
    sizes = [decode.oriented_size(tmp_path / f"a.{ending}") for ending in ("tif", "png")]
    assert sizes[0] == sizes[1] == made[0].shape[1:]


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JFIF", "dib", "tga", "pbm", "pnm", "pcx", "apng", "TIF", "jp2"])
def test_endings_of_pictures(tmp_path: Path, ending: str) -> None:
    kind = {"dib": "DIB", "tga": "TGA", "pcx": "PCX", "apng": "PNG", "jp2": "JPEG2000"}.get(ending)
    image = picture(40, 40).convert("1") if ending == "pbm" else picture(40, 40)
    for i in range(12):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        image.save(tmp_path / "ab"[i % 2] / f"{i}.{ending}", format=kind)
    made = data.load(f"imagefolder:{tmp_path}")
    assert len(made.train) + len(made.val) + len(made.test) == 12
