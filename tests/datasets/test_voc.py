"""PASCAL VOC's format, on a small folder that the tests write."""

import pytest
from PIL import Image

from visreg.datasets.voc import CLASSES, VOCDetection
from visreg.errors import DataError

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def xml(*objects):
    size = "<size><width>30</width><height>20</height><depth>3</depth></size>"
    body = "".join(OBJECT.format(name=name, difficult=difficult, box=box) for name, difficult, box in objects)
    return f"<annotation><folder>VOC2007</folder>{size}{body}</annotation>"


@pytest.fixture
def folder(tmp_path):
    """The folder VOC2007, of two images."""
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    for name in ("000001", "000002"):
        Image.new("RGB", (30, 20)).save(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "ImageSets/Main/train.txt").write_text("000001\n000002\n")
    (folder / "Annotations/000001.xml").write_text(xml(("dog", 0, (3, 5, 10, 20)), ("person", 1, (1, 1, 30, 20))))
    (folder / "Annotations/000002.xml").write_text(xml())
    return folder


def dataset(folder, **options):
    found = VOCDetection(root=str(folder.parents[1]), year="2007", **options)
    found.open()
    return found


def test_samples(folder):
    voc = dataset(folder)
    voc.open()
    assert (voc.info.name, voc.info.classes, len(voc)) == ("VOC2007 train", CLASSES, 2)
    one, empty = voc[0], voc[1]
    assert one["boxes"].tolist() == [[2, 4, 10, 20], [0, 0, 30, 20]]  # counted from 0, the last pixel inside
    assert [CLASSES[label] for label in one["labels"]] == ["dog", "person"]
    assert one["crowd"].tolist() == [False, True]
    assert empty["boxes"].shape == (0, 4)
    assert one.keys() == empty.keys() == set(voc.info.keys)
    assert dataset(folder, difficult="keep")[0]["crowd"].tolist() == [False, False]


@pytest.mark.parametrize("levels", [0, 1])
def test_the_folder_itself_will_do(folder, levels, monkeypatch):
    monkeypatch.setenv("VISREG_DATA", str(folder.parents[levels] if levels else folder))
    voc = VOCDetection(year="2007")
    voc.open()
    assert len(voc) == 2


def test_classes_are_known_before_anything_is_read():
    assert len(VOCDetection().info.classes) == len(CLASSES) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><size>", "cannot be read as XML"),
        (None, "no such file, and the image set 'train' lists it"),
        ("<annotation></annotation>", "found no 'size/width'"),
        (xml(("dgo", 0, (1, 1, 2, 2))), "object 0 is a 'dgo', no class; did you mean 'dog'"),
        (xml(("dog", 0, (1, 1, "x", 2))), "object 0: found 'x', which is no number, as 'bndbox/xmax'"),
        (xml(("dog", 0, (8, 1, 2, 2))), r"object 0: its box \[8, 1, 2, 2\] has no area"),
        (xml(("dog", 0, (8, 1, 40, 2))), "object 0: its box .* reaches out of its image"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(folder, text, message):
    file = folder / "Annotations/000002.xml"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(DataError, match=rf"000002\.xml: {message}"):
        dataset(folder)


def test_an_image_of_another_size_is_named(folder):
    Image.new("RGB", (20, 30)).save(folder / "JPEGImages/000001.jpg")
    with pytest.raises(DataError, match=r"000001\.jpg: is 30×20, but its annotation says 20×30"):
        dataset(folder)[0]


def test_missing_files_are_named(folder):
    with pytest.raises(DataError, match=r"trian\.txt: no such file; did you mean 'train\.txt'"):
        dataset(folder, image_set="trian")
    (folder / "JPEGImages/000002.jpg").unlink()
    with pytest.raises(DataError, match=r"train\.txt: annotates an image that is not in .*JPEGImages: 000002\.jpg"):
        dataset(folder)
    with pytest.raises(DataError, match="no VOCdevkit/VOC2012 in it"):
        VOCDetection(root=str(folder / "JPEGImages")).open()


def test_all_that_is_wrong_is_said_at_once(folder):
    (folder / "Annotations/000001.xml").write_text(xml(("dgo", 0, (8, 1, 40, 2)), ("dog", 0, (1, 1, "x", 2))))
    (folder / "Annotations/000002.xml").write_text("<annotation><size>")
    (folder / "JPEGImages/000002.jpg").unlink()
    with pytest.raises(DataError, match="5 things are wrong:\n") as raised:
        dataset(folder)
    places = ["train.txt", "000001.xml: object 0 is a 'dgo'", "000001.xml: object 0: its box"]
    places += ["000001.xml: object 1: found 'x'", "000002.xml: cannot be read"]
    assert [place in each for place, each in zip(places, raised.value.mistakes, strict=True)] == [True] * 5
