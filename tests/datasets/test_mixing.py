"""Mosaics, and objects pasted onto another image: what is known of the objects must stay true of the pixels."""

from __future__ import annotations

import pytest
import torch

from visreg.data import IGNORE, DataInfo, Dataset
from visreg.datasets.copy_paste import CopyPaste
from visreg.datasets.mosaic import Mosaic
from visreg.datasets.placing import placed
from visreg.datasets.shapes import ShapeScenes
from visreg.errors import DataError
from visreg.generators import seeded
from visreg.objects import boxes_around

TARGETS = ("boxes", "masks", "mask")
COLOURS = 40  # grey of an object: 40 for each class, and 0 is the background's


class Squares(Dataset):
    """Black images with squares of one grey for each class, none upon another; one of them is called a crowd."""

    def __init__(self, size=30, side=48, masks=True, extra=(), sizes=(12, 20)):
        self.size, self.side, self.masks, self.extra, self.sizes = size, side, masks, extra, sizes

    @property
    def info(self):
        keys = ("image", "boxes", "labels", *["masks", "mask"] * self.masks, "crowd", "area", *self.extra)
        return DataInfo(name="squares", classes=tuple("abcde"), keys=keys)

    def open(self): ...

    def __len__(self):
        return self.size

    def where(self, index):
        return f"{index}.png"

    def __getitem__(self, index):
        draw = torch.Generator().manual_seed(index)
        height = self.side + index % 5 * 4  # images differ in size
        image = torch.zeros(1, height, self.side, dtype=torch.uint8)
        boxes, labels, masks = [], [], []
        for cell in torch.randperm(4, generator=draw)[: index % 4].tolist():
            y, x = cell // 2 * self.side // 2 + 1, cell % 2 * self.side // 2 + 1
            length = int(torch.randint(*self.sizes, (), generator=draw))
            label = int(torch.randint(0, 5, (), generator=draw))
            image[:, y : y + length, x : x + length] = COLOURS * (label + 1)
            mask = torch.zeros(height, self.side, dtype=torch.bool)
            mask[y : y + length, x : x + length] = True
            boxes.append([x, y, x + length, y + length])
            labels.append(label)
            masks.append(mask)
        count = len(boxes)
        sample = {
            "image": image,
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "crowd": torch.arange(count) == 2,
        }
        sample["area"] = (sample["boxes"][:, 2:] - sample["boxes"][:, :2]).prod(dim=1)
        if self.masks:
            sample["masks"] = torch.stack(masks) if masks else torch.zeros(0, height, self.side, dtype=torch.bool)
            sample["mask"] = image[0].long() // COLOURS
        return sample


def drawn(dataset, index, epoch=0):
    with seeded(7, epoch, index):
        return dataset.at(index, epoch)


def check_form(sample, size):
    count, kinds = len(sample["labels"]), {"labels": torch.int64, "crowd": torch.bool, "boxes": torch.float32}
    assert sample["image"].shape[1:] == size
    assert sample["image"].dtype == torch.uint8
    for key, dtype in {**kinds, "masks": torch.bool, "area": torch.float32}.items():
        if key in sample:
            assert len(sample[key]) == count
            assert sample[key].dtype == dtype
    assert sample["boxes"].shape == (count, 4)
    if count:
        assert sample["boxes"].min() >= 0
        assert sample["boxes"][:, [0, 2]].max() <= size[1]
        assert sample["boxes"][:, [1, 3]].max() <= size[0]
        assert (sample["boxes"][:, 2:] - sample["boxes"][:, :2]).min() >= 1


WRAPPED = [
    (Mosaic, {"size": (64, 80)}), (Mosaic, {"size": 48, "scale": (0.2, 3.0), "centre": (0.1, 0.9)}),
    (CopyPaste, {"probability": 1.0}), (CopyPaste, {"probability": 1.0, "share": 1.0, "scale": (0.3, 2.5)}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), WRAPPED)
