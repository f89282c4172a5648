"""Models: ordinary modules from image tensors to tensors. torchvision's are adopted."""

from visreg.adopted import registered_models
from visreg.registry import MODELS

MODELS.own(
    __name__,
    {
        "airbench": "AirbenchNet",
        "convnet": "ConvNet TwoConv LeNet DropoutConvNet PaddedConvNet",
        "deeplab": "DeepLabV3Plus",
        "features": "Features",
        "mlp": "MLP",
        "multi_head": "LinearHead MultiHead",
        "rcnn": "FasterRCNN MaskRCNN",
        "unet": "UNet UNetEncoder UNetHead",
        "video": "VideoConvNet",
        "yolo": "YOLO",
    },
)
for _package in ("", ".detection", ".segmentation", ".video"):
    MODELS.adopt("torchvision", registered_models(f"torchvision.models{_package}"))
