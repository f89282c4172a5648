"""COCO's format, on a small folder that the tests write."""

import json
import logging
import re

import pytest
import torch
from PIL import Image

from visreg.build import build_runner
from visreg.datasets.coco import CocoDetection
from visreg.errors import ConfigError, DataError
from visreg.objects import check_objects

SQUARE = [[2.0, 1.0, 12.0, 1.0, 12.0, 6.0, 2.0, 6.0]]  # x and y of each corner


def content():
    """Return what a file of three images, two categories and three annotations holds, ids with gaps as COCO's."""
    images = [{"id": place, "file_name": f"{place:012}.jpg", "height": 20, "width": 30} for place in (9, 25, 400)]
    crowd = {"size": [20, 30], "counts": [300, 300]}  # the right half: run lengths go down the columns
    annotations = [
        {
            "id": 7,
            "image_id": 9,
            "category_id": 18,
            "bbox": [2.0, 1.0, 10.0, 5.0],
            "segmentation": SQUARE,
            "area": 50.0,
        },
        {"id": 8, "image_id": 9, "category_id": 3, "bbox": [0.0, 0.0, 30.4, 20.0], "segmentation": crowd, "area": 51.0},
        {"id": 9, "image_id": 400, "category_id": 3, "bbox": [5, 5, 4, 3], "segmentation": SQUARE, "area": 12},
    ]
    annotations[1]["iscrowd"] = 1
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
    return {"images": images, "categories": categories, "annotations": annotations}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "val2017").mkdir()
    for image in content()["images"]:
        Image.new("RGB", (30, 20), (image["id"] % 256, 0, 0)).save(tmp_path / "val2017" / image["file_name"])
    (tmp_path / "annotations").mkdir()
    write(tmp_path, content())
    return tmp_path


def write(root, values):
    (root / "annotations" / "val.json").write_text(values if isinstance(values, str) else json.dumps(values))


def dataset(root, **options):
    found = CocoDetection(root=str(root / "val2017"), annotations=str(root / "annotations" / "val.json"), **options)
    found.open()
    return found


def test_samples(root):
    coco = dataset(root)
    coco.open()
    assert (coco.info.name, coco.info.classes, len(coco)) == ("COCO val", ("car", "dog"), 3)
    one, empty, last = (coco[index] for index in range(3))
    assert one["boxes"].tolist() == [[2, 1, 12, 6], [0, 0, 30, 20]]  # cut to the image
    assert one["labels"].tolist() == [1, 0]
    assert one["crowd"].tolist() == [False, True]
    assert one["area"].tolist() == [50, 51]
    assert last["labels"].tolist() == [0]
    assert {key: tuple(empty[key].shape) for key in empty} == {
        "image": (3, 20, 30), "boxes": (0, 4), "labels": (0,), "crowd": (0,), "area": (0,),
    }  # fmt: skip
    assert one.keys() == empty.keys() == set(coco.info.keys)
    assert {value.dtype for key, value in one.items() if key in ("boxes", "area")} == {torch.float32}


def test_samples_are_found_right(root):
    for sample in map(dataset(root).__getitem__, range(3)):
        check_objects({key: value[None] if key == "image" else [value] for key, value in sample.items()}, 2)


def test_nothing_is_read_before_it_is_opened(tmp_path):
    coco = CocoDetection(root="nowhere", annotations="nothing.json", classes=["car", "dog"])
    assert (coco.info.classes, len(coco)) == (("car", "dog"), 0)


def test_masks_are_drawn(root):
    pytest.importorskip("faster_coco_eval")
    coco = dataset(root, masks=True)
    masks = coco[0]["masks"]
    assert masks.dtype == torch.bool
    assert masks.shape == (2, 20, 30)
    assert masks[0].nonzero().amin(0).tolist() == [1, 2]
    assert int(masks[0].sum()) == 50
    assert masks[1].sum(0).tolist() == [0] * 15 + [20] * 15
    assert coco[1]["masks"].shape == (0, 20, 30)
    assert "masks" in coco.info.keys


def test_a_segmentation_that_is_none_is_named(root):
    pytest.importorskip("faster_coco_eval")
    values = content()
    values["annotations"][1]["segmentation"]["counts"] = [-3, "x"]
    write(root, values)
    with pytest.raises(DataError, match=r"000000000009\.jpg: the segmentation of object 1 cannot be drawn"):
        dataset(root, masks=True)[0]


