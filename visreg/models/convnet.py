"""The convolutional classifiers of the tutorials: images of one size to logits.

Each takes float images (N, in_channels, height, width) and returns logits (N, num_classes), which
``CrossEntropyLoss`` turns into the negative log-likelihood of their log-softmax. How many features reach the first
linear layer is worked out from ``image_size``.
"""

from __future__ import annotations

from torch import Tensor, nn

from visreg.models.images import check_positive, flat_features


class _Classifier(nn.Module):
    """Convolutional ``features``, flattened, and a ``head`` of linear layers."""

    features: nn.Sequential
    head: nn.Sequential

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_classes) for float images (N, C, H, W)."""
        logits: Tensor = self.head(self.features(image).flatten(1))
        return logits


class ConvNet(_Classifier):
    """The network of PyTorch's basic MNIST example, with dropout of whole channels and of units.

    Source: github.com/pytorch/examples, ``mnist/main.py`` before 2019, which ends in a log-softmax and trains by its
    negative log-likelihood; with ``CrossEntropyLoss`` on these logits the loss is the same.

    Args:
        in_channels: channels of the image, 1 for grey.
        image_size: its height and width in pixels.
        num_classes: length of the output.
        channel_dropout: the probability of dropping a channel of the second convolution.
        dropout: the probability of dropping a unit of the hidden layer.

    Raises:
        ValueError: if the image is too small or an option impossible.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | tuple[int, int] = 28,
        num_classes: int = 10,
        channel_dropout: float = 0.5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 10, kernel_size=5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, kernel_size=5), nn.Dropout2d(channel_dropout), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Linear(flat_features(self.features, in_channels, image_size), 50), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(50, num_classes),
        )  # fmt: skip


class TwoConv(_Classifier):
    """Two 3×3 convolutions without padding, 32 and 64 channels, each pooled, and a hidden layer of 128.

    Source: the pattern of Keras's "Simple MNIST convnet" (F. Chollet), with a hidden layer in place of its dropout.

    Args:
        in_channels: channels of the image, 1 for grey and 3 for colour.
        image_size: its height and width in pixels.
        num_classes: length of the output.

    Raises:
        ValueError: if the image is too small or an option impossible.
    """

    def __init__(self, in_channels: int = 1, image_size: int | tuple[int, int] = 28, num_classes: int = 10) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 32, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Linear(flat_features(self.features, in_channels, image_size), 128), nn.ReLU(),
            nn.Linear(128, num_classes),
        )  # fmt: skip


class LeNet(_Classifier):
    """LeNet-5 in today's form: ReLU and max pooling, full connections, logits.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998; in this form it is the
    network of PyTorch's "Training a classifier" tutorial. The paper's inputs are 32×32.

    Args:
        in_channels: channels of the image, 1 for grey and 3 for colour.
        image_size: its height and width in pixels.
        num_classes: length of the output.

    Raises:
        ValueError: if the image is too small or an option impossible.
    """

    def __init__(self, in_channels: int = 1, image_size: int | tuple[int, int] = 28, num_classes: int = 10) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Linear(flat_features(self.features, in_channels, image_size), 120), nn.ReLU(),
            nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, num_classes),
        )  # fmt: skip


class DropoutConvNet(_Classifier):
    """Two 3×3 convolutions, pooled once, with dropout before and after a hidden layer of 128.

    Source: github.com/pytorch/examples, ``mnist/main.py`` since 2019.

    Args:
        in_channels: channels of the image, 1 for grey and 3 for colour.
        image_size: its height and width in pixels.
        num_classes: length of the output.
        feature_dropout: the probability of dropping a feature.
        dropout: the probability of dropping a unit of the hidden layer.

    Raises:
        ValueError: if the image is too small or an option impossible.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | tuple[int, int] = 28,
        num_classes: int = 10,
        feature_dropout: float = 0.25,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 32, kernel_size=3), nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(feature_dropout),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Linear(flat_features(self.features, in_channels, image_size), 128), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(128, num_classes),
        )  # fmt: skip


class PaddedConvNet(_Classifier):
    """Two 3×3 convolutions that keep the size, 32 and 64 channels, each pooled, and a hidden layer of 128.

    Args:
        in_channels: channels of the image, 1 for grey and 3 for colour.
        image_size: its height and width in pixels.
        num_classes: length of the output.

    Raises:
        ValueError: if the image is too small or an option impossible.
    """

    def __init__(self, in_channels: int = 1, image_size: int | tuple[int, int] = 28, num_classes: int = 10) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 32, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Linear(flat_features(self.features, in_channels, image_size), 128), nn.ReLU(),
            nn.Linear(128, num_classes),
        )  # fmt: skip
