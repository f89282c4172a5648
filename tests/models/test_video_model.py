"""The network for clips."""

from __future__ import annotations

import pytest
import torch

from visreg.models.video import VideoConvNet


@pytest.mark.parametrize(("frames", "side"), [(8, 32), (1, 16), (5, 33)])
def test_a_clip_of_any_size_gets_logits(frames, side):
    model = VideoConvNet(in_channels=1, num_classes=5, width=4)
    assert model(torch.rand(2, 1, frames, side, side)).shape == (2, 5)


def test_convolutions_halve_and_double_as_said():
    shapes = []
    model = VideoConvNet(num_classes=2, width=4)
    for layer in list(model.features)[2::3]:
        layer.register_forward_hook(lambda layer, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.rand(1, 3, 8, 32, 32))
    assert shapes == [(4, 8, 16, 16), (8, 8, 8, 8), (16, 4, 4, 4), (16, 2, 2, 2)]


def test_the_order_of_frames_matters():
    torch.manual_seed(0)
    model = VideoConvNet(num_classes=8, width=8).eval()
    clip = torch.rand(1, 3, 8, 32, 32)
    assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-6)


@pytest.mark.parametrize("options", [{"width": 0}, {"num_classes": 0}, {"in_channels": 0}])
def test_sizes_must_be_positive(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        VideoConvNet(**{"num_classes": 8, **options})
