"""Detection with both kinds of models: those that compute their own losses, and dense ones."""

import pytest
import torch
from torch import nn
from torchvision.models import detection

from visreg.data import DataInfo, split
from visreg.errors import ConfigError, DataError
from visreg.losses.yolo import YOLOLoss
from visreg.models.rcnn import FasterRCNN, MaskRCNN
from visreg.models.yolo import YOLO
from visreg.tasks.detection import Detection

SMALL = {"backbone": "csp_n", "channels": 8, "hidden": 8, "anchor_size": 8, "proposals": 20, "samples": 16}
SMALL["sampling_ratio"] = 1
CLASSES = DataInfo(name="three", classes=("a", "b", "c"))


def batch(**changes):
    """Return three images, of which the second has no objects and the last a crowd."""
    boxes = [torch.tensor([[4.0, 4.0, 40.0, 30.0], [20.0, 8.0, 60.0, 64.0]]), torch.zeros(0, 4)]
    generator = torch.Generator().manual_seed(0)
    values = {
        "image": torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=generator),
        "boxes": [*boxes, torch.tensor([[0.0, 0.0, 64.0, 64.0], [8.0, 8.0, 24.0, 24.0]])],
        "labels": [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.int64), torch.tensor([1, 1])],
        "masks": [torch.ones(count, 64, 64, dtype=torch.bool) for count in (2, 0, 2)],
        "crowd": [torch.zeros(2).bool(), torch.zeros(0).bool(), torch.tensor([True, False])],
        "index": torch.tensor([5, 6, 7]),
    }
    return {**values, **changes}


class Own(nn.Module):
    """Plays torchvision's detectors."""

    def __init__(self, found=()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.found, self.num_classes = found, 3

    def forward(self, images, targets=None):
        self.images, self.targets = images, targets
        return {"loss_a": self.weight, "loss_b": 2 * self.weight} if self.training else list(self.found)


class Dense(nn.Module):
    """Says the same of every image."""

    def __init__(self, logits, boxes):
        super().__init__()
        self.logits, self.boxes, self.num_classes = logits, boxes, logits.shape[-1]

    def forward(self, images):
        self.images = images
        return {key: getattr(self, key).expand(len(images), -1, -1) for key in ("logits", "boxes")}


def dense(scores, boxes, **options):
    logits = torch.logit(torch.tensor(scores, dtype=torch.float32))
    return Detection(model=Dense(logits, torch.tensor(boxes, dtype=torch.float32)), **options).eval()


def tiny_yolo():
    torch.manual_seed(0)
    return Detection(model=YOLO(3, strides=(8, 16)), loss=YOLOLoss(), mean=[0.5], std=[0.25])


def tiny_rcnn(kind=FasterRCNN, **options):
    torch.manual_seed(0)
    return Detection(model=kind(3, **SMALL, **options))


TASKS = {
    "yolo": tiny_yolo,
    "faster": tiny_rcnn,
    "mask": lambda: tiny_rcnn(MaskRCNN, mask_channels=8),
}


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]()


def total(losses):
    return torch.stack(list(losses.values())).sum()


