"""Metrics: how good predictions are."""

from visreg.registry import METRICS

METRICS.own(
    __name__,
    {"accuracy": "Accuracy TopKAccuracy", "confusion": "ConfusionMatrix F1 MeanClassAccuracy Precision Recall"},
)
