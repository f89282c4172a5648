"""Contracts of every registered component, by its name, so that none can arrive untested.

A new component of visreg's own needs a line in ``OPTIONS``; an adopted one needs a line only where it must be given
options, or cannot be used as an image classifier's.
"""

from __future__ import annotations

import inspect
import io
import math
import re

import pytest
import torch
from PIL import Image
from tiny import StopAt, assert_same, snapshot, tiny_config, tiny_runner
from torch import nn

from visreg.build import build_runner
from visreg.check import check_config
from visreg.checkpoint import resume
from visreg.config import config_from, dumps_json, loads_json
from visreg.data import collate, pixels
from visreg.data_check import sample_problems
from visreg.datasets.adopted import Adopted
from visreg.errors import ConfigError
from visreg.hooks.checkpoint import Checkpoint
from visreg.memory import hold
from visreg.options import options_of
from visreg.parts import schedule_context
from visreg.registry import (
    DATASETS,
    HOOKS,
    KINDS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    TASKS,
    TRANSFORMS,
)
from visreg.schedule import Schedule
from visreg.tasks.classification import Classification
from visreg.tasks.segmentation import SemanticSegmentation

SMALL_RCNN = {"backbone": "csp_n", "channels": 8, "hidden": 8, "anchor_size": 8, "proposals": 20, "samples": 16}
# Options to make each component with. All of visreg's own are here; of the adopted ones, those that need some.
OPTIONS = {
    "models": {
        **{name: {} for name in ("ConvNet", "DropoutConvNet", "LeNet", "MLP", "PaddedConvNet", "TwoConv")},
        "AirbenchNet": {"in_channels": 1, "widths": [8, 16]},
        "DeepLabV3Plus": {"in_channels": 1, "num_classes": 8, "backbone": "resnet18", "channels": 8},
        "UNet": {"in_channels": 1, "num_classes": 8, "width": 4, "depth": 2},
        "Features": {"backbone": "resnet18", "strides": [4, 8], "in_channels": 1},
        "LinearHead": {"num_classes": 7},
        "MultiHead": {
            "backbone": {"type": "MLP"}, "heads": {name: {"type": "LinearHead", "num_classes": 10} for name in "ab"},
        },
        "UNetEncoder": {"in_channels": 1, "width": 4, "depth": 2},
        "UNetHead": {"num_classes": 8, "width": 4},
        "VideoConvNet": {"num_classes": 10, "in_channels": 1, "width": 4},
        "FasterRCNN": {"num_classes": 7, **SMALL_RCNN},
        "MaskRCNN": {"num_classes": 7, "mask_channels": 8, **SMALL_RCNN},
        "YOLO": {"in_channels": 1, "num_classes": 7, "strides": [2, 4]},
    },
    "tasks": {
        "Classification": {"mean": [0.1], "std": [0.3]}, "SemanticSegmentation": {"mean": [0.5], "aux_weight": 0.4},
        "Detection": {"mean": [0.5], "max_overlap": 0.6},
        "MultiTask": {
            "mean": [0.5], "weights": {"b": 0.5},
            "tasks": {name: {"type": "Classification", "loss": {"type": "CrossEntropyLoss"}} for name in "ab"},
        },
    },
    "losses": {
        "DiceLoss": {"smooth": 2.0}, "FocalLoss": {"gamma": 1.0}, "LovaszSoftmaxLoss": {},
        "SumLoss": {"losses": [{"type": "CrossEntropyLoss"}, {"type": "DiceLoss"}], "weights": [1.0, 0.5]},
        "YOLOLoss": {"iou": "ciou", "topk": 9},
        "LinearCrossEntropyLoss": {"in_features": 10, "num_classes": 10},
    },
    "datasets": {
        "Digits": {"train": False, "size": 12},
        "FirstAvailable": {"datasets": [{"type": "MNIST", "root": "nowhere", "download": False}, {"type": "Digits"}]},
        "ImageFolder": {"root": "pictures", "size": 32, "classes": list("abcdefghij")},
        "MNIST": {"train": False, "download": False},
        "Superclass": {"dataset": {"type": "Digits"}, "classes": {"low": list("01234"), "high": list("56789")}},
        "ShapeClips": {"size": 60, "frames": 3},
        "VideoFolder": {"root": "videos", "frames": 3, "classes": ["a", "b"]},
        "ShapeScenes": {"size": 60, "targets": ["label", "mask"]},
        "CocoDetection": {"root": "images", "annotations": "boxes.json", "classes": ["a", "b"]},
        "PennFudan": {"suffix": "_ids"},
        "VOCDetection": {"year": "2007", "difficult": "keep"},
        "ClassBalanced": {"dataset": {"type": "Digits", "train": False}, "threshold": 0.11},
        "Concat": {"datasets": [{"type": "Digits", "train": False}, {"type": "Digits", "train": False}]},
        "CopyPaste": {"dataset": {"type": "ShapeScenes", "targets": ["masks", "boxes"]}, "share": 0.7},
        "KFold": {"dataset": {"type": "Digits", "train": False}, "folds": 3, "fold": 1, "part": "train"},
        "Mosaic": {"dataset": {"type": "ShapeScenes", "targets": ["mask"]}, "size": 48},
        "Repeat": {"dataset": {"type": "Digits", "train": False}, "times": 2},
        "Subset": {"dataset": {"type": "Digits", "train": False}, "count": 40, "stratify": True},
        "YOLOFolder": {"root": "boxes", "split": "train", "classes": ["a", "b"]},
    },
    "transforms": {
        "CenterCrop": {"size": 24},
        "ColorJitter": {"brightness": 0.4, "hue": 0.1},
        "CutMix": {"num_classes": 10},
        "Cutout": {"length": 8},
        "MixUp": {"num_classes": 10},
        "RandomErasing": {"value": "random"},
        "RandomGrayscale": {"p": 0.2},
        "RandomHorizontalFlip": {},
        "RandomVerticalFlip": {"p": 0.2},
        "ConvertBoundingBoxFormat": {"format": "XYXY"},
        "FiveCrop": {"size": 24},
        "GaussianBlur": {"kernel_size": 3},
        "JPEG": {"quality": 50},
        "LinearTransformation": {"transformation_matrix": [[1.0]], "mean_vector": [0.0]},
        "Normalize": {"mean": [0.5], "std": [0.5]},
        "Pad": {"padding": 2},
        "RandomAdjustSharpness": {"sharpness_factor": 2.0},
        "RandomAffine": {"degrees": 10},
        "RandomApply": {"transforms": [{"type": "RandomInvert"}]},
        "RandomChoice": {"transforms": [{"type": "RandomInvert"}, {"type": "Identity"}]},
        "RandomCrop": {"size": 32, "padding": 4},
        "RandomOrder": {"transforms": [{"type": "RandomInvert"}, {"type": "Identity"}]},
        "RandomPosterize": {"bits": 4},
        "RandomResize": {"min_size": 24, "max_size": 25},
        "RandomResizedCrop": {"size": 24},
        "RandomRotation": {"degrees": 10},
        "RandomShortestSize": {"min_size": [24]},
        "RandomSolarize": {"threshold": 128.0},
        "Resize": {"size": [24, 24]},
        "ScaleJitter": {"target_size": [32, 32], "scale_range": [1.0, 1.0]},
        "SetClampingMode": {"clamping_mode": "soft"},
        "TenCrop": {"size": 24},
        "ToDtype": {"dtype": "float32", "scale": True},
        "UniformTemporalSubsample": {"num_samples": 2},
    },
    "samplers": {
        "ClassAwareSampler": {"num_samples": 50}, "InfiniteSampler": {}, "RepeatAugSampler": {"num_repeats": 2},
        "WeightedRandomSampler": {"class_weights": [1.0] * 9 + [5.0], "num_samples": 70},
    },
    "metrics": {
        "Accuracy": {}, "ConfusionMatrix": {}, "Dice": {"average": "micro"}, "F1": {"average": "weighted"},
        "MeanClassAccuracy": {}, "MeanIoU": {}, "PixelAccuracy": {}, "Precision": {}, "Recall": {"average": "micro"},
        "TopKAccuracy": {"k": 2}, "MeanAveragePrecision": {"max_objects": 10}, "VOCAveragePrecision": {"points": "11"},
        "PerHead": {"heads": {"a": [{"type": "F1"}], "b": [{"type": "Accuracy"}, {"type": "Dice", "key": "mask"}]}},
    },
    "optimizers": {},
    "schedules": {
        "Constant": {"warmup_steps": 3},
        "Cosine": {"warmup_steps": 3, "final": 0.1},
        "Linear": {"warmup_steps": 3, "final": 0.1},
        "ChainedScheduler": {"schedulers": [{"type": "LinearLR"}, {"type": "ExponentialLR", "gamma": 0.9}]},
        "CosineAnnealingWarmRestarts": {"T_0": 5},
        "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4},
        "ExponentialLR": {"gamma": 0.9},
        "MultiStepLR": {"milestones": [3, 7]},
        "OneCycleLR": {"max_lr": 0.1},
        "ReduceLROnPlateau": {"monitor": "accuracy", "patience": 1},
        "SequentialLR": {
            "schedulers": [{"type": "ConstantLR"}, {"type": "ExponentialLR", "gamma": 0.9}], "milestones": [4],
        },
        "StepLR": {"step_size": 4},
    },
    "hooks": {
        "Checkpoint": {"every_steps": 1, "best": "accuracy"}, "ClipGrad": {"max_norm": 0.1}, "Console": {},
        "EMA": {"decay": 0.9}, "EarlyStopping": {"monitor": "accuracy"}, "Freeze": {"patterns": ["0"], "epochs": 1},
        "L1": {"weight": 0.01}, "L2": {"weight": 0.01}, "Lookahead": {"every": 2, "power": 3},
        "MetricsLog": {"every": 2}, "Profiler": {"steps": 2}, "TensorBoard": {"every": 2},
        "Whiten": {"layer": "0"},
    },
}  # fmt: skip
# Adopted names that cannot be used in a config for images and labels, each with a word of the reason it gets.
REFUSED = {
    "datasets": {"HMDB51": "VideoFolder", "Kinetics": "VideoFolder", "UCF101": "VideoFolder"},
    "losses": {
        "BCELoss": "size", "BCEWithLogitsLoss": "size", "CTCLoss": "input_lengths", "CosineEmbeddingLoss": "target",
        "GaussianNLLLoss": "var", "HingeEmbeddingLoss": "must match", "HuberLoss": "size", "KLDivLoss": "Integral",
        "L1Loss": "size", "MSELoss": "size", "MarginRankingLoss": "target", "MultiLabelMarginLoss": "size",
        "MultiLabelSoftMarginLoss": "must match",
        "NLLLoss": "log-probabilities", "PoissonNLLLoss": "must match", "SmoothL1Loss": "size",
        "YOLOLoss": "of a dense detector such as YOLO", "SoftMarginLoss": "must match",
        "TripletMarginLoss": "negative", "TripletMarginWithDistanceLoss": "negative",
    },
    "optimizers": {"LBFGS": "closure", "Muon": "2D parameters", "SparseAdam": "dense gradients"},
    "schedules": {"LambdaLR": "lr_lambda", "MultiplicativeLR": "lr_lambda"},  # a config holds no functions
    "transforms": {
        "CutMix": "is it in batch_transforms", "MixUp": "is it in batch_transforms",  # of batches
        "FiveCrop": "", "TenCrop": "", "ToPILImage": "",  # their output is no tensor
        "LinearTransformation": "", "RandomIoUCrop": "bounding boxes", "SanitizeBoundingBoxes": "bounding boxes",
        "SanitizeKeyPoints": "keypoints", "UniformTemporalSubsample": "",  # of other things
        "Normalize": "float",  # which pixels are not; Classification has a mean and std
    },
}  # fmt: skip
NOT_CLASSIFIERS = tuple(f"torchvision.models.{folder}" for folder in ("detection", "segmentation", "video"))
# Of each kind of problem: data for it, and a model and a loss that fit. A new task needs a line here.
PROBLEMS = {
    "Classification": ({"type": "Digits", "train": False}, "MLP", "CrossEntropyLoss"),
    "SemanticSegmentation": ({"type": "ShapeScenes", "targets": ["mask"]}, "UNet", "CrossEntropyLoss"),
    "Detection": ({"type": "ShapeScenes", "targets": ["boxes"]}, "YOLO", "YOLOLoss"),
    "MultiTask": ({"type": "Digits", "train": False}, "MultiHead", "CrossEntropyLoss"),
}


