"""Metrics: how good predictions are."""

from visreg.registry import METRICS

METRICS.own(
    __name__,
    {
        "accuracy": "Accuracy TopKAccuracy",
        "average_precision": "MeanAveragePrecision VOCAveragePrecision",
        "confusion": "ConfusionMatrix F1 MeanClassAccuracy Precision Recall",
        "heads": "PerHead",
        "overlap": "Dice MeanIoU PixelAccuracy",
    },
)
