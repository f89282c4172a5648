"""The multi-layer perceptron: an image's pixels to logits, with no convolution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from visreg.models.images import check_positive, height_and_width


class MLP(nn.Module):
    """Linear layers with ReLU between them, on the flattened image; two layers by default.

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986.

    Args:
        in_channels: channels of the image, 1 for grey.
        image_size: its height and width in pixels.
        num_classes: length of the output.
        widths: units of each hidden layer; none makes it a linear classifier.

    Raises:
        ValueError: if an option is impossible.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | tuple[int, int] = 28,
        num_classes: int = 10,
        widths: Sequence[int] = (128,),
    ) -> None:
        super().__init__()
        check_positive(
            in_channels=in_channels, num_classes=num_classes, **{f"widths[{n}]": w for n, w in enumerate(widths)}
        )
        height, width = height_and_width(image_size)
        sizes = [in_channels * height * width, *widths]
        hidden = [[nn.Linear(before, after), nn.ReLU()] for before, after in itertools.pairwise(sizes)]
        self.features = nn.Sequential(*itertools.chain.from_iterable(hidden))
        self.head = nn.Linear(sizes[-1], num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_classes) for float images (N, C, H, W)."""
        logits: Tensor = self.head(self.features(image.flatten(1)))
        return logits
