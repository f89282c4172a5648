"""The perceptron, against sizes worked out by hand."""

from __future__ import annotations

import pytest
import torch

from visreg.models.mlp import MLP


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 785 * 128 + 129 * 10),
        ({"image_size": 32, "in_channels": 3}, 3073 * 128 + 129 * 10),
        ({"widths": [512, 256]}, 785 * 512 + 513 * 256 + 257 * 10),
        ({"widths": []}, 785 * 10),
    ],
)
def test_number_of_parameters(options, expected):
    assert sum(parameter.numel() for parameter in MLP(**options).parameters()) == expected


def test_logits():
    assert MLP(in_channels=3, image_size=(4, 5), num_classes=7)(torch.zeros(2, 3, 4, 5)).shape == (2, 7)
    with torch.device("meta"):
        assert MLP()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match=r"widths\[1\]: must be 1 or more, got 0"):
        MLP(widths=(5, 0))
    with pytest.raises(ValueError, match="image_size"):
        MLP(image_size=(1, 0))
