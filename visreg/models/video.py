"""A network for clips that is small enough to be trained on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from visreg.models.images import check_positive


class VideoConvNet(nn.Module):
    """Four three-dimensional convolutions, the mean of what they see, and one linear layer.

    It is C3D (Tran et al., "Learning spatiotemporal features with 3D convolutional networks", 2015) made small, with
    strides in place of pooling, batch norm (Ioffe and Szegedy 2015) and a mean in place of the hidden layers. Each
    convolution halves height and width, the last two the number of frames too.

    Args:
        num_classes: how many logits a clip gets.
        in_channels: of each frame.
        width: channels of the first convolution; the others have 2, 4 and 4 times as many.

    Raises:
        ValueError: if one of them is not positive.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, in_channels=in_channels, width=width)
        channels = [in_channels, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, outputs, frames in zip(channels, channels[1:], (1, 1, 2, 2), strict=False):
            convolution = nn.Conv3d(inputs, outputs, 3, stride=(frames, 2, 2), padding=1, bias=False)
            layers += [convolution, nn.BatchNorm3d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits (N, num_classes) for float clips (N, in_channels, T, H, W), normalised."""
        logits: Tensor = self.head(self.features(clip).mean(dim=(2, 3, 4)))
        return logits
