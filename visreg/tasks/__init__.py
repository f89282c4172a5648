"""Tasks: what a model's output means, what it is trained to and what it predicts."""

from visreg.registry import TASKS

TASKS.own(
    __name__,
    {
        "classification": "Classification",
        "detection": "Detection",
        "multi_task": "MultiTask",
        "segmentation": "SemanticSegmentation",
    },
)
