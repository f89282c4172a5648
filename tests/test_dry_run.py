"""What only shows when a config is built: shapes, dtypes, and parts that are not what they should be."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.test_check import SMALL, changed, problems
from visreg import HOOKS, LOSSES, METRICS, MODELS, TASKS, TRANSFORMS
from visreg.registry import KINDS

FLOAT = {"type": "ToDtype", "dtype": "float32", "scale": True}
COLOUR = copy.deepcopy(SMALL) | {
    "task": {"type": "Classification"},
    "model": {"type": "TwoConv", "in_channels": 3, "image_size": 32, "num_classes": 10},
    "train": {"dataset": {"type": "CIFAR10"}, "batch_size": 64},
    "val": {"dataset": {"type": "CIFAR10", "train": False}, "batch_size": 64},
}


class Linear(nn.Module):
    """Looks at all pixels at once."""

    def __init__(self, inputs: int = 784) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 10)

    def forward(self, image: Tensor) -> object:
        return self.linear(image.flatten(1))


class GivesTuple(Linear):
    """Returns more than logits."""

    def forward(self, image: Tensor) -> object:
        return super().forward(image), image


class MixesSamples(Linear):
    """Views half an image as one."""

    def __init__(self) -> None:
        super().__init__(392)

    def forward(self, image: Tensor) -> object:
        return self.linear(image.view(-1, 392))


class TakesTwo(Linear):
    """Asks for more than images."""

    def forward(self, image: Tensor, mask: Tensor) -> object:
        return super().forward(image * mask)


class Brightest(Linear):
    """Draws pixels by their brightness, of which a blank image has none."""

    def forward(self, image: Tensor) -> object:
        place = torch.multinomial(image.flatten(1).clamp(min=0), 1, replacement=True)
        return self.linear(image.flatten(1)) + place


class AmongAll(Linear):
    """Compares all pixels of all images with one another, which takes tens of gigabytes."""

    def forward(self, image: Tensor) -> object:
        pixels = image.flatten().repeat(40)
        return self.linear(image.flatten(1)) + (pixels[:, None] - pixels).amax()


class Nothing:
    """Is no component of any kind."""

    def __init__(self, **parts: object) -> None: ...


def _changes(function):
    function.__doc__ = "Changes a sample, wrongly."
    return function


@_changes
class ReturnsNothing:
    def __call__(self, sample):
        sample["label"] += 0


@_changes
class ReturnsImage:
    def __call__(self, sample):
        return sample["image"]


@_changes
class LosesImage:
    def __call__(self, sample):
        return {"label": sample["label"]}


@pytest.fixture(autouse=True)
def _registered():
    before = {kind: dict(registry.files) for kind, registry in KINDS.items()}
    for model in (Linear, GivesTuple, MixesSamples, TakesTwo, Brightest, AmongAll):
        MODELS.register(model)
    for transform in (ReturnsNothing, ReturnsImage, LosesImage):
        TRANSFORMS.register(transform)
    for registry in (MODELS, LOSSES, TASKS, METRICS, HOOKS, TRANSFORMS):
        registry.register(Nothing)
    yield
    for kind, registry in KINDS.items():
        registry.files = before[kind]


@pytest.mark.parametrize(
    ("path", "value", "where", "message"),
    [
        # models
        ("model", {"type": "Linear", "inputs": 700}, "model", "its in_features must be 784"),
        ("model", {"type": "GivesTuple"}, "model", "got tuple"),
        ("model", {"type": "MixesSamples"}, "model", "6 rows for 3 images"),
        ("model", {"type": "TakesTwo"}, "model", "missing 1 required positional argument: 'mask'"),
        ("model", {"type": "resnet18", "num_classes": 10}, "model", "add dict(type='RGB') to train.transforms"),
        ("model.image_size", 32, "model.image_size", "is 32, but the images of train are (1, 28, 28)"),
        ("model.in_channels", 3, "model.in_channels", "is 3, but the images of train are (1, 28, 28)"),
        # parts of another kind
        ("model", {"type": "Nothing"}, "model", "Nothing is not a Module; derive it from torch.nn.Module"),
        ("task", {"type": "Nothing"}, "task", "derive it from visreg.Task"),
        ("loss", {"type": "Nothing"}, "loss", "give it forward(output, target)"),
        ("metrics.1", {"type": "Nothing"}, "metrics[1]", "derive it from visreg.Metric"),
        ("hooks.1", {"type": "Nothing"}, "hooks[1]", "derive it from visreg.Hook"),
        ("train.transforms", [{"type": "Nothing"}], "train.transforms[0]", "give it __call__(sample)"),
        # losses
        ("loss", {"type": "NLLLoss"}, "loss.type", "use CrossEntropyLoss"),
        ("loss.weight", [1.0, 2.0], "loss.weight", "has 2 values for 10 classes"),
        ("loss.weight", [1.0] * 9 + [-1.0], "loss.weight", "must be 0 or more"),
        ("loss.label_smoothing", -0.1, "loss.label_smoothing", "must be 0 or more and at most 1"),
        # metrics
        ("metrics.1", {"type": "TopKAccuracy", "k": 11}, "metrics[1].k", "lower k"),
        ("metrics.1", {"type": "ConfusionMatrix", "num_classes": 3}, "metrics[1]", "the 3 classes are 0 to 2"),
        # normalisation
        ("task.mean", [0.1, 0.2, 0.3], "task.mean", "is for 3 channels, but the images have 1"),
        ("task.mean", [33.0], "task.mean", "divide by 255"),
        ("task.std", [78.0], "task.std", "at most 1"),
        # transforms
        ("train.transforms", [{"type": "ReturnsNothing"}], "train.transforms[0]", "it returns a NoneType"),
        ("train.transforms", [{"type": "ReturnsImage"}], "train.transforms[0]", "it returns a Tensor"),
        ("train.batch_transforms", [{"type": "LosesImage"}], "train.batch_transforms[0]", "it loses 'image'"),
        ("train.transforms", [{"type": "ToPILImage"}], "train.transforms[0]", "end with dict(type='ToImage')"),
        ("train.transforms", [{"type": "Normalize", "mean": [0.1], "std": [0.3]}], "train.transforms[0]", "ToDtype"),
        (
            "train.transforms",
            [{"type": "RandomApply", "p": 0.5, "transforms": [{"type": "LosesImage"}]}],
            "train.transforms[0]",
            "it loses 'image'",
        ),
        ("train.batch_transforms", [{"type": "MixUp"}], "train.batch_transforms[0]", "num_classes: missing"),
        ("train.transforms", [{"type": "CutMix"}], "train.transforms[0]", "is it in batch_transforms?"),
        # optimizers, learning rates and patterns
        ("optimizer.differentiable", True, "optimizer", "cannot take a step: a leaf Variable that requires grad"),
        ("schedule", {"type": "StepLR", "step_size": 0}, "schedule.step_size", "must be 1 or more"),
        ("schedule", {"type": "ExponentialLR", "gamma": -0.9}, "schedule.gamma", "must be 0 or more"),
        ("schedule", {"type": "Cosine", "final": 2.0}, "schedule.final", "from 0 to 1"),
        ("hooks.1", {"type": "Freeze", "patterns": ["feature"]}, "hooks[1].patterns", "did you mean 'features'"),
        ("hooks.1", {"type": "Freeze", "patterns": ["*"]}, "hooks[1].patterns", "leave no parameter to train"),
        (
            "hooks.1",
            {"type": "Freeze", "patterns": ["*"], "exclude": ["fc"]},
            "hooks[1].exclude",
            "matches no parameter",
        ),
        ("hooks.1", {"type": "L2", "weight": 0.1, "exclude": ["bn"]}, "hooks[1].exclude", "matches no parameter"),
    ],
)
def test_finds_a_mistake(path, value, where, message):
    found = problems(changed(path, value))
    assert len(found) == 1, found
    assert found[0][0] == where
    assert message in found[0][1]


@pytest.mark.parametrize(
    "transforms",
    [
        [{"type": "RandomResizedCrop", "size": 32, "scale": [0.8, 1.0]}],
        [{"type": "RandomRotation", "degrees": 15}, {"type": "RandomErasing", "p": 1.0}],
        [FLOAT, {"type": "Normalize", "mean": [0.5] * 3, "std": (0.5, 0.5, 0.5)}],
        [FLOAT, {"type": "RandomErasing", "p": 1.0, "value": "random"}],
        [{"type": "ToDtype", "dtype": "torch.float32", "scale": True}],
        [{"type": "RandomApply", "transforms": [{"type": "ColorJitter", "hue": 0.1}], "p": 0.5}],
        [{"type": "ToPILImage"}, {"type": "AutoAugment", "policy": "cifar10"}, {"type": "ToImage"}],
    ],
)
def test_lets_right_transforms_pass(transforms):
    values = copy.deepcopy(COLOUR)
    values["train"]["transforms"] = transforms
    assert problems(values) == []


@pytest.mark.parametrize("size", [310, [40, 900]])
def test_a_crop_makes_images_of_its_size_however_large_it_is(size):
    values = copy.deepcopy(COLOUR)
    values["train"]["dataset"] = {"type": "ImageFolder", "root": "nowhere"}
    values["train"]["transforms"] = [{"type": "RandomCrop", "size": size}]
    ((path, message),) = problems({**values, "model": {"type": "ConvNet", "image_size": 32, "num_classes": 10}})
    assert path == "model.image_size"
    assert "the images of train are" in message


@pytest.mark.parametrize("inside", [False, True])
def test_a_transform_of_batches_is_out_of_place_whatever_the_size_of_images(inside):
    values, mix = copy.deepcopy(COLOUR), {"type": "MixUp", "num_classes": 10}
    values["train"]["dataset"] = {"type": "ImageFolder", "root": "nowhere"}
    values["train"]["transforms"] = [{"type": "RandomApply", "transforms": [mix], "p": 1.0} if inside else mix]
    ((path, message),) = problems(values)
    assert path == "train.transforms[0]"
    assert message.endswith("is it in batch_transforms?")


@pytest.mark.parametrize(
    ("section", "spec"),
    [
        ("loss", {"type": "CrossEntropyLoss", "weight": (1,) * 10}),
        ("loss", {"type": "MultiMarginLoss"}),
        ("optimizer", {"type": "Adam", "betas": [0.9, 0.99], "capturable": True}),
        ("schedule", {"type": "SequentialLR", "milestones": [1], "schedulers": [{"type": "LinearLR"}] * 2}),
        ("schedule", {"type": "ReduceLROnPlateau", "monitor": "accuracy", "mode": "max"}),
        ("model", {"type": "resnet18", "weights": "IMAGENET1K_V1", "num_classes": 10}),
    ],
)
def test_lets_right_components_pass(section, spec):
    assert problems({**COLOUR, section: spec}) == []


@pytest.mark.parametrize("kind", ["Brightest", "AmongAll"])
def test_models_of_others_are_not_computed(kind):
    assert problems(changed("model", {"type": kind})) == []


YOLO = {"type": "YOLO", "num_classes": 7, "strides": [8, 16]}
SHAPES = {"type": "ShapeScenes", "targets": ["mask"], "image_size": 32}
SEGMENTATION = copy.deepcopy(SMALL) | {
    "task": {"type": "SemanticSegmentation"},
    "model": {"type": "UNet", "num_classes": 8, "width": 4, "depth": 2},
    "metrics": [{"type": "MeanIoU"}, {"type": "PixelAccuracy"}],
    "hooks": [],
    "train": {"dataset": SHAPES, "batch_size": 4},
    "val": {"dataset": SHAPES, "batch_size": 4},
}


def segmentation(**changes):
    """Return the small config of segmentation with some options changed; ``model__width`` is that of the model."""
    values = copy.deepcopy(SEGMENTATION)
    for path, value in changes.items():
        section, _, option = path.partition("__")
        values |= {section: {**values[section], option: value} if option else value}
    return values


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"model__num_classes": 7}, "model.num_classes", "7 outputs for the 8 classes of train.dataset"),
        ({"model__in_channels": 1}, "model.in_channels", "is 1, but the images of train are (3, 32, 32)"),
        (
            {"model": {"type": "resnet18", "num_classes": 8}},
            "model",
            "got shape (3, 8); the task of such a model is Classif",
        ),
        (
            {"model": YOLO},
            "model",
            "must return logits of shape (N, num_classes, height, width) for images (3, 3, 32, 32)",
        ),
        (
            {"model": YOLO},
            "model",
            "got a dict of 'logits', 'boxes', 'distances', 'points', 'strides'; the task of such",
        ),
        ({"loss": {"type": "MSELoss"}}, "loss", "given float32 (3, 8, 32, 32) and int64 (3, 32, 32)"),
        ({"loss": {"type": "NLLLoss"}}, "loss.type", "log-probabilities"),
        ({"loss": {"type": "FocalLoss", "weight": [1.0]}}, "loss.weight", "1 values for 8 classes"),
        ({"loss": {"type": "CrossEntropyLoss", "weight": [1.0, 2.0]}}, "loss.weight", "has 2 values for 8 classes"),
        (
            {"loss": {"type": "SumLoss", "losses": [{"type": "DiceLoss"}, {"type": "FocalLoss", "weight": [1.0]}]}},
            "loss.losses[1].weight",
            "has 1 values for 8 classes",
        ),
        ({"metrics": [{"type": "Accuracy"}]}, "metrics[0]", "no 'label'"),
        ({"metrics": [{"type": "MeanIoU", "num_classes": 5}]}, "metrics[0]", "the 5 classes are 0 to 4"),
        ({"train__dataset": {"type": "ShapeScenes", "targets": ["label"]}}, "task", "the samples have no 'mask'"),
        ({"train__transforms": [{"type": "RandomHorizontalFlip"}]}, None, None),
        ({"model": {"type": "fcn_resnet50", "num_classes": 8}}, None, None),
        ({"loss": {"type": "SumLoss", "losses": [{"type": "FocalLoss"}, {"type": "LovaszSoftmaxLoss"}]}}, None, None),
    ],
)
def test_segmentation_is_checked_like_classification(changes, place, message):
    found = problems(segmentation(**changes))
    assert len(found) == bool(place), found
    if place:
        assert found[0][0] == place
        assert message in found[0][1]


def test_a_dataset_of_masks_whose_sizes_differ_is_checked_once_transforms_make_them_alike():
    dataset = {"type": "VOCSegmentation", "root": "nowhere"}
    resized = {"dataset": dataset, "batch_size": 4, "transforms": [{"type": "Resize", "size": [32, 32]}]}
    assert problems(segmentation(train=resized, val=resized)) == [
        ("model.num_classes", "the model has 8 outputs for the 21 classes of train.dataset")
    ]
    assert not problems(segmentation(train=resized, val=resized, model__num_classes=21))


def test_images_that_are_too_small_for_a_head_of_the_model_are_said_to_be():
    values = {**copy.deepcopy(COLOUR), "model": {"type": "inception_v3", "num_classes": 10}}
    small, larger = ([{"type": "Resize", "size": [side, side]}] for side in (96, 299))
    for section in ("train", "val"):
        values[section]["transforms"] = small
    ((path, message),) = problems(values)
    assert path == "model"
    advice = "the images are too small for it: enlarge them by a Resize, or set aux_logits=False; 299×299 is the least"
    assert message.endswith(advice)
    values["model"]["aux_logits"] = False
    assert problems(values) == []
    del values["model"]["aux_logits"]
    values["train"]["transforms"] = larger
    assert problems(values) == []


TASK = {"type": "Classification", "target": "lable"}
TARGET = ("task.target", "the samples have no 'lable', the class of the image; did you mean 'label'?")
KEY = ("metrics[0]", "TopKAccuracy: found in the batch no 'lable'; did you mean 'label'?")


@pytest.mark.parametrize(
    ("section", "spec", "hiding", "hidden"),
    [
        ("task", TASK | {"veiws": "mirrored"}, ["task.veiws"], TARGET),
        ("task", TASK | {"views": "mirored"}, ["task.views"], TARGET),
        ("task", TASK | {"mean": [200.0]}, ["task.mean"], TARGET),  # which only the constructor knows
        ("task", TASK | {"mean": [200.0], "std": 3}, ["task.mean", "task.std"], TARGET),
        ("metrics", [{"type": "TopKAccuracy", "key": "lable", "k": 0}], ["metrics[0].k"], KEY),
    ],
)
def test_one_mistake_does_not_hide_another_in_the_same_component(section, spec, hiding, hidden):
    found = problems(changed(section, spec))
    assert sorted(where for where, _ in found) == sorted([*hiding, hidden[0]])
    assert hidden in found


@pytest.mark.parametrize(
    ("section", "spec", "where"),
    [
        ("task", {"type": "Classification", "taget": "label"}, "task.taget"),
        ("task", {"type": "Classification", "taget": "lable", "mean": [0.5]}, "task.taget"),
        ("metrics", [{"type": "Accuracy", "kye": "lable"}], "metrics[0].kye"),
        ("loss", {"type": "CrossEntropyLoss", "label_smoothin": 0.1}, "loss.label_smoothin"),
    ],
)
def test_what_follows_from_a_mistake_is_not_told(section, spec, where):
    assert [place for place, _ in problems(changed(section, spec))] == [where]