def test_losses_are_scalars_by_name_and_teach(task):
    losses = task(batch())
    assert len(losses) > 2
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
    total(losses).backward()
    gradients = [weight.grad for weight in task.parameters() if weight.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def test_images_without_objects_train(task):
    empty = {key: [each[:0] for each in batch()[key]] for key in ("boxes", "labels", "masks", "crowd")}
    losses = task(batch(**empty))
    assert all(loss.isfinite() for loss in losses.values())
    total(losses).backward()


def test_a_detector_learns_one_batch(task):
    values = batch()
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    steps = []
    for _ in range(12):
        losses = task(values)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        steps.append(float(total(losses).detach()))
    assert min(steps[-3:]) < 0.8 * steps[0]


def test_predictions_need_no_targets_and_are_as_the_table_says(task):
    with torch.no_grad():
        found = task.eval().predict({"image": batch()["image"]})
    assert {"boxes", "labels", "scores"} <= found.keys()
    for boxes, labels, scores in zip(found["boxes"], found["labels"], found["scores"], strict=True):
        assert boxes.shape == (len(scores), 4)
        assert labels.shape == scores.shape
        assert (boxes.dtype, labels.dtype, scores.dtype) == (torch.float32, torch.int64, torch.float32)
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert (boxes >= 0).all()
        assert (boxes <= 64).all()
        assert ((labels >= 0) & (labels < 3)).all()
    for masks, boxes in zip(found.get("masks", ()), found["boxes"], strict=False):
        assert masks.shape == (len(boxes), 64, 64)
        assert masks.dtype == torch.bool
    assert ("masks" in found) == isinstance(task.model, MaskRCNN)


def test_parts_of_a_batch_can_be_learnt_one_after_the_other(task):
    for part, share in split(batch(), 3):
        assert len(part["image"]) == len(part["boxes"]) == 1
        (total(task(part)) * share).backward()


def test_what_cannot_be_is_never_trained_on(task):
    values = batch()
    values["boxes"][2][1] = torch.tensor([8.0, 8.0, 8.0, 24.0])
    with pytest.raises(DataError, match=r"sample 7: box \[8, 8, 8, 24\] has no area"):
        task(values)
    with pytest.raises(DataError, match=r"sample 5: box .* is of class 3, but the 3 classes are 0 to 2"):
        task(batch(labels=[torch.tensor([0, 3]), *batch()["labels"][1:]]))


def test_the_number_of_classes_is_held_against_the_data(task):
    assert task.num_classes == 3
    assert task.mismatch(batch(), CLASSES) is None
    assert task.mismatch(batch(), DataInfo(name="unknown")) is None
    two = DataInfo(name="two", classes=("a", "b"))
    assert task.mismatch(batch(), two) == "the model is for 3 classes, and there are 2 classes"
    wrong = batch(labels=[torch.tensor([0, 3]), *batch()["labels"][1:]])
    assert "class 3" in task.mismatch(wrong, DataInfo(name="unknown"))


# Models that compute their own losses


def test_targets_are_given_without_crowds_and_images_as_0_to_1():
    own = Own()
    assert set(Detection(model=own)(batch())) == {"loss_a", "loss_b"}
    assert [len(target["boxes"]) for target in own.targets] == [2, 0, 1]
    assert own.targets[2]["boxes"].tolist() == [[8, 8, 24, 24]]
    assert own.targets[2]["masks"].shape == (1, 64, 64)
    assert own.targets[0]["labels"].tolist() == [0, 2]
    torch.testing.assert_close(torch.stack(own.images), batch()["image"] / 255)


def test_the_batch_is_left_as_it_was(task):
    values = batch()
    task(values)
    for key, value in batch().items():
        for one, other in zip(values[key], value, strict=True):
            assert torch.equal(one, other), key


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 4),
        ("ssdlite320_mobilenet_v3_large", 4),
        ("retinanet_resnet50_fpn", 3),
        ("fcos_resnet50_fpn", 3),
        pytest.param("maskrcnn_resnet50_fpn", 4, marks=pytest.mark.slow),
        pytest.param("keypointrcnn_resnet50_fpn", 4, marks=pytest.mark.slow),
        pytest.param("ssd300_vgg16", 4, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:The size of the images:UserWarning")
def test_each_of_torchvisions_counts_its_classes_as_this_task_says(name, outputs):
    """They index their outputs by the labels they are given, and predict such an index."""
    torch.manual_seed(0)
    sizes = {} if "ssd" in name else {"min_size": 64, "max_size": 64}
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=outputs, **sizes)
    task = Detection(model=model)
    assert task.num_classes == 3
    assert task.first_label == outputs - 3
    assert task.mismatch(batch(), CLASSES) is None
    seen = []
    task.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    if "keypoint" not in name:
        losses = task(batch())
        assert all(loss.isfinite() for loss in losses.values())
        assert seen[0][0]["labels"].tolist() == [task.first_label, 2 + task.first_label]
    wrong = task.mismatch(batch(), DataInfo(name="four", classes=tuple("abcd")))
    assert ("set num_classes=5 for the 4 classes" in wrong) == (outputs == 4)


def test_background_is_taken_off_predicted_labels():
    found = {"boxes": torch.zeros(2, 4), "labels": torch.tensor([1, 3]), "scores": torch.tensor([0.1, 0.9])}
    own = Detection(model=Own([found]))
    assert own.eval().predict({"image": batch()["image"][:1]})["labels"][0].tolist() == [3, 1]  # best first
    own.first_label = 1
    assert own.predict({"image": batch()["image"][:1]})["labels"][0].tolist() == [2, 0]


def test_soft_masks_become_sure_ones():
    masks = torch.tensor([0.4, 0.6]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    found = {"boxes": torch.zeros(2, 4), "labels": torch.ones(2).long(), "scores": torch.tensor([0.9, 0.5])}
    made = Detection(model=Own([found | {"masks": masks}])).eval().predict({"image": batch()["image"][:1]})["masks"][0]
    assert made.shape == (2, 8, 8)
    assert made.flatten(1).all(dim=1).tolist() == [False, True]


def test_small_images_are_not_blown_up_in_silence():
    model = detection.fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, num_classes=4)
    for call in (Detection(model=model), Detection(model=model).eval().predict):
        with pytest.raises(ConfigError, match=r"64×64 12\.5 times .* set min_size=64 and max_size=64") as caught:
            call(batch())
        assert caught.value.problems[0].path == "model.min_size"


