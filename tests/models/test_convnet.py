"""The tutorial networks, against sizes worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from visreg.models.convnet import ConvNet, DropoutConvNet, LeNet, PaddedConvNet, TwoConv
from visreg.models.images import flat_features, height_and_width


def conv(before, after, side):
    return after * (before * side * side + 1)


def linear(*sizes):
    return sum(after * (before + 1) for before, after in pairwise(sizes))


PARAMETERS = [
    (ConvNet, 28, conv(1, 10, 5) + conv(10, 20, 5) + linear(20 * 4 * 4, 50, 10)),
    (ConvNet, 32, conv(1, 10, 5) + conv(10, 20, 5) + linear(20 * 5 * 5, 50, 10)),
    (TwoConv, 28, conv(1, 32, 3) + conv(32, 64, 3) + linear(64 * 5 * 5, 128, 10)),
    (TwoConv, 32, conv(1, 32, 3) + conv(32, 64, 3) + linear(64 * 6 * 6, 128, 10)),
    (LeNet, 28, conv(1, 6, 5) + conv(6, 16, 5) + linear(16 * 4 * 4, 120, 84, 10)),
    (LeNet, 32, conv(1, 6, 5) + conv(6, 16, 5) + linear(16 * 5 * 5, 120, 84, 10)),
    (DropoutConvNet, 28, conv(1, 32, 3) + conv(32, 64, 3) + linear(64 * 12 * 12, 128, 10)),
    (DropoutConvNet, 32, conv(1, 32, 3) + conv(32, 64, 3) + linear(64 * 14 * 14, 128, 10)),
    (PaddedConvNet, 28, conv(1, 32, 3) + conv(32, 64, 3) + linear(64 * 7 * 7, 128, 10)),
    (PaddedConvNet, 32, conv(1, 32, 3) + conv(32, 64, 3) + linear(64 * 8 * 8, 128, 10)),
]
NETWORKS = sorted({network for network, *_ in PARAMETERS}, key=lambda network: network.__name__)


@pytest.mark.parametrize(("network", "side", "expected"), PARAMETERS)
def test_number_of_parameters(network, side, expected):
    model = network(image_size=side)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model(torch.zeros(3, 1, side, side)).shape == (3, 10)


@pytest.mark.parametrize("network", NETWORKS)
def test_colour_other_shapes_and_class_counts(network):
    model = network(in_channels=3, image_size=(28, 40), num_classes=7)
    assert model(torch.zeros(2, 3, 28, 40)).shape == (2, 7)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_is_trained(network):
    torch.manual_seed(0)
    model = network()
    nn.functional.cross_entropy(model(torch.rand(8, 1, 28, 28)), torch.arange(8)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_on_the_meta_device(network):
    with torch.device("meta"):
        model = network()
        assert model(torch.zeros(2, 1, 28, 28)).device.type == "meta"


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 3}, "image_size: 3×3 is too small"),
        ({"image_size": 0}, "image_size: expected a positive number"),
        ({"image_size": (1, 2, 3)}, "image_size: expected a positive number"),
        ({"in_channels": 0}, "in_channels: must be 1 or more, got 0"),
        ({"num_classes": 0}, "num_classes: must be 1 or more, got 0"),
    ],
)
def test_impossible_options_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_dropout_probabilities():
    torch.manual_seed(0)
    image = torch.rand(4, 1, 28, 28)
    for model in (ConvNet(channel_dropout=0.0, dropout=0.0), DropoutConvNet(feature_dropout=0.0, dropout=0.0)):
        assert torch.equal(model.train()(image), model.eval()(image))
    with pytest.raises(ValueError, match="dropout probability"):
        ConvNet(dropout=2.0)


def test_making_one_draws_no_more_than_its_weights():
    """So that the same seed gives the same weights as a hand-written network."""
    torch.manual_seed(0)
    ConvNet()
    after = torch.get_rng_state()
    torch.manual_seed(0)
    for layer in (nn.Conv2d, 1, 10, 5), (nn.Conv2d, 10, 20, 5), (nn.Linear, 320, 50), (nn.Linear, 50, 10):
        layer[0](*layer[1:])
    assert torch.equal(after, torch.get_rng_state())


def test_counting_features_leaves_the_layers_as_they_were():
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    assert flat_features(layers, 1, (5, 6)) == 2 * 3 * 4
    assert layers.training
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())


def test_sizes_may_be_lists():
    assert height_and_width([3, 4]) == (3, 4)
