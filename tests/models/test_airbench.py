"""The network of airbench: its shapes, and how its convolutions begin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visreg.models.airbench import AirbenchNet


def test_number_of_parameters_is_the_papers():
    convolutions = 24 * 12 + 64 * 9 * (24 + 64) + 256 * 9 * (64 + 256) + 256 * 9 * (256 + 256)
    norms, head = 2 * 2 * (64 + 256 + 256), 256 * 10
    assert sum(value.numel() for value in AirbenchNet().parameters()) == convolutions + 24 + norms + head
    assert convolutions + 24 + norms // 2 + head == pytest.approx(1.97e6, rel=0.01)  # without scales, which it lacks


def test_a_convolution_begins_as_the_identity_on_as_many_channels_as_it_can():
    conv = AirbenchNet(widths=[32]).blocks[1].conv1
    image = torch.rand(2, 24, 8, 8)
    torch.testing.assert_close(conv(image)[:, :24], image)
    assert not torch.allclose(conv(image)[:, 24:32], image[:, :8])
    assert AirbenchNet(widths=[8]).blocks[1].conv1.weight[0].count_nonzero() == 1


def test_the_logits_are_scaled():
    torch.manual_seed(0)
    plain = AirbenchNet(widths=[4], scale=1.0).eval()
    image = torch.rand(2, 3, 32, 32)
    before = plain(image)
    plain.scale = 0.5
    torch.testing.assert_close(plain(image), before / 2)
    assert before.shape == (2, 10)


@pytest.mark.parametrize("options", [{"widths": []}, {"widths": [8, 0]}, {"in_channels": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AirbenchNet(**options)


def test_its_norms_forget_quickly():
    norms = [part for part in AirbenchNet().modules() if isinstance(part, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.4, 1e-12)}