@pytest.mark.parametrize("option", ["mean", "std"])
def test_normalising_twice_is_refused(option):
    with pytest.raises(ConfigError, match=f"set model.image_{option}") as caught:
        Detection(model=Own(), **{option: [0.5]})
    assert caught.value.problems[0].path == f"task.{option}"


def test_options_that_the_model_has_itself_are_refused_all_at_once():
    with pytest.raises(ConfigError) as caught:
        Detection(model=Own(), loss=YOLOLoss(), min_score=0.1, max_overlap=0.5, max_objects=3)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["task.min_score", "task.max_overlap", "task.max_objects", "loss"]


def test_masks_must_be_there_for_a_model_that_learns_them():
    values = batch()
    del values["masks"]
    with pytest.raises(DataError, match="no 'masks'"):
        tiny_rcnn(MaskRCNN, mask_channels=8)(values)


# Dense models


def test_of_two_boxes_of_one_class_that_overlap_the_better_is_kept():
    boxes = [[0, 0, 20, 20], [1, 0, 21, 20], [40, 40, 60, 60]]
    scores = [[0.6, 0.0], [0.8, 0.3], [0.7, 0.0]]
    found = dense(scores, boxes).predict({"image": batch()["image"][:1]})
    assert found["scores"][0].tolist() == pytest.approx([0.8, 0.7, 0.3])
    assert found["labels"][0].tolist() == [0, 0, 1]  # of another class: it stays
    assert found["boxes"][0].tolist() == [[1, 0, 21, 20], [40, 40, 60, 60], [1, 0, 21, 20]]
    more = dense(scores, boxes, max_overlap=0.95).predict({"image": batch()["image"][:1]})
    assert len(more["boxes"][0]) == 4
    fewer = dense(scores, boxes, max_objects=1).predict({"image": batch()["image"][:1]})
    assert fewer["boxes"][0].tolist() == [[1, 0, 21, 20]]
    surer = dense(scores, boxes, min_score=0.75).predict({"image": batch()["image"][:1]})
    assert surer["scores"][0].tolist() == pytest.approx([0.8])


def test_boxes_are_cut_to_the_image():
    found = dense([[0.9]], [[-5, 10, 70, 99]]).predict({"image": batch()["image"][:, :, :32, :]})
    assert found["boxes"][0].tolist() == [[0, 10, 64, 32]]


def test_nothing_found_is_an_empty_list_for_each_image():
    found = dense([[0.001]], [[0, 0, 9, 9]]).predict(batch())
    assert [tuple(boxes.shape) for boxes in found["boxes"]] == [(0, 4)] * 3


def test_images_are_normalised_by_the_task():
    task = dense([[0.9]], [[0, 0, 9, 9]], mean=[0.5], std=[0.25])
    task.predict(batch())
    torch.testing.assert_close(task.model.images, (batch()["image"] / 255 - 0.5) / 0.25)


def test_a_loss_may_be_one_scalar():
    task = dense([[0.9]], [[0, 0, 9, 9]], loss=lambda output, targets: output["logits"].sum() * 0 + len(targets))
    task.model.num_classes = 3
    assert task(batch()) == {"loss": 3}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(3, 10), "a dict with 'logits' and 'boxes'.* got shape"),
        ({"out": torch.zeros(3, 10)}, "got a dict of 'out'"),
        ({"logits": torch.zeros(3, 5, 2), "boxes": torch.zeros(3, 4, 4)}, r"'boxes' \(3, A, 4\); got"),
        ({"logits": torch.zeros(2, 5, 2), "boxes": torch.zeros(2, 5, 4)}, r"'logits' must be \(3, A, num_classes\)"),
    ],
)
def test_a_model_that_is_no_detector_is_refused(output, message):
    class Other(nn.Module):
        def forward(self, images):
            return output

    with pytest.raises(ConfigError, match=message) as caught:
        Detection(model=Other(), loss=YOLOLoss())(batch())
    assert caught.value.problems[0].path == "model"


def test_a_dense_model_needs_a_loss():
    with pytest.raises(ConfigError, match="YOLOLoss") as caught:
        Detection(model=YOLO(3, strides=(8, 16)))(batch())
    assert caught.value.problems[0].path == "loss"


@pytest.mark.parametrize("options", [{"min_score": 1.5}, {"max_overlap": -0.1}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        dense([[0.9]], [[0, 0, 9, 9]], **options)
