"""Hooks: what happens around the training loop."""

from visreg.registry import HOOKS

HOOKS.own(
    __name__,
    {
        "checkpoint": "Checkpoint",
        "clip_grad": "ClipGrad",
        "console": "Console",
        "early_stopping": "EarlyStopping",
        "ema": "EMA",
        "freeze": "Freeze",
        "lookahead": "Lookahead",
        "metrics_log": "MetricsLog",
        "profiler": "Profiler",
        "regularization": "L1 L2",
        "tensorboard": "TensorBoard",
        "whiten": "Whiten",
    },
)
