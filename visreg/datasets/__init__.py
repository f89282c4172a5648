"""Datasets: samples by index. torchvision's are adopted."""

from visreg.adopted import exported
from visreg.registry import DATASETS

DATASETS.own(
    __name__,
    {
        "mnist": "MNIST",
        "digits": "Digits",
        "folder": "ImageFolder",
        "shapes": "ShapeScenes",
        "shape_clips": "ShapeClips",
        "video_folder": "VideoFolder",
        "coco": "CocoDetection",
        "voc": "VOCDetection",
        "penn_fudan": "PennFudan",
        "yolo": "YOLOFolder",
        "superclass": "Superclass",
        "wrappers": "FirstAvailable",
        "concat": "Concat",
        "selection": "ClassBalanced Repeat",
        "subsets": "KFold Subset",
        "copy_paste": "CopyPaste",
        "mosaic": "Mosaic",
    },
)
DATASETS.adopt("torchvision", exported("torchvision.datasets"))
