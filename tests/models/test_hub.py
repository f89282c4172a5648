"""torchvision's pretrained weights: for other classes, safely, and with a word on what to do without a network."""

import hashlib
import urllib.request

import pytest
import torch
from torchvision import models
from torchvision.models import ResNet18_Weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops.misc import FrozenBatchNorm2d

from visreg import MODELS
from visreg.errors import CheckpointError, ResourceError
from visreg.models.hub import cached
from visreg.weights import InitialWeights

IMAGENET = ResNet18_Weights.IMAGENET1K_V1
OF_IMAGENET = {"type": "resnet18", "weights": "IMAGENET1K_V1"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Torch's cache, in a folder of the test, with no network behind it."""

    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def put(cache, monkeypatch, weights, model):
    """Put a model's state into the cache, as the file of some weights, and return the state and the file."""
    path = cache / "some.pth"
    torch.save(model.state_dict(), path)
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(weights.value, "url", f"https://example.org/some-{digits}.pth")
    return model.state_dict(), path.rename(cache / f"some-{digits}.pth")


def test_the_head_is_made_for_the_number_of_classes(cache, monkeypatch):
    torch.manual_seed(0)
    state, _ = put(cache, monkeypatch, IMAGENET, models.resnet18())
    start = InitialWeights()
    torch.manual_seed(1)
    model = MODELS.build({**OF_IMAGENET, "num_classes": 2}, initial_weights=start)
    torch.manual_seed(1)
    fresh = models.resnet18(num_classes=2).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh[name] if name.startswith("fc.") else state[name]), name
    (report,) = start.reports
    assert report.reshaped == {"fc.weight": ((1000, 512), (2, 512)), "fc.bias": ((1000,), (2,))}
    assert report.weights.mean == [0.485, 0.456, 0.406]
    assert str(report).startswith("120 of the model's 122 tensors begin as in ResNet18_Weights.IMAGENET1K_V1\n")


def test_as_many_classes_are_what_torchvision_itself_makes(cache, monkeypatch):
    _, path = put(cache, monkeypatch, IMAGENET, models.resnet18())
    ours = MODELS.build(OF_IMAGENET).state_dict()
    theirs = models.resnet18(weights=IMAGENET).state_dict()
    assert path.exists()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["densenet121", "vit_b_32", "mnasnet0_5", "googlenet"])
def test_models_whose_states_were_renamed_once(name, cache, monkeypatch):
    weights = models.get_model_weights(name).DEFAULT
    torch.manual_seed(0)
    state, _ = put(
        cache, monkeypatch, weights, models.get_model(name, **{"init_weights": False} if "goog" in name else {})
    )
    start = InitialWeights()
    ours = MODELS.build({"type": name, "weights": weights.name, "num_classes": 2}, initial_weights=start).state_dict()
    (report,) = start.reports
    assert not report.missing
    assert not report.unused
    assert len(report.reshaped) in (2, 6)  # googlenet has auxiliary heads
    assert all(torch.equal(value, state[key]) for key, value in ours.items() if key not in report.reshaped)


def test_a_detector_is_the_one_that_its_weights_are_for(cache, monkeypatch):
    weights = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    spec = {"type": "fasterrcnn_resnet50_fpn", "weights": "COCO_V1", "num_classes": 3}
    state, _ = put(cache, monkeypatch, weights, MODELS.build({**spec, "num_classes": 91}, initial_weights=LEFT))
    start = InitialWeights()
    model = MODELS.build(spec, initial_weights=start)
    unread = MODELS.build(spec, initial_weights=LEFT)
    for made in (model, unread):
        norm = made.backbone.body.bn1
        assert isinstance(norm, FrozenBatchNorm2d)
        assert norm.eps == 0.0
        assert not made.backbone.body.conv1.weight.requires_grad
        assert made.roi_heads.box_predictor.cls_score.out_features == 3
    assert {*start.reports[0].reshaped} == {
        f"roi_heads.box_predictor.{part}.{kind}" for part in ("cls_score", "bbox_pred") for kind in ("weight", "bias")
    }
    assert torch.equal(model.backbone.body.conv1.weight, state["backbone.body.conv1.weight"])


LEFT = InitialWeights("leave")


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ({"type": "DeepLabV3Plus", "num_classes": 4, "backbone": "resnet18"}, "backbone.network"),
        ({"type": "FasterRCNN", "num_classes": 4, "backbone": "resnet18"}, "backbone.body.network"),
    ],
)
def test_backbones_have_weights_of_their_own(spec, part, cache, monkeypatch):
    state, _ = put(cache, monkeypatch, IMAGENET, models.resnet18())
    start = InitialWeights()
    model = MODELS.build({**spec, "weights_backbone": "IMAGENET1K_V1"}, initial_weights=start)
    network = model.get_submodule(part).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.items())
    assert len(start.reports) == 1
    with pytest.raises(ValueError, match=r"weights_backbone: resnet18 has no weights 'IMAGENET'; did you mean"):
        MODELS.build({**spec, "weights_backbone": "IMAGENET"})


def test_torchvision_is_as_it_was_afterwards(cache):
    before = models.WeightsEnum.get_state_dict, vars(models.WeightsEnum)["meta"], torch.nn.Module.load_state_dict
    with pytest.raises(ResourceError):
        MODELS.build(OF_IMAGENET)
    assert before == (
        models.WeightsEnum.get_state_dict, vars(models.WeightsEnum)["meta"], torch.nn.Module.load_state_dict,
    )  # fmt: skip


def test_without_a_network_it_says_which_file_to_put_where(cache):
    (cache / "resnet18-f37072fd.pth.0123.partial").write_bytes(b"")
    with pytest.raises(ResourceError) as caught:
        MODELS.build({**OF_IMAGENET, "num_classes": 2})
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "no network", "https://download.pytorch.org/models/resnet18-f37072fd.pth", "SHA-256 begins with f37072fd",
        str(cache / "resnet18-f37072fd.pth"), "resnet18-f37072fd.pth.0123.partial is but a part of it",
    ):  # fmt: skip
        assert part in message


def test_part_of_a_file_in_the_cache_is_named(cache):
    (cache / "resnet18-f37072fd.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(
        CheckpointError, match=r"resnet18-f37072fd\.pth: damaged, or only part .* not f37072fd; delete it"
    ):
        MODELS.build(OF_IMAGENET)


def test_nothing_is_looked_for_where_weights_are_left_or_checked(cache):
    for mode in ("leave", "check"):
        MODELS.build({**OF_IMAGENET, "num_classes": 2}, initial_weights=InitialWeights(mode))


def test_the_name_of_a_file_says_what_its_hash_begins_with(cache):
    assert cached(IMAGENET) == (cache / "resnet18-f37072fd.pth", "f37072fd")


def _torchvisions():
    return [name for name in MODELS if MODELS.find(name).owner == "torchvision" and not name.startswith("regnet")]


@pytest.mark.slow
@pytest.mark.parametrize("name", _torchvisions())
def test_every_model_can_have_its_weights_for_other_classes(name):
    # But the regnets, which cannot be made on the meta device.
    for weights in models.get_model_weights(name):
        with torch.device("meta"):
            spec = {"type": name, "weights": weights.name, "num_classes": 5}
            model = MODELS.build(spec, initial_weights=InitialWeights("check"))
        assert any(value.ndim and len(value) % 5 == 0 for value in model.state_dict().values())