def test_what_no_mask_can_be_drawn_from_is_found_at_opening_where_there_are_to_be_masks(root):
    values = content()
    faults = {
        "has no segmentation; masks=True needs one": [None, []],
        "each polygon .* x and y of 3 corners or more": [[[1, 2, 3]], [SQUARE[0][:7]], [[]], SQUARE[0], [*SQUARE, "x"]],
        "is neither polygons nor run lengths": ["square", {"counts": [3, 4]}],
    }
    parts = [(part, segmentation) for part, segmentations in faults.items() for segmentation in segmentations]
    sound = values["annotations"][2]
    values["annotations"] += [{**sound, "id": 90 + at, "segmentation": each} for at, (_, each) in enumerate(parts)]
    values["annotations"].append({key: sound[key] for key in ("image_id", "category_id", "bbox")} | {"id": 50})
    values["images"][0]["file_name"] = "gone.jpg"
    write(root, values)
    with pytest.raises(DataError) as raised:
        dataset(root, masks=True)
    first, *found = raised.value.mistakes
    assert "gone.jpg" in first
    wanted = [f"annotation {90 + at} .*{part}" for at, (part, _) in enumerate(parts)]
    for pattern, mistake in zip([*wanted, "annotation 50 has no segmentation"], found, strict=True):
        assert re.search(rf"val\.json: {pattern}", mistake)
    with pytest.raises(DataError) as raised:
        dataset(root)
    assert len(raised.value.mistakes) == 1


def test_images_without_objects_can_be_left_out(root):
    assert len(dataset(root, empty=False)) == 2


def test_a_set_without_a_single_object_is_refused(root):
    write(root, {**content(), "annotations": []})
    with pytest.raises(DataError, match=r"val\.json: not one of its 3 images has an object"):
        dataset(root)


def test_images_of_a_size_that_the_model_cannot_take_are_named(root):
    config = {
        "task": {"type": "Detection"},
        "model": {"type": "YOLO", "num_classes": 2},
        "loss": {"type": "YOLOLoss"},
        "optimizer": {"type": "SGD", "lr": 0.1},
        "train": {
            "dataset": {
                "type": "CocoDetection",
                "root": f"{root}/val2017",
                "annotations": f"{root}/annotations/val.json",
            },
            "batch_size": 1,
        },
        "run": {"steps": 1, "work_dir": str(root / "work")},
    }
    wanted = (
        r"model: cannot take the samples of COCO val, image \(3, 20, 30\): .* must divide by the stride 32; give all"
    )
    with pytest.raises(ConfigError, match=wanted):
        build_runner(config)


def test_files_are_looked_for_under_the_data_root(root, monkeypatch):
    monkeypatch.setenv("VISREG_DATA", str(root))
    coco = CocoDetection(root="val2017", annotations="annotations/val.json")
    coco.open()
    assert len(coco) == 3
    with pytest.raises(DataError, match=r"val\.jsn: no such file; did you mean 'val\.json'"):
        CocoDetection(root="val2017", annotations="annotations/val.jsn").open()
    with pytest.raises(DataError, match=r"val2018: no such folder; did you mean 'val2017'"):
        CocoDetection(root="val2018", annotations="annotations/val.json").open()


def test_boxes_without_area_are_left_out_and_told_of(root, caplog):
    values = content()
    values["annotations"][0]["bbox"] = [2.0, 1.0, 0.0, 5.0]
    write(root, values)
    with caplog.at_level(logging.WARNING, logger="visreg"):
        coco = dataset(root)
    assert coco[0]["labels"].tolist() == [0]
    assert caplog.text.endswith("left out 1 box without area, of annotation 7\n")


def test_classes_can_be_held_against_the_file(root):
    assert dataset(root, classes=["car", "dog"]).info.classes == ("car", "dog")
    with pytest.raises(DataError, match=r"val\.json: its categories are car, dog; the config says dog, car"):
        dataset(root, classes=["dog", "car"])


