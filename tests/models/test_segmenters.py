"""U-Net, DeepLabV3+, and the backbones that classifiers are."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18, resnet50
from torchvision.models.segmentation import deeplabv3_resnet50

from visreg.models.deeplab import DeepLabV3Plus
from visreg.models.features import Features
from visreg.models.unet import UNet
from visreg.registry import MODELS


@pytest.mark.parametrize("size", [(16, 16), (37, 50)])
def test_unet_gives_logits_of_the_images_size(size):
    model = UNet(in_channels=2, num_classes=5, width=4, depth=3).eval()
    assert model(torch.zeros(2, 2, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("size", [(64, 64), (70, 45)])
def test_unet_takes_a_classifier_for_its_way_down(size):
    model = UNet(in_channels=1, num_classes=5, width=8, depth=5, backbone="resnet18").eval()
    assert [tuple(level.shape[1:2]) for level in model.encoder(torch.zeros(1, 1, 64, 64))] == [
        (64,), (64,), (128,), (256,), (512,)
    ]  # fmt: skip
    assert [up[0].out_channels for up in model.decoder.up] == [64, 32, 16, 8]
    assert model(torch.zeros(2, 1, *size)).shape == (2, 5, *size)


def test_unet_is_the_papers_by_default():
    with torch.device("meta"):
        model = UNet()
    assert [down[0].out_channels for down in model.encoder.down] == [64, 128, 256, 512, 1024]
    assert model.decoder.last.out_channels == 21


def test_unet_hands_edges_across():
    torch.manual_seed(0)
    model = UNet(in_channels=1, num_classes=2, width=4, depth=2).eval()
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    model(image)[0, 0, 8, 8].backward()
    strength = image.grad[0, 0].abs()
    assert strength[8, 8] > 10 * strength[strength > 0].median()
    assert (strength > 0).sum() > 9 * 9  # which is what the first level alone sees


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_deeplab_gives_logits_of_the_images_size(size):
    for low_stride, output_stride in ((4, 16), (2, 8)):
        model = DeepLabV3Plus(
            num_classes=3, backbone="resnet18", channels=8, low_stride=low_stride, output_stride=output_stride
        ).eval()
        assert model(torch.zeros(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("resnet18", (64, 512)),
        ("mobilenet_v3_small", (72, 576)),
        pytest.param("efficientnet_b0", (144, 1280), marks=pytest.mark.slow),
        pytest.param("regnet_y_400mf", (104, 440), marks=pytest.mark.slow),
    ],
)
def test_backbones_are_dilated_to_the_stride_asked_for(backbone, channels):
    for stride in (32, 16, 8):
        features = Features(backbone, (4, stride), dilate=True).eval()
        low, high = features(torch.zeros(1, 3, 64, 64))
        assert low.shape == (1, channels[0], 16, 16)
        assert high.shape == (1, channels[1], 64 // stride, 64 // stride)
        assert features.channels == (low.shape[1], high.shape[1])


def test_a_dilated_resnet_is_torchvisions():
    torch.manual_seed(0)
    ours = Features("resnet50", (4, 8), dilate=True).eval()
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None).backbone.eval()
    theirs.load_state_dict(ours.network.state_dict())  # the names are those of torchvision's weights, too
    image = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        assert torch.equal(ours(image)[1], theirs(image)["out"])


def test_a_backbone_that_is_not_dilated_sees_what_the_classifier_sees():
    ours, theirs = Features("resnet50", (4, 32)), resnet50()
    ours.network.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    image = torch.rand(1, 3, 64, 64)
    seen = []
    theirs.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        theirs.eval()(image)
        assert torch.equal(ours.eval()(image)[1], seen[0])


def test_what_comes_behind_the_last_stride_is_left_off_unless_it_is_dilated():
    short, whole = Features("resnet18", (2, 8)), resnet18()
    assert set(short.network.state_dict()) == {
        name for name in whole.state_dict() if name.startswith(("conv1", "bn1", "layer1", "layer2"))
    }
    features = Features("vgg11", (2, 8))  # its pooling cannot be dilated, and need not be
    assert [each.shape for each in features(torch.zeros(1, 3, 64, 64))] == [(1, 128, 32, 32), (1, 512, 8, 8)]
    small, large = (DeepLabV3Plus(5, "resnet18", output_stride=8, dilate=dilate).eval() for dilate in (False, True))
    assert small(image := torch.zeros(1, 3, 40, 40)).shape == large(image).shape
    assert len(small.state_dict()) < len(large.state_dict())


def test_a_backbone_for_other_channels():
    features = Features("resnet18", (4, 32), in_channels=1).eval()
    assert features(torch.zeros(1, 1, 64, 64))[0].shape == (1, 64, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet19"}, "no model 'resnet19'; did you mean 'resnet18'"),
        ({"backbone": "vit_b_32"}, "backbone: no feature maps can be taken of vit_b_32"),
        ({"backbone": "vgg11", "output_stride": 16}, "it halves stride 16 by MaxPool2d"),
        ({"backbone": "resnet18", "output_stride": 4}, "output_stride: must be 8, 16 or 32"),
        ({"backbone": "resnet18", "channels": 0}, "channels: must be 1 or more"),
        ({"backbone": "resnet18", "dropout": 1.0}, "dropout: must be from 0 to below 1"),
    ],
)
def test_impossible_options_are_named(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        DeepLabV3Plus(**options)


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_adopted_models_load_no_weights_unless_asked_to(name, monkeypatch):
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *arguments, **options: pytest.fail("a download"))
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *arguments, **options: pytest.fail("a download")
    )
    with torch.device("meta"):
        assert MODELS.build({"type": name})