@pytest.mark.parametrize("side", [32, 48])
def test_masks_boxes_and_pixels_agree(kind, options, side):
    dataset = kind(dataset=Squares(side=side, sizes=(8, 14)), **options)
    objects = 0
    for index in range(30):
        sample = drawn(dataset, index)
        height, width = sample["image"].shape[1:]
        check_form(sample, dataset.sides if kind is Mosaic else (height, width))
        assert torch.equal(sample["boxes"], boxes_around(sample["masks"]))
        assert (
            sample["masks"].sum(dim=0).max() <= 1 or kind is Mosaic
        )  # an object is hidden by another, never both seen
        for mask, label in zip(sample["masks"], sample["labels"].tolist(), strict=True):
            # Of the image, which is enlarged smoothly, what is well inside an object has its grey.
            inside = -torch.nn.functional.max_pool2d(-mask[None].float(), 5, 1, 2)[0] > 0
            assert (
                sample["image"][0][inside].int() - COLOURS * (label + 1)
            ).abs().float().median() <= 1 or not inside.any()
            assert (sample["mask"][mask] == label + 1).all()
            objects += 1
        # No object is forgotten, apart from slivers: what has a class in the mask is in some object's mask.
        classes = (sample["mask"] > 0) & (sample["mask"] != IGNORE)
        lost = (classes & ~sample["masks"].any(dim=0)).sum()
        assert lost <= 0.02 * height * width
    assert objects > 30


@pytest.mark.parametrize(("kind", "options"), WRAPPED[:2])
def test_without_masks_boxes_are_cut_where_the_image_is(kind, options):
    dataset = kind(dataset=Squares(masks=False), **options)
    seen = 0
    for index in range(30):
        sample = drawn(dataset, index)
        check_form(sample, dataset.sides)
        for (x1, y1, x2, y2), label in zip(sample["boxes"].tolist(), sample["labels"].tolist(), strict=True):
            # Within a pixel of the box's sides, all of it has the object's grey.
            inside = sample["image"][0, int(y1 + 2) : int(y2 - 1), int(x1 + 2) : int(x2 - 1)].int()
            if inside.numel():
                assert (inside - COLOURS * (label + 1)).abs().float().median() <= 1
                seen += 1
    assert seen > 20


@pytest.mark.parametrize(("kind", "options"), WRAPPED)
def test_the_area_is_that_of_what_is_seen(kind, options):
    dataset = kind(dataset=Squares(), **options)
    for index in range(30):
        sample = drawn(dataset, index)
        pixels = sample["masks"].flatten(1).sum(dim=1)
        assert torch.allclose(sample["area"], pixels.float(), rtol=0.35, atol=6)


def test_a_sample_on_a_canvas_of_its_own_size_is_itself():
    sample = Squares()[7]
    size = tuple(sample["image"].shape[1:])
    for key, value in placed(sample, size, size, (0, 0)).items():
        assert torch.equal(value, sample[key]), key


def test_a_sample_that_is_moved_is_moved_whole():
    sample = Squares()[7]
    height, width = sample["image"].shape[1:]
    made = placed(sample, (height, width), (height + 9, width + 7), (4, 5), fill=99)
    assert torch.equal(made["image"][:, 4 : 4 + height, 5 : 5 + width], sample["image"])
    assert (made["image"][:, :4] == 99).all()
    assert (made["mask"][:, :5] == IGNORE).all()
    assert torch.equal(made["boxes"], sample["boxes"] + torch.tensor([5.0, 4, 5, 4]))
    assert torch.equal(made["area"], sample["area"])


def test_of_a_crowd_any_part_is_kept_and_of_objects_enough():
    sample = Squares(sizes=(20, 21))[3]
    assert sample["crowd"].tolist() == [False, False, True]
    for index in range(3):
        x1, y1 = sample["boxes"][index, :2].int().tolist()
        made = placed(sample, tuple(sample["image"].shape[1:]), (60, 60), (-y1 - 19, -x1), min_visible=0.1)
        whole = sample["masks"][index, y1 + 19, x1:].sum() > 0
        assert whole
        assert bool((made["boxes"][:, 3] == 1).any()) == (index == 2)


def test_what_hides_all_of_an_object_leaves_nothing_of_it():
    dataset = CopyPaste(dataset=Squares(), min_visible=0.0)
    sample = {key: value[:1] if key not in ("image", "mask") else value for key, value in Squares()[3].items()}
    everywhere = {**sample, "masks": torch.ones_like(sample["masks"]), "crowd": torch.tensor([False])}
    everywhere["boxes"] = boxes_around(everywhere["masks"])
    dataset.share, dataset.scale = 1.0, (1.0, 1.0)
    made = dataset.mix(sample, [everywhere])
    assert made["labels"].tolist() == everywhere["labels"].tolist()
    assert torch.equal(made["boxes"], everywhere["boxes"])


