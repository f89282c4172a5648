"""Networks for clips that are small enough to be trained on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from visreg.models.images import check_positive


class VideoResNet(nn.Module):
    """A residual network of three-dimensional convolutions (Tran et al. 2018), from narrow and shallow upwards.

    The stem and the first stage halve height and width, each further stage the number of frames too, and it doubles the
    channels; the mean over what is left goes into one linear layer. R3D-18, torchvision's ``r3d_18``, has width 64,
    depths 2, 2, 2, 2, a stem of 7×7 instead of 3×3 pixels, and a first stage that halves nothing.

    Args:
        in_channels: of each frame.
        num_classes: how many logits a clip gets.
        width: channels of the first stage.
        depths: residual blocks in each stage.

    Raises:
        ValueError: if one of them is not positive.
    """

    def __init__(
        self, in_channels: int = 3, num_classes: int = 10, width: int = 16, depths: Sequence[int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes, width=width, depths=min(depths, default=0))
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, width, 3, stride=(1, 2, 2), padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
        )
        channels, blocks = width, list[nn.Module]()
        for stage, depth in enumerate(depths):
            for number in range(depth):
                stride = (1, 1, 1) if number else (2 if stage else 1, 2, 2)
                blocks.append(_Block(channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits (N, num_classes) for float clips (N, in_channels, T, H, W), normalised."""
        logits: Tensor = self.head(self.blocks(self.stem(clip)).mean(dim=(2, 3, 4)))
        return logits


class _Block(nn.Module):
    """Two convolutions, and what they are added to."""

    def __init__(self, in_channels: int, channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv3d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            nn.Conv3d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm3d(channels),
        )
        self.shortcut = nn.Sequential()
        if stride != (1, 1, 1) or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm3d(channels)
            )

    def forward(self, clip: Tensor) -> Tensor:
        return relu(self.convs(clip) + self.shortcut(clip))
