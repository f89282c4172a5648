"""Networks for clips."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visreg.models.video import VideoResNet


@pytest.mark.parametrize(("frames", "side"), [(8, 32), (1, 16), (5, 33)])
def test_a_clip_of_any_size_gets_logits(frames, side):
    model = VideoResNet(in_channels=1, num_classes=5, width=4, depths=[1, 2])
    assert model(torch.rand(2, 1, frames, side, side)).shape == (2, 5)


def test_stages_halve_and_double_as_said():
    shapes = []
    model = VideoResNet(width=4, depths=[2, 1, 1])
    for block in model.blocks:
        block.register_forward_hook(lambda block, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.rand(1, 3, 8, 32, 32))
    assert shapes == [(4, 8, 8, 8), (4, 8, 8, 8), (8, 4, 4, 4), (16, 2, 2, 2)]


def test_every_convolution_sees_three_frames():
    model = VideoResNet()
    assert {layer.kernel_size for layer in model.modules() if isinstance(layer, nn.Conv3d)} == {(3, 3, 3), (1, 1, 1)}


def test_the_order_of_frames_matters_and_their_number_is_free():
    torch.manual_seed(0)
    model = VideoResNet(width=8).eval()
    clip = torch.rand(1, 3, 8, 32, 32)
    assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-6)


@pytest.mark.parametrize("options", [{"width": 0}, {"num_classes": 0}, {"depths": [1, 0]}, {"depths": []}])
def test_sizes_must_be_positive(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        VideoResNet(**options)