def own(registry):
    return [name for name in registry if registry.find(name).source == "own"]


def spec(kind, name):
    return {"type": name, **OPTIONS[kind].get(name, {})}


def refusal(**changes):
    """Return what the check says against a config, which may be nothing."""
    try:
        check_config(config_from(tiny_config(**changes)))
    except ConfigError as error:
        return str(error)
    return ""


def saved(state):
    """Return a state as it comes back out of a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# Every component


def test_everything_of_our_own_has_sample_options():
    assert OPTIONS.keys() == KINDS.keys()
    for kind, registry in KINDS.items():
        assert [name for name in own(registry) if name not in OPTIONS[kind]] == [], f"add these {kind} to OPTIONS"


def test_the_tables_name_nothing_that_is_not_there():
    for table in (OPTIONS, REFUSED):
        for kind, names in table.items():
            assert set(names) <= set(KINDS[kind])


OWN = [(kind, name) for kind, registry in KINDS.items() for name in own(registry)]


@pytest.mark.parametrize(("kind", "name"), OWN)
def test_its_docstring_opens_with_a_sentence(kind, name):
    first = inspect.getdoc(KINDS[kind].get(name)).partition("\n")[0]
    assert first[0].isupper() or first[0].isdigit()
    assert first.endswith(".")
    assert len(first) > 15


@pytest.mark.parametrize(
    ("kind", "name"), [pair for pair in OWN if pair[0] in ("models", "datasets", "metrics", "hooks")]
)
def test_a_config_that_was_dumped_and_loaded_builds_the_same(kind, name):
    before = spec(kind, name)
    after = loads_json(dumps_json(before))
    assert after == before
    one, other = (KINDS[kind].build(item) for item in (before, after))
    assert type(one) is type(other) is KINDS[kind].get(name)
    assert repr(one) == repr(other)


# Models

SHIPPED = [name for name in MODELS if MODELS.find(name).source in ("own", "adopted")]
CLASSIFIERS = [
    name for name in SHIPPED if not any(word in MODELS.find(name).target for word in NOT_CLASSIFIERS)
]  # fmt: skip
OTHERS = [name for name in SHIPPED if name not in CLASSIFIERS]
ADOPTED = [name for name in CLASSIFIERS if name not in own(MODELS)]
MUST_HAVE_VALUES = re.compile("regnet")  # their constructor reads numbers out of tensors, which meta ones lack


def one_of_each(names):
    """Mark all but the first of each family as slow."""
    seen = set()
    for name in names:
        family = re.match(r"[a-z]+(_v\d)?", name)[0]
        yield pytest.param(name, marks=pytest.mark.slow if family in seen else ())
        seen.add(family)


def side(name):
    return 299 if name == "inception_v3" else 224


def quietly(name, **options):
    """Return an adopted model without weights; two of them warn that their initialisation is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *arguments, **options: None)
        return MODELS.build({"type": name, **options})


