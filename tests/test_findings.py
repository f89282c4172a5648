"""What was predicted, as plain data."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from visreg.data import IGNORE, DataInfo
from visreg.findings import as_data, has_places, in_original, mask_image, of_image, run_lengths
from visreg.placement import Axis, Placement

INFO = DataInfo(name="pets", classes=("cat", "dog"), others={"mask": ("background", "cat"), "large": ("no", "yes")})
SAME = Placement(Axis(4, 4), Axis(4, 4))
HALF = Placement(Axis(8, 4, 0.5), Axis(8, 4, 0.5))


def objects(**more):
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 4]])
    return {"boxes": boxes, "labels": torch.tensor([1, 0]), "scores": torch.tensor([0.9, 0.2]), **more}


def test_one_image_of_a_batch():
    batch = {
        "label": torch.tensor([1, 0]),
        "boxes": [torch.ones(1, 4), torch.zeros(2, 4)],
        "head": {"label": torch.tensor([0, 1])},
    }
    found = of_image(batch, 1)
    assert (int(found["label"]), len(found["boxes"]), int(found["head"]["label"])) == (0, 2, 1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
@pytest.mark.parametrize("mask", [torch.zeros(3, 5), torch.ones(3, 5), torch.eye(4, 6), torch.rand(7, 9) > 0.5])
def test_run_lengths_are_those_of_coco(mask):
    codec = pytest.importorskip("pycocotools.mask")
    made = run_lengths(mask.bool())
    assert np.array_equal(codec.decode(codec.frPyObjects(made, *made["size"])), mask.numpy().astype(np.uint8))
    assert sum(made["counts"]) == mask.numel()


def test_unsure_objects_are_left_out_and_the_others_moved():
    found = in_original(objects(masks=torch.ones(2, 4, 4, dtype=torch.bool), extra=3), HALF, threshold=0.5)
    assert found["boxes"].tolist() == [[0, 0, 4, 4]]
    assert found["masks"].shape == (1, 8, 8)
    assert as_data(found, INFO, 5, {})["objects"][0].keys() == {"label", "name", "score", "box", "mask"}
    assert len(in_original(objects(), SAME, threshold=0.2)["boxes"]) == 2  # 0.2 is as much as asked for


def test_a_mask_becomes_as_large_as_its_image():
    scores = torch.zeros(2, 4, 4)
    scores[1, 1:3, 1:3] = 1
    scores[0] = 1 - scores[1]
    for found in ({"mask": scores.argmax(0), "scores": scores}, {"mask": scores.argmax(0)}):
        assert torch.equal(in_original(found, SAME, 0)["mask"], scores.argmax(0))
        larger = in_original(found, HALF, 0)
        assert larger.keys() == {"mask"}
        assert torch.equal(larger["mask"][2:6, 2:6][1:3, 1:3], torch.ones(2, 2, dtype=torch.int64))
        assert not larger["mask"][:2].any()


def test_places_are_found_in_heads_too():
    assert has_places({"a": {"boxes": 1}})
    assert not has_places({"label": 1, "scores": 2, "a": {"label": 1}})


def test_everything_as_data():
    found = {
        "kind": {"label": torch.tensor(1), "scores": torch.tensor([0.25, 0.75])},
        "size": {"large": torch.tensor(1), "scores": torch.tensor([0.0, 1.0])},
        "where": {"mask": torch.tensor([[0, 1], [1, IGNORE]])},
    }
    dog, cat = {"label": 1, "name": "dog", "score": 0.75}, {"label": 0, "name": "cat", "score": 0.25}
    assert as_data(found, INFO, 2, {"where": "m.png"}) == {"heads": {
        "kind": {"label": {"label": 1, "name": "dog"}, "classes": [dog, cat]},
        "size": {"large": {"label": 1, "name": "yes"},
                 "classes": [{"label": 1, "name": "yes", "score": 1.0}, {"label": 0, "name": "no", "score": 0.0}]},
        "where": {"mask": "m.png", "areas": [{"label": 1, "name": "cat", "pixels": 2},
                                             {"label": 0, "name": "background", "pixels": 1}]},
    }}  # fmt: skip
    assert as_data(found["kind"], INFO, 1, {})["classes"] == [dog]


@pytest.mark.parametrize("classes", [3, 300])
def test_a_mask_keeps_its_classes_in_a_file(classes, tmp_path):
    from visreg.datasets.image import read_mask

    mask = torch.arange(12).view(3, 4) % classes
    mask[0, 0] = classes - 1 if classes > 255 else IGNORE
    mask_image(mask, [str(index) for index in range(classes)]).save(tmp_path / "mask.png")
    assert torch.equal(read_mask(tmp_path / "mask.png"), mask)
    assert Image.open(io.BytesIO((tmp_path / "mask.png").read_bytes())).mode == ("P" if classes == 3 else "I;16")