def test_crowds_are_never_pasted_and_nothing_is_pasted_without_objects():
    dataset = CopyPaste(dataset=Squares(), share=1.0)
    target, source, empty = Squares()[6], Squares()[3], Squares()[4]
    assert not len(empty["labels"])
    for draw in range(10):
        with seeded(draw):
            made = dataset.mix(target, [source])
            assert int(made["crowd"].sum()) <= int(target["crowd"].sum())
            alone = dataset.mix(target, [empty])
            onto = dataset.mix(empty, [source])
        assert all(torch.equal(alone[key], target[key]) for key in target)
        assert len(onto["labels"]) <= 2


def test_a_mosaic_of_empty_images_is_an_empty_sample():
    dataset = Mosaic(dataset=Squares(size=1), size=40)
    sample = drawn(dataset, 0)
    check_form(sample, (40, 40))
    assert sample["boxes"].shape == (0, 4)
    assert sample["masks"].shape == (0, 40, 40)


@pytest.mark.parametrize("kind", [Mosaic, CopyPaste])
def test_it_depends_on_seed_epoch_and_index_alone(kind):
    dataset = kind(dataset=ShapeScenes(size=20, targets=TARGETS), **{"size": 64} if kind is Mosaic else {})
    one, other = drawn(dataset, 3, epoch=2), drawn(dataset, 3, epoch=2)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(drawn(dataset, 3, epoch=1)["image"], one["image"]) or kind is CopyPaste
    before = torch.get_rng_state()
    drawn(dataset, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_happens_as_often_as_it_should_and_not_after_its_epochs():
    inner = ShapeScenes(size=400, image_size=32, targets=("boxes",))
    dataset = Mosaic(dataset=inner, size=48, probability=0.25, epochs=3)
    many = sum(drawn(dataset, index, epoch=2)["image"].shape[1] == 48 for index in range(400))
    assert 70 <= many <= 130
    assert all(torch.equal(drawn(dataset, index, epoch=3)["image"], inner[index]["image"]) for index in range(50))


def test_what_is_known_before_it_is_read():
    scenes = ShapeScenes(targets=TARGETS, image_size=64)
    assert Mosaic(dataset=scenes, size=64, probability=0.5).info.sample["image"].shape == (3, 64, 64)
    assert Mosaic(dataset=scenes, size=(32, 96)).info.sample["masks"].shape == (1, 32, 96)
    unknown = Mosaic(dataset=scenes, size=96, probability=0.5).info
    assert not unknown.sample
    assert set(unknown.keys) == {"image", "boxes", "labels", "masks", "mask"}
    assert CopyPaste(dataset=scenes).info == scenes.info


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (Mosaic, ShapeScenes(targets=["boxes", "label"]), "ShapeScenes has 'label', which Mosaic cannot mix"),
        (CopyPaste, ShapeScenes(targets=["boxes"]), "ShapeScenes has no 'masks', which CopyPaste needs"),
        (CopyPaste, ShapeScenes(targets=["mask"]), "ShapeScenes has no 'boxes', which CopyPaste needs"),
        (Mosaic, Squares(extra=["depth"]), "squares has 'depth', which Mosaic cannot mix"),
    ],
)
def test_data_that_cannot_be_mixed_is_refused_at_once(kind, data, message):
    with pytest.raises(DataError, match=message):
        kind(dataset=data, **{"size": 64} if kind is Mosaic else {})


@pytest.mark.parametrize(
    "options", [{"size": 1}, {"size": [64]}, {"scale": [2, 1]}, {"scale": [0, 1]}, {"centre": [0.5, 1.0]}]
)
def test_options_that_cannot_be_meant(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        Mosaic(dataset=Squares(), **{"size": 64, **options})


def test_a_partner_that_cannot_be_read_is_the_one_that_is_named():
    class Broken(Squares):
        def __getitem__(self, index):
            if index == 1:
                raise OSError("half a file")
            return super().__getitem__(index)

    dataset = Mosaic(dataset=Broken(size=3), size=32)
    with seeded(3), pytest.raises(DataError, match=r"Mosaic cannot read squares\[1\] \(1.png\): OSError: half a file"):
        [dataset[0] for _ in range(9)]