@pytest.mark.parametrize("name", [name for name in one_of_each(ADOPTED) if not MUST_HAVE_VALUES.match(name.values[0])])
def test_adopted_classifiers_give_logits_on_the_meta_device(name):
    with torch.device("meta"):
        model = quietly(name, num_classes=7).eval()
        logits = model(torch.empty(2, 3, side(name), side(name)))
    assert logits.shape == (2, 7)
    assert logits.device.type == "meta"


@pytest.mark.parametrize("name", [*one_of_each(["regnet_x_400mf", *filter(MUST_HAVE_VALUES.match, ADOPTED)])])
def test_adopted_classifiers_that_have_no_meta_device_give_logits(name):
    with torch.no_grad():
        assert quietly(name, num_classes=7).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("name", [*one_of_each(OTHERS)])
def test_adopted_models_of_other_tasks_are_built_without_weights(name):
    options = {"weights_backbone": None} if "video" not in MODELS.find(name).target else {}
    with torch.device("meta"):
        model = quietly(name, weights=None, **options)
    assert isinstance(model, nn.Module)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1e6


SEGMENTERS = ("DeepLabV3Plus", "UNet")
PARTS = ("Features", "LinearHead", "UNetEncoder", "UNetHead")  # of models, which tests/models look at
TWO_STAGES = ("FasterRCNN", "MaskRCNN")  # which the exporter does not take: how much they do depends on what they find
DETECTORS = (*TWO_STAGES, "YOLO")
MIXED = ("CopyPaste", "Mosaic")  # datasets whose samples are drawn anew each time
OF_OBJECTS = ("CocoDetection", "PennFudan", "VOCDetection", "YOLOFolder")
OF_UNLIKE_SIZES = (*OF_OBJECTS, "VideoFolder")  # datasets whose images or clips may differ in size


