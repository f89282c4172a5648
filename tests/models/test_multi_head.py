"""Several heads on one backbone: what they are given, and what comes out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from visreg.models.convnet import ConvNet
from visreg.models.features import Features
from visreg.models.multi_head import LinearHead, MultiHead
from visreg.models.unet import UNet, UNetEncoder, UNetHead
from visreg.registry import MODELS


class Counting(nn.Module):
    """Features, and how often they were asked for."""

    channels = (4,)

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, image):
        self.asked += 1
        return image.mean((2, 3)).repeat(1, 4)


def test_the_backbone_runs_once():
    model = MultiHead(Counting(), {"a": LinearHead(3), "b": LinearHead(2, hidden=5), "c": nn.Identity()})
    output = model(torch.rand(6, 1, 8, 8))
    assert model.backbone.asked == 1
    assert {name: tuple(value.shape) for name, value in output.items()} == {"a": (6, 3), "b": (6, 2), "c": (6, 4)}


def test_a_classifier_of_two_heads_is_the_classifier_twice():
    torch.manual_seed(0)
    whole, beheaded = (ConvNet(num_classes=10).eval() for _ in range(2))
    last = whole.head[-1]
    beheaded.load_state_dict(whole.state_dict())
    model = MultiHead(beheaded, {"a": LinearHead(10), "b": LinearHead(10)}).eval()
    model.heads["a"].layers[0].load_state_dict(last.state_dict())
    image = torch.rand(3, 1, 28, 28)
    output = model(image)
    assert torch.equal(output["a"], whole(image))
    assert not torch.equal(output["b"], output["a"])


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("resnet18", 512), ("vgg11", 4096), ("mobilenet_v3_small", 1024), ("densenet121", 1024), ("vit_b_32", 768),
        ("convnext_tiny", 768), ("efficientnet_b0", 1280), ("swin_t", 768),
    ],
)  # fmt: skip
def test_adopted_classifiers_are_backbones(name, features):
    with torch.device("meta"):
        model = MultiHead(MODELS.build({"type": name}), {"a": LinearHead(3), "b": LinearHead(2)})
        output = model(torch.zeros(2, 3, 224, 224))
    assert model.channels == (features,)
    assert (output["a"].shape, output["b"].shape) == ((2, 3), (2, 2))
    for parameter_name, parameter in model.named_parameters():
        assert parameter.is_meta, parameter_name


@pytest.mark.parametrize(
    "backbone",
    [lambda: Features("resnet18", [2, 4, 8, 16]), lambda: UNetEncoder(width=4, depth=3)],
    ids=["Features", "UNetEncoder"],
)
def test_feature_maps_go_to_a_classifier_and_a_segmenter(backbone):
    model = MultiHead(backbone(), {"scene": LinearHead(5), "pixels": UNetHead(3, width=4)})
    image = torch.rand(2, 3, 32, 48)
    output = model(image)
    assert output["scene"].shape == (2, 5)
    stride = 32 // output["pixels"].shape[2]
    assert output["pixels"].shape == (2, 3, 32 // stride, 48 // stride)
    assert stride <= 2
    (output["scene"].sum() + output["pixels"].square().sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_feature_maps_are_averaged_over_their_places():
    head = LinearHead(5)
    head.connect([2, 8])
    maps = torch.rand(3, 8, 4, 6)
    assert torch.allclose(head([torch.rand(3, 2, 8, 12), maps]), head(maps.mean((2, 3))))


def test_a_unet_is_its_encoder_and_its_head():
    torch.manual_seed(0)
    whole = UNet(in_channels=1, num_classes=5, width=4, depth=2).eval()
    parts = MultiHead(UNetEncoder(in_channels=1, width=4, depth=2), {"pixels": UNetHead(5, width=4)}).eval()
    parts.backbone.load_state_dict(whole.encoder.state_dict())
    parts.heads["pixels"].load_state_dict(whole.decoder.state_dict())
    image = torch.rand(2, 1, 17, 30)
    assert torch.equal(parts(image)["pixels"], whole(image))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiHead(resnet18(), {}), "heads: name at least one"),
        (lambda: MultiHead(resnet18(), {"a.b": LinearHead(2)}), "heads: .*a.b; give it another name"),
        (lambda: MultiHead(resnet18(), {"pop": LinearHead(2)}), "heads: .*'pop'.*; give it another name"),
        (lambda: MultiHead(nn.Conv2d(3, 4, 1), {"a": LinearHead(2)}), "backbone: Conv2d ends in no linear layer"),
        (lambda: LinearHead(0), "num_classes: must be 1 or more, got 0"),
        (lambda: LinearHead(2, hidden=0), "hidden: must be 1 or more, got 0"),
        (lambda: UNetHead(2, width=0), "width: must be 1 or more, got 0"),
    ],
)
def test_impossible_options_are_named(make, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        make()


def test_a_backbone_with_auxiliary_outputs_is_refused():
    with torch.device("meta"):
        model = MultiHead(MODELS.build({"type": "googlenet", "init_weights": False}), {"a": LinearHead(2)})
        with pytest.raises(ValueError, match="GoogLeNetOutputs; set its aux_logits=False"):
            model(torch.zeros(2, 3, 224, 224))
