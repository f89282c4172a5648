"""Declarative computer-vision training: plain-dict configs, registries, one runner."""

import importlib
from typing import TYPE_CHECKING, Any

# These fill the tables of names; none of them imports torch.
from visreg import datasets, hooks, losses, metrics, models, optimizers, samplers, schedules, tasks, transforms  # noqa: F401
from visreg.config import Config, load_config
from visreg.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DistributedError,
    PluginError,
    RegistryError,
    ResourceError,
    VisregError,
)
from visreg.registry import (
    DATASETS,
    HOOKS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SAMPLERS,
    SCHEDULES,
    TASKS,
    TRANSFORMS,
    Registry,
)  # fmt: skip

if TYPE_CHECKING:
    from visreg.build import build_runner
    from visreg.check import check_config
    from visreg.data import DataInfo, Dataset
    from visreg.hook import Hook
    from visreg.metric import Metric
    from visreg.runner import Runner
    from visreg.sampler import Sampler
    from visreg.task import Task

__version__ = "0.1.0"

__all__ = [
    "DATASETS", "HOOKS", "LOSSES", "METRICS", "MODELS", "OPTIMIZERS", "SAMPLERS", "SCHEDULES", "TASKS", "TRANSFORMS",
    "CheckpointError", "Config", "ConfigError", "DataError", "DataInfo", "Dataset", "DistributedError", "Hook",
    "Metric", "PluginError", "Registry", "RegistryError", "ResourceError", "Runner", "Sampler", "Task",
    "VisregError", "build_runner", "check_config", "load_config",
]  # fmt: skip

# What needs torch is imported when it is first used, so that `import visreg` takes no time.
_LAZY = {
    "build_runner": "build", "check_config": "check", "DataInfo": "data", "Dataset": "data", "Hook": "hook",
    "Metric": "metric", "Runner": "runner", "Sampler": "sampler", "Task": "task",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"visreg.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'visreg' has no attribute {name!r}")