FOR_CLIPS = ("VideoConvNet",)


def answer(model, images):
    """Return what a model says of images (N, 1, H, W), or of clips of them, as one tensor or a dict."""
    if type(model).__name__ in FOR_CLIPS:
        return model(still(images))
    if "targets" in inspect.signature(model.forward).parameters:
        return torch.cat([found["boxes"] for found in model(list(images.expand(-1, 3, -1, -1)))])
    return model(images)


def still(images):
    """Return clips (N, C, 4, H, W) in which nothing moves."""
    return images.unsqueeze(2).expand(-1, -1, 4, -1, -1)


@pytest.fixture(params=[name for name in own(MODELS) if name not in (*DETECTORS, *PARTS)])
def model_name(request):
    return request.param


def made(name, **options):
    torch.manual_seed(0)
    sized = "image_size" in options_of(MODELS.get(name))
    return MODELS.build({**spec("models", name), **{k: v for k, v in options.items() if k != "image_size" or sized}})


@pytest.mark.parametrize("model_name", [name for name in own(MODELS) if name not in (*DETECTORS, *PARTS, "MultiHead")])
@pytest.mark.parametrize("side", [28, 32])
def test_own_models_train(model_name, side):
    model = made(model_name, image_size=side, num_classes=7)
    images = torch.rand(4, 1, side, side)
    logits = answer(model, images)
    shape = (4, 7, side, side) if model_name in SEGMENTERS else (4, 7)
    assert logits.shape == shape
    assert logits.dtype == torch.float32
    target = torch.arange(4).view(4, *[1] * (logits.ndim - 2)).expand(4, *shape[2:])
    nn.functional.cross_entropy(logits, target).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    with torch.device("meta"):
        assert answer(made(model_name, image_size=side, num_classes=7), images.to("meta")).shape == shape


