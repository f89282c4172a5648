"""torchvision's transforms of plain samples and batches: what is in the picture moves as the picture does."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image

from visreg.data import IGNORE, collate
from visreg.datasets.shapes import TARGETS, ShapeScenes
from visreg.generators import seeded
from visreg.options import options_of
from visreg.registry import TRANSFORMS

SCENES = ShapeScenes(targets=TARGETS, size=20)


def transform(name, **options):
    return TRANSFORMS.build({"type": name, **options})


def dotted():
    """Return a sample whose picture tells what is where: its red is that of the mask, its green that of an object."""
    mask = torch.zeros(40, 40, dtype=torch.int64)
    mask[5:15, 8:20], mask[30:38, 2:12] = 1, 2
    mask[:3, :3] = IGNORE
    masks = torch.stack([mask == 1, mask == 2])
    image = torch.stack([mask.masked_fill(mask == IGNORE, 3) * 80 + 10, masks[1] * 200 + 10, masks[0] * 200 + 10])
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    labels = torch.tensor([0, 1])
    return {"image": image.to(torch.uint8), "mask": mask, "boxes": boxes, "labels": labels, "masks": masks}


FLOAT = {"type": "ToDtype", "dtype": "float32", "scale": False}
MOVES = [
    {"type": "RandomHorizontalFlip", "p": 1.0},
    {"type": "RandomVerticalFlip", "p": 1.0},
    {"type": "RandomCrop", "size": 30},
    {"type": "RandomCrop", "size": 50, "padding": 10},
    {"type": "RandomAffine", "degrees": 40, "translate": [0.2, 0.2]},
    {"type": "RandomRotation", "degrees": 90, "expand": True},
    {"type": "RandomZoomOut", "p": 1.0},
    {"type": "RandomPerspective", "p": 1.0, "interpolation": "NEAREST"},
    {"type": "Pad", "padding": 3},
    {"type": "RandomResizedCrop", "size": 60, "interpolation": "NEAREST"},
    {"type": "Resize", "size": [80, 80], "interpolation": "NEAREST"},
    {"type": "RandomApply", "transforms": [{"type": "RandomVerticalFlip", "p": 1.0}], "p": 1.0},
    {"type": "RandomOrder", "transforms": [{"type": "RandomRotation", "degrees": 30}, FLOAT]},
]


FILLED = [{**spec, "fill": 7} for spec in MOVES if "fill" in options_of(TRANSFORMS.get(spec["type"]))]


@pytest.mark.parametrize("spec", MOVES + FILLED, ids=lambda spec: spec["type"])
def test_masks_move_with_the_image(spec):
    move, fill = TRANSFORMS.build(spec), spec.get("fill", 0)
    for draw in range(5):
        with seeded(draw):
            moved = move(dotted())
        red, green, blue = moved["image"].round().long()
        outside = red == fill
        expected = ((red - 10) // 80).masked_fill(red == 250, IGNORE).masked_fill(outside, IGNORE)
        assert torch.equal(moved["mask"], expected)
        assert moved["mask"].dtype == torch.int64
        seen, left = torch.stack([blue == 210, green == 210]), moved["labels"]
        assert torch.equal(moved["masks"], seen[left])
        assert set(seen.flatten(1).any(1).nonzero()[:, 0].tolist()) <= set(left.tolist())
        assert moved["masks"].dtype == torch.bool
        assert not any(type(value) is not Tensor for value in moved.values())


@pytest.mark.parametrize("spec", MOVES[:4] + MOVES[8:12], ids=lambda spec: spec["type"])
def test_boxes_move_with_their_masks(spec):
    move = TRANSFORMS.build(spec)
    for draw in range(5):
        with seeded(draw):
            moved = move(dotted())
        there = moved["masks"].flatten(1).any(1)
        tight = masks_to_boxes(moved["masks"][there]) + torch.tensor([0, 0, 1, 1])
        assert (moved["boxes"][there] - tight).abs().max() <= 1.5
        assert moved["boxes"].dtype == torch.float32


def test_a_batch_moves_as_one():
    samples = [SCENES[index] for index in range(3)]
    batch = collate(samples)
    moved = transform("RandomHorizontalFlip", p=1.0)(batch)
    for place, sample in enumerate(samples):
        flipped = transform("RandomHorizontalFlip", p=1.0)(sample)
        for key in TARGETS:
            assert torch.equal(moved[key][place], flipped[key]), key
        assert torch.equal(flipped["mask"], sample["mask"].flip(-1))
        assert torch.equal(flipped["boxes"][:, 0], 64 - sample["boxes"][:, 2])
    assert isinstance(moved["boxes"], list)


def test_boxes_that_left_the_picture_are_taken_out_with_all_of_theirs():
    sample = {**dotted(), "crowd": torch.tensor([False, True]), "area": torch.tensor([120.0, 80.0])}
    kept = transform("CenterCrop", size=20)(sample)  # 10..30: the second is below
    assert kept["labels"].tolist() == [0]
    assert kept["boxes"].tolist() == [[0, 0, 10, 5]]
    assert (kept["masks"].shape, kept["crowd"].tolist(), kept["area"].tolist()) == ((1, 20, 20), [False], [120.0])
    assert kept.keys() == sample.keys()
    assert not any(type(value) is not Tensor for value in kept.values())
    inside = transform("RandomApply", transforms=[{"type": "CenterCrop", "size": 20}], p=1.0)(sample)
    again = transform("SanitizeBoundingBoxes")(kept)
    batch = transform("CenterCrop", size=20)(collate([sample, sample]))
    for key, value in kept.items():
        assert torch.equal(inside[key], value), key
        assert torch.equal(again[key], value), key
        assert torch.equal(batch[key][1], value), key


CROPS = (("RandomCrop", {"size": 14}), ("RandomResizedCrop", {"size": 14}), ("RandomIoUCrop", {}))


@pytest.mark.parametrize(("name", "options"), CROPS, ids=[name for name, _ in CROPS])
def test_a_random_crop_leaves_the_boxes_that_torchvisions_own_sanitizing_does(name, options):
    sample = {key: value for key, value in dotted().items() if key in ("image", "boxes", "labels")}
    boxes = BoundingBoxes(sample["boxes"], format="XYXY", canvas_size=(40, 40))
    # It takes a box for bad that a rounding error puts outside, unless it is clamped.
    theirs = v2.Compose([getattr(v2, name)(**options), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])
    move, counts = transform(name, **options), set()
    for draw in range(20):
        with seeded(draw):
            moved = getattr(move, "alone", move)(sample)
        with seeded(draw):
            expected = theirs({**sample, "image": Image(sample["image"]), "boxes": boxes})
        torch.testing.assert_close(moved["boxes"], expected["boxes"].as_subclass(Tensor))
        assert torch.equal(moved["labels"], expected["labels"])
        counts.add(len(moved["boxes"]))
    assert len(counts) > 1


def test_a_transform_hides_no_mistake_in_the_data():
    boxes = torch.tensor([[5.0, 5, 5, 9], [30, 30, 36, 36], [4, 4, 4.5, 9], [1, 1, 2.5, 2.5]])
    sample = {"image": torch.zeros(3, 40, 40, dtype=torch.uint8), "boxes": boxes, "labels": torch.arange(4)}
    assert transform("CenterCrop", size=20)(sample)["labels"].tolist() == [0]  # which had no area before
    assert transform("RandomHorizontalFlip", p=1.0)(sample)["labels"].tolist() == [0, 1, 2, 3]
    assert transform("Resize", size=20)(sample)["labels"].tolist() == [0, 1, 2, 3]  # however small, it is to be found
    fewer = transform("CenterCrop", size=20)({**sample, "labels": torch.arange(3)})
    assert (len(fewer["boxes"]), len(fewer["labels"])) == (1, 3)  # as many too few as before


def test_boxes_must_stay_corners():
    with pytest.raises(ValueError, match="must stay x1, y1, x2, y2"):
        transform("ConvertBoundingBoxFormat", format="XYWH")(dotted())


def test_another_transform_inside_gets_plain_values():
    seen = []

    def spy(sample):
        seen.append(sample)
        return {**sample, "mask": sample["mask"].clamp(max=1)}

    inside = {"transforms": [spy, transform("RandomHorizontalFlip", p=1.0)], "p": 1.0}
    moved = transform("RandomApply", **inside)(dotted())
    assert type(seen[0]["image"]) is type(seen[0]["mask"]) is Tensor
    assert torch.equal(seen[0]["mask"], dotted()["mask"])
    assert torch.equal(moved["mask"], dotted()["mask"].clamp(max=1).flip(-1))
    assert transform("RandomApply", **inside)({"image": dotted()["image"], "mask": torch.zeros(40, 40).long()})


def test_pixels_alone_are_the_image_wherever_they_stand():
    image, label = torch.rand(3, 8, 8), torch.tensor([0.5])
    for sample in ({"image": image, "label": label}, {"label": label, "image": image}):
        moved = transform("RandomHorizontalFlip", p=1.0)(sample)
        assert torch.equal(moved["image"], image.flip(-1))
        assert moved["label"] is label
        assert type(moved["image"]) is Tensor


def test_colours_leave_all_else_alone():
    sample = dotted()
    darker, softer = {"brightness": [0.5, 0.5]}, {"kernel_size": 3, "sigma": [2.0, 2.0]}
    for name, options in (("ColorJitter", darker), ("GaussianBlur", softer)):
        changed = transform(name, **options)(sample)
        assert not torch.equal(changed["image"], sample["image"])
        assert all(torch.equal(changed[key], sample[key]) for key in ("mask", "masks", "boxes", "labels"))


def test_it_can_be_sent_to_workers():
    move = pickle.loads(pickle.dumps(transform("RandomAffine", degrees=10, fill=3)))
    assert move(dotted())["mask"].shape == (40, 40)
    assert pickle.loads(pickle.dumps(transform("SanitizeBoundingBoxes")))(dotted())["labels"].tolist() == [0, 1]


OF_CLIPS = (
    {"type": "RandomResizedCrop", "size": 8}, {"type": "RandomHorizontalFlip"}, {"type": "RandomCrop", "size": 9},
    {"type": "RandomRotation", "degrees": 40}, {"type": "ColorJitter", "brightness": 0.5, "hue": 0.2},
    {"type": "RandAugment"}, {"type": "JPEG", "quality": [20, 80]}, {"type": "ElasticTransform"},
    {"type": "RandomApply", "transforms": [{"type": "RandomInvert", "p": 0.5}], "p": 0.9},
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # JPEG's
@pytest.mark.parametrize("spec", OF_CLIPS, ids=lambda spec: spec["type"])
def test_all_frames_of_a_clip_are_changed_alike(spec):
    still = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8).expand(5, -1, -1, -1)
    made = []
    for draw in range(10):
        with seeded(draw):
            sample = TRANSFORMS.build(spec)({"clip": still, "label": torch.tensor(3)})
        assert type(sample["clip"]) is Tensor
        assert (sample["clip"] == sample["clip"][:1]).all()
        assert sample["clip"].dtype == torch.uint8
        assert int(sample["label"]) == 3
        made.append(sample["clip"])
    assert any(not torch.equal(made[0], other) for other in made[1:])


@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_what_is_for_images_alone_says_so_of_clips(name):
    mix = TRANSFORMS.build({"type": name, "num_classes": 2})
    batch = {"clip": torch.zeros(2, 4, 3, 8, 8), "label": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=f"{name} is of no use here: the frames of a clip must be changed alike"):
        mix(batch)


def test_cutout_is_for_images_alone():
    with pytest.raises(ValueError, match="Cutout is for images alone"):
        TRANSFORMS.build({"type": "Cutout", "length": 2})({"clip": torch.zeros(4, 3, 8, 8)})


def test_frames_are_taken_out_of_a_clip():
    clip = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    sample = TRANSFORMS.build({"type": "UniformTemporalSubsample", "num_samples": 3})({"clip": clip})
    assert sample["clip"][:, 0, 0, 0].tolist() == [0, 3, 7]