def changed(path, value):
    values = content()
    place = values
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{'images'", "is not JSON: "),
        ("", "is not JSON: "),
        ("[1, 2]", "expected a dict with 'images', 'categories', 'annotations', found a list"),
        (changed(["categories"], None), "no key 'categories'"),
        (changed(["images"], {}), "'images' is no list"),
        (changed(["annotations", 1, "bbox"], None), r"annotations\[1\] has no key 'bbox'"),
        (changed(["images", 2, "height"], None), r"images\[2\] has no key 'height'"),
        (changed(["annotations", 2, "image_id"], 5), "annotation 9 is of image 5, which is not among the images"),
        (changed(["annotations", 2, "category_id"], 5), "annotation 9 is of category 5, which is not among"),
        (changed(["annotations", 2, "bbox"], [1, 2, 3]), r"annotation 9: 'bbox' must be four numbers"),
        (changed(["annotations", 2, "bbox"], ["1", 2, 3, 4]), r"annotation 9: 'bbox' must be four numbers"),
        (changed(["annotations", 2, "bbox"], [5, 5, 40, 3]), r"annotation 9: its box \[5, 5, 45, 8\].* reaches out"),
        (changed(["annotations", 2, "bbox"], [5, 5, float("nan"), 3]), "annotation 9: its box .* is not finite"),
        (
            changed(["annotations", 2, "bbox"], [5, 5, -4, 3]),
            r"annotation 9: its 'bbox' \[5, 5, -4, 3\] has a negative",
        ),
        (
            changed(["annotations", 2, "bbox"], [5, 5, 4, -3]),
            r"annotation 9: its 'bbox' \[5, 5, 4, -3\] has a negative",
        ),
        (changed(["categories", 1, "name"], "dog"), "2 categories have the name 'dog'; rename them"),
        (changed(["annotations", 2, "id"], 7), "another of the annotations has its id, 7"),
        (changed(["images", 2, "file_name"], "gone.jpg"), "annotates an image that is not in .*val2017: gone.jpg"),
        (changed(["images"], []), "annotation 7 is of image 9"),
        (changed(["images", 0, "width"], "30"), r"images\[0\]: 'width' must be int or float, found '30'"),
        (changed(["annotations", 1, "category_id"], [3]), r"annotations\[1\]: 'category_id' must be int or str"),
        (changed(["annotations", 0, "area"], "50"), r"annotations\[0\]: 'area' must be int or float, found '50'"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(root, values, message):
    write(root, values)
    with pytest.raises(DataError, match=rf"val\.json: .*{message}|val\.json: {message}"):
        dataset(root)


def test_an_image_of_another_size_is_named(root):
    Image.new("RGB", (31, 20)).save(root / "val2017" / "000000000009.jpg")
    with pytest.raises(DataError, match=r"9\.jpg: is 20×31, but its annotation says 20×30"):
        dataset(root)[0]


def test_a_mask_of_another_size_is_named(root):
    pytest.importorskip("faster_coco_eval")
    values = content()
    values["annotations"][0]["segmentation"] = {"size": [10, 10], "counts": [50, 50]}
    write(root, values)
    with pytest.raises(DataError, match=r"9\.jpg: the mask of object 0 is 10×10, the image 20×30"):
        dataset(root, masks=True)[0]


@pytest.mark.parametrize("upright", [True, False])
def test_a_photograph_on_its_side_is_taken_as_it_was_annotated(root, upright):
    pixels = torch.zeros(20, 30, 3, dtype=torch.uint8)
    pixels[:5] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90° to see it upright
    Image.fromarray(pixels.numpy()).save(root / "val2017" / "000000000009.jpg", exif=exif, quality=100)
    values = content()
    place = next(index for index, image in enumerate(values["images"]) if image["id"] == 9)
    if upright:
        values["images"][place] |= {"width": 20, "height": 30}
        values["annotations"][0]["bbox"] = [1.0, 1.0, 5.0, 5.0]
        values["annotations"][1]["bbox"] = [1.0, 1.0, 5.0, 5.0]
    write(root, values)
    image = dataset(root)[place]["image"]
    assert image.shape == ((3, 30, 20) if upright else (3, 20, 30))
    bright = image[:, :, -4:] if upright else image[:, :4]
    assert bright.float().mean() > 240
    assert image.float().mean() < 100


def test_all_that_is_wrong_is_said_at_once(root):
    values = content()
    values["images"][1]["file_name"] = "gone.jpg"
    values["annotations"][0]["bbox"] = [50, 50, 10, 5]
    values["annotations"][1] |= {"category_id": 99, "image_id": 998}
    values["annotations"][2]["bbox"] = [1, 2, 3]
    write(root, values)
    with pytest.raises(DataError, match="5 things are wrong:\n") as raised:
        dataset(root)
    places = ["gone.jpg", "annotation 8 is of image 998", "annotation 8 is of category 99", "annotation 9", "ation 7"]
    assert len(raised.value.mistakes) == len(places)
    for mistake, place in zip(raised.value.mistakes, places, strict=True):
        assert "val.json: " in mistake
        assert place in mistake


def test_all_that_is_wrong_with_the_form_is_said_at_once(root):
    values = content()
    del values["categories"], values["images"][0]["width"], values["images"][2]["file_name"]
    write(root, values)
    with pytest.raises(DataError) as raised:
        dataset(root)
    found = [mistake.partition("val.json: ")[2] for mistake in raised.value.mistakes]
    assert found == [
        "images[0] has no key 'width'", "images[2] has no key 'file_name'",
        "no key 'categories'; choose from annotations, images",
    ]  # fmt: skip