@pytest.mark.parametrize("name", DETECTORS)
def test_own_detectors_train(name, tmp_path):
    loss = {} if name in TWO_STAGES else {"loss": spec("losses", "YOLOLoss")}
    dataset = {"type": "ShapeScenes", "size": 8, "targets": ["boxes", "masks"]}
    config = tiny_config(
        task={"type": "Detection"},
        metrics=[{"type": "MeanAveragePrecision"}, {"type": "VOCAveragePrecision"}],
        train={"dataset": dataset, "batch_size": 4},
        val={"dataset": dataset, "batch_size": 3},
        run={"epochs": 1, "accumulate": 2, "work_dir": str(tmp_path)},
    )
    config = {**{key: value for key, value in config.items() if key != "loss"}, **loss}
    config["model"] = {**spec("models", name), **({"in_channels": 3} if name == "YOLO" else {})}
    runner = build_runner(config)
    before = {key: value.clone() for key, value in runner.task.named_parameters()}
    runner.train()
    assert runner.step == 2
    assert len(runner.losses) > 2
    assert 0 <= runner.scores["mAP"] <= 1
    for key, value in runner.task.named_parameters():
        # In two steps there need not be an object for each level of a dense model to locate.
        assert ".locate." in key or not torch.equal(value, before[key]), key
        assert value.isfinite().all(), key


def test_own_models_of_one_seed_have_the_same_weights(model_name):
    one, same = made(model_name), made(model_name)
    other = MODELS.build(spec("models", model_name))  # the generator has moved on
    assert_same(dict(one.state_dict()), dict(same.state_dict()))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_own_models_keep_all_in_their_state_dict(model_name):
    one, other = made(model_name).eval(), MODELS.build(spec("models", model_name)).eval()
    images = torch.rand(3, 1, 28, 28)
    assert str(answer(one, images)) != str(answer(other, images))
    other.load_state_dict(saved(one.state_dict()))
    torch.testing.assert_close(answer(one, images), answer(other, images), rtol=0, atol=0)


@pytest.mark.parametrize("model_name", [name for name in own(MODELS) if name not in (*TWO_STAGES, *PARTS)])
def test_own_models_are_exported(model_name):
    model, images, two = made(model_name).eval(), torch.rand(3, 1, 28, 28), torch.rand(2, 1, 28, 28)
    if model_name in FOR_CLIPS:
        images, two = still(images), still(two)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (two,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(exported.module()(images), model(images))


@pytest.mark.parametrize("name", [*one_of_each(name for name in OTHERS if "segmentation" in MODELS.find(name).target)])
def test_adopted_segmenters_train(name):
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    aux = {"aux_loss": True} if "aux_loss" in options_of(MODELS.get(name)) else {}
    with torch.device("meta"):
        task = SemanticSegmentation(
            model=MODELS.build({"type": name, "num_classes": 5, **aux}), loss=nn.CrossEntropyLoss()
        )
        batch = {"image": images.to("meta"), "mask": torch.zeros(2, 64, 64, dtype=torch.int64)}
        losses = task(batch)
    assert list(losses) == ["loss", *["aux_loss"] * bool(aux)]
    assert all(loss.shape == () for loss in losses.values())
    assert task.predict(batch)["scores"].shape == (2, 5, 64, 64)


@pytest.mark.parametrize("name", [*one_of_each(name for name in OTHERS if "video" in MODELS.find(name).target)])
def test_adopted_classifiers_of_clips_train(name):
    side = 224 if name.startswith(("mvit", "s3d")) else 32
    with torch.device("meta"):
        task = Classification(model=MODELS.build({"type": name, "num_classes": 5}), loss=nn.CrossEntropyLoss())
        clip = torch.empty(2, 16, 3, side, side, dtype=torch.uint8)
        batch = {"clip": clip, "label": torch.zeros(2, dtype=torch.int64)}
        task(batch)["loss"].backward()
    assert all(parameter.grad is not None for parameter in task.parameters())
    assert task.predict(batch)["scores"].shape == (2, 5)


# Losses, optimizers, schedules


@pytest.mark.filterwarnings("ignore:.NLLLoss2d:FutureWarning")
@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_train_a_classifier_or_are_refused(name):
    message = refusal(loss=spec("losses", name))
    if name in REFUSED["losses"]:
        assert message.startswith(("<dict>: loss: ", "<dict>: loss.type: "))
        assert REFUSED["losses"][name] in message
        return
    assert message == ""
    task = Classification(model=made("MLP"), loss=LOSSES.build(spec("losses", name)))
    losses = task({"image": torch.rand(4, 1, 28, 28), "label": torch.arange(4)})
    assert list(losses) == ["loss"]
    assert losses["loss"].shape == ()
    losses["loss"].backward()
    gradient = next(task.model.parameters()).grad
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "DiceLoss", "FocalLoss", "LovaszSoftmaxLoss", "SumLoss"])
def test_losses_train_a_segmenter(name, tmp_path):
    dataset = {**PROBLEMS["SemanticSegmentation"][0], "size": 8}
    config = tiny_config(
        task={"type": "SemanticSegmentation"},
        loss=spec("losses", name),
        metrics=[{"type": "MeanIoU"}],
        train={"dataset": dataset, "batch_size": 4},
        val={"dataset": dataset, "batch_size": 3},
        run={"epochs": 1, "work_dir": str(tmp_path)},
    )
    config["model"] = {**spec("models", "UNet"), "in_channels": 3}  # whole, not merged into the tiny one
    runner = build_runner(config)
    before = [parameter.clone() for parameter in runner.task.parameters()]
    runner.train()
    assert 0 < runner.scores["mean_iou"] < 1
    assert all(not torch.equal(*pair) for pair in zip(before, runner.task.parameters(), strict=True))


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimizers_take_steps_or_are_refused(name, tmp_path):
    message = refusal(optimizer=spec("optimizers", name))
    if name in REFUSED["optimizers"]:
        assert message.startswith("<dict>: optimizer: ")
        assert REFUSED["optimizers"][name] in message
        return
    assert message == ""
    run = {"epochs": None, "steps": 2, "work_dir": str(tmp_path)}
    runner = build_runner(tiny_config(optimizer=spec("optimizers", name), run=run))
    before = {key: value.clone() for key, value in runner.task.model.state_dict().items()}
    runner.train()
    assert runner.step == 2
    for key, value in runner.task.model.state_dict().items():
        assert not torch.equal(value, before[key]), key
        assert value.isfinite().all(), key
    again = build_runner(tiny_config(optimizer=spec("optimizers", name), run=run))
    again.load_state_dict(saved(runner.state_dict()))
    assert_same(snapshot(again), snapshot(runner))


STEPS = 12


def scheduled(name):
    """Return an optimizer and a schedule for a run of twelve steps in three epochs, and its unit."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    own_spec, length, every = schedule_context(spec("schedules", name), STEPS, 3)
    scheduler = SCHEDULES.build(own_spec, optimizer=optimizer, **length)
    made = {"step": [], "epoch": [], "eval": [], every: [(scheduler, "accuracy") if every == "eval" else scheduler]}
    return optimizer, Schedule(per_step=made["step"], per_epoch=made["epoch"], per_eval=made["eval"]), every


def move_on(optimizer, schedule, start, end):
    """Return the learning rates of some steps, four to an epoch, with an evaluation that never gets better."""
    rates = []
    for step in range(start, end):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.after_step()
        if step % 4 == 3:
            schedule.after_epoch()
            schedule.after_eval({"accuracy": 0.5})
    return rates


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in REFUSED["schedules"]])
def test_schedules_run_and_resume_exactly(name):
    assert refusal(schedule=spec("schedules", name), run={"epochs": None, "steps": STEPS}) == ""
    optimizer, schedule, unit = scheduled(name)
    whole = move_on(optimizer, schedule, 0, STEPS)
    assert unit == (
        "eval" if name == "ReduceLROnPlateau" else "step" if name in (*own(SCHEDULES), "OneCycleLR") else "epoch"
    )
    assert all(0 <= rate <= 0.1001 and math.isfinite(rate) for rate in whole)
    for stop in (1, 4, 7, 11):
        optimizer, schedule, _ = scheduled(name)
        assert move_on(optimizer, schedule, 0, stop) == whole[:stop]
        states = saved([optimizer.state_dict(), schedule.state_dict()])
        optimizer, schedule, _ = scheduled(name)
        optimizer.load_state_dict(states[0])
        schedule.load_state_dict(states[1])
        assert move_on(optimizer, schedule, stop, STEPS) == whole[stop:]
        optimizer, schedule, _ = scheduled(name)
        schedule.replay(states[1], stop, steps_per_epoch=4)
        assert move_on(optimizer, schedule, stop, STEPS) == pytest.approx(whole[stop:], rel=1e-15)


@pytest.mark.parametrize("name", list(REFUSED["schedules"]))
def test_schedules_that_need_a_function_are_refused(name):
    for options in ({}, {"lr_lambda": "lambda step: 1"}):
        assert REFUSED["schedules"][name] in refusal(schedule={"type": name, **options})


# Metrics


def predictions(seed, count=9, classes=4):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, classes, generator=generator)
    target = torch.randint(0, classes, (count,), generator=generator)
    found = scores.argmax(1)
    return {"scores": scores, "label": found, "mask": found}, {"label": target, "mask": target}


def detections(seed, count=9):
    """Return objects of every size and of four classes, of which three quarters are found nearly where they are."""
    generator = torch.Generator().manual_seed(seed)
    found, truth = {"boxes": [], "labels": [], "scores": []}, {"image": torch.zeros(count, 3, 128, 128)}
    truth |= {"boxes": [], "labels": [], "index": torch.arange(count) + 100 * seed}
    for _ in range(count):
        sides = torch.tensor([16.0, 20.0, 50.0, 110.0])[:, None]
        low = torch.rand(4, 2, generator=generator) * 10
        boxes = torch.cat([low, low + sides], dim=1)
        labels = torch.randperm(4, generator=generator)
        shaken = boxes + torch.rand(4, 4, generator=generator) * sides / 8
        for key, value in (("boxes", boxes), ("labels", labels)):
            truth[key].append(value)
        wrong = torch.rand(4, generator=generator) < 0.25
        for key, value in (("boxes", shaken), ("labels", labels.where(~wrong, 3 - labels))):
            found[key].append(value)
        found["scores"].append(torch.rand(4, generator=generator))
    return found, truth


def guesses(name, seed, count=9):
    """Return made up predictions and truth of the kind that a metric is for."""
    found, truth = detections(seed, count) if "AveragePrecision" in name else predictions(seed, count)
    return ({"a": found, "b": found} if name == "PerHead" else found), truth


def cut(values, place):
    """Return some samples of predictions or of a batch."""
    return {key: cut(value, place) if isinstance(value, dict) else value[place] for key, value in values.items()}


def scores_of(metric, *batches):
    metric.reset()
    for found, batch in batches:
        metric.update(found, batch)
    return metric.compute()


@pytest.mark.parametrize("name", list(METRICS))
def test_metrics_give_the_scores_that_they_name(name):
    metric = METRICS.build(spec("metrics", name))
    found = scores_of(metric, guesses(name, 0))
    assert list(found) == list(metric.names())
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in found.values())
    for columns in metric.per_class().values():
        assert len(columns) == 4
    empty = scores_of(metric)  # `reset` forgets
    assert list(empty) == list(metric.names())
    assert all(map(math.isnan, empty.values()))
    assert METRICS.build(spec("metrics", name)).compute().keys() == empty.keys()


@pytest.mark.parametrize("name", list(METRICS))
def test_metrics_do_not_depend_on_how_samples_are_batched(name):
    metric = METRICS.build(spec("metrics", name))
    (one, target), rest = guesses(name, 0), guesses(name, 1, 4)
    together = scores_of(metric, (one, target), rest), metric.per_class()
    for end in (1, 5, 8):
        parts = [tuple(cut(values, place) for values in (one, target)) for place in (slice(end), slice(end, None))]
        assert (scores_of(metric, rest, *reversed(parts)), metric.per_class()) == together


# Hooks


def with_hook(name, work_dir, *more):
    hook = HOOKS.build(spec("hooks", name))
    beside = [] if name == "Checkpoint" else [Checkpoint(every_steps=1)]
    return hook, tiny_runner(work_dir, [hook, *more, *beside], total_steps=7, eval_steps=2)


@pytest.mark.parametrize("name", list(HOOKS))
def test_a_run_with_the_hook_that_was_killed_and_resumed_ends_as_one_that_was_not(name, tmp_path):
    hook, whole = with_hook(name, tmp_path / "whole")
    whole.train()
    assert whole.step == 7
    assert_same(saved(hook.state_dict()), hook.state_dict())
    _, killed = with_hook(name, tmp_path / "killed", StopAt(3, "crash"))
    with pytest.raises(RuntimeError, match="killed"):
        killed.train()
    torch.manual_seed(99)
    _, again = with_hook(name, tmp_path / "killed")
    state = resume(tmp_path / "killed" / "checkpoints")
    assert state["step"] == 2
    again.load_state_dict(state)
    again.train()
    assert_same(snapshot(again), snapshot(whole))


# Datasets


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A data root with a folder of thirty colour pictures of ten classes."""
    generator = torch.Generator().manual_seed(0)
    for number in range(30):
        folder = tmp_path / "pictures" / "abcdefghij"[number % 10]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    monkeypatch.setenv("VISREG_DATA", str(tmp_path))


@pytest.fixture
def dataset_spec(request, pictures):
    found = spec("datasets", request.param)
    return {**found, "root": request.getfixturevalue("mnist_root")} if request.param == "MNIST" else found


@pytest.mark.parametrize(
    "dataset_spec", [name for name in own(DATASETS) if name not in (*OF_UNLIKE_SIZES, *MIXED)], indirect=True
)
def test_own_datasets_give_what_they_say(dataset_spec):
    dataset = DATASETS.build(dataset_spec)
    blank, classes = dict(dataset.info.sample), dataset.info.classes  # before anything is read
    assert len(classes) == (number := {"ShapeScenes": 7, "ShapeClips": 8}.get(dataset_spec["type"], 10))
    dataset.open()
    dataset.open()
    count = len(dataset)
    assert count > 0
    name = dataset.info.name
    if dataset_spec["type"] != "FirstAvailable":
        assert (dict(dataset.info.sample).keys(), dataset.info.classes) == (blank.keys(), classes)
    tensors = hold(dataset, [], torch.device("cpu")).tensors
    assert {key: len(tensor) for key, tensor in tensors.items()} == dict.fromkeys(blank, count)
    assert torch.equal(dataset.labels(), tensors["label"])
    assert dataset.stream() is None
    for index in {0, 1, count // 2, count - 1}:
        sample = dataset[index]
        assert sample.keys() == blank.keys()
        for key, value in sample.items():
            assert (value.shape, value.dtype) == (blank[key].shape, blank[key].dtype), key
            assert torch.equal(tensors[key][index], value), key
        assert 0 <= int(sample["label"]) < number
    assert pixels(tensors).max() > 0
    assert set(tensors["label"].tolist()) == set(range(number))
    assert dataset.info.name == name


@pytest.mark.parametrize("name", MIXED)
def test_mixed_datasets_give_what_they_say(name):
    dataset = DATASETS.build(spec("datasets", name))
    blank = dataset.info.sample
    assert set(dataset.info.held) == set(blank)
    dataset.open()
    assert dataset.tensors() is None
    assert dataset.labels() is None
    for index in range(5):
        problems = sample_problems(dataset[index], dataset.info)
        assert problems == []


@pytest.mark.parametrize("name", OF_OBJECTS)
def test_datasets_of_objects_say_what_they_hold_and_read_nothing_before(name, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *arguments, **options: pytest.fail("a file was opened"))
    dataset = DATASETS.build(spec("datasets", name))
    assert {"image", "boxes", "labels"} <= set(dataset.info.keys)
    assert dataset.info.classes
    assert len(dataset) == 0


@pytest.mark.parametrize("name", REFUSED["datasets"])
def test_adopted_datasets_of_videos_are_refused(name):
    needed = {"frames_per_clip": 8} | ({} if name == "Kinetics" else {"annotation_path": "lists"})
    message = refusal(train={"dataset": {"type": name, **needed}})
    assert message.startswith(f"<dict>: train.dataset: {name} needs a decoder")
    assert REFUSED["datasets"][name] in message


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in (*own(DATASETS), *REFUSED["datasets"])])
def test_adopted_datasets_are_adapted_and_read_nothing(name, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *arguments, **options: pytest.fail("a file was opened"))
    dataset = DATASETS.build({"type": name})
    assert isinstance(dataset, Adopted)
    assert dataset.info.name == dataset.name == getattr(DATASETS.get(name), "__name__", name)
    assert len(dataset) == 0


# Transforms


@pytest.fixture
def pooled():
    """A model for images of any size."""

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 10)

        def forward(self, image):
            return self.linear(image.mean((1, 2, 3))[:, None])

    MODELS.register(Pooled)
    return {"type": "Pooled"}


def section(**options):
    return {"dataset": spec("datasets", "ImageFolder"), "batch_size": 10, **options}


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # JPEG's
@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_transforms_run_on_samples_or_are_refused(name, pictures, pooled, tmp_path):
    # Some give every image a size of its own.
    train = section(transforms=[spec("transforms", name), {"type": "Resize", "size": [20, 20]}])
    message = refusal(model=pooled, train=train)
    if name in REFUSED["transforms"]:
        assert message.startswith("<dict>: train.transforms[")
        assert REFUSED["transforms"][name] in message
        return
    assert message == ""
    run = {"epochs": None, "steps": 3, "work_dir": str(tmp_path)}
    runner = build_runner(tiny_config(model=pooled, train=train, val=section(), run=run))
    seen = [batch for epoch in (0, 1) for batch in runner.train_loader.epoch(epoch)]
    for batch in seen:
        assert batch["image"].shape[:1] + batch["image"].shape[2:] == (10, 20, 20)
        assert batch["label"].tolist() == [index // 3 for index in batch["index"].tolist()]
    runner.train()
    assert math.isfinite(runner.losses["loss"])


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_is_built_on_a_model_and_a_loss(name):
    data, model, loss = PROBLEMS[name]
    dataset = DATASETS.build(data)
    dataset.open()
    batch = collate([dataset[0], dataset[1]])
    channels = {"in_channels": batch["image"].shape[1]} if "in_channels" in options_of(MODELS.get(model)) else {}
    parts = {"model": made(model, **channels), "loss": LOSSES.build(spec("losses", loss))}
    task = TASKS.build(spec("tasks", name), **parts)
    assert all(loss.shape == () for loss in task(batch).values())
    found = task.predict(batch)
    for head in found.values() if name == "MultiTask" else [found]:
        assert all(len(value) == 2 for value in head.values())
    assert task.mismatch(batch, dataset.info) is None
