"""Every place in a config that holds a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import evolve, frozen

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


@frozen(kw_only=True)
class ModelKeys:
    """Keys of a model's spec that say what it begins with rather than what it is; one inside another has them too.

    Attributes:
        weights: of torchvision's models the name of pretrained ones, such as ``"IMAGENET1K_V1"``; of any model a file:
            a visreg checkpoint or a state dict. What does not fit, as an output for other classes, begins anew.
    """

    weights: str | None = None


@frozen(kw_only=True)
class ScheduleKeys:
    """Keys of a schedule's spec that say how it is counted rather than what it is.

    Attributes:
        every: move on after every step, or every epoch; steps if the schedule takes ``total_steps``, else epochs.
        monitor: the score that a ReduceLROnPlateau waits for.
    """

    every: Literal["step", "epoch"] | None = None
    monitor: str | None = None


@frozen(kw_only=True)
class Slot:
    """A place in a config that holds a spec, or a list of them.

    Attributes:
        registry: whose names its ``type`` can be.
        many: whether it holds a list.
        given: arguments that visreg adds. offered: those that it adds unless the config does.
        keys: the class of further keys that are not the component's own.
    """

    registry: Registry[Any]
    many: bool = False
    given: frozenset[str] = frozenset()
    offered: frozenset[str] = frozenset()
    keys: type[Any] | None = None


SLOTS: Mapping[str, Slot] = {
    "task": Slot(registry=TASKS, given=frozenset({"model", "loss"})),
    "model": Slot(registry=MODELS, keys=ModelKeys),
    "loss": Slot(registry=LOSSES),
    "metrics": Slot(registry=METRICS, many=True),
    "optimizer": Slot(registry=OPTIMIZERS, given=frozenset({"params"}), offered=frozenset({"fused"})),
    "schedule": Slot(
        registry=SCHEDULES,
        given=frozenset({"optimizer"}),
        offered=frozenset({"total_steps", "T_max"}),
        keys=ScheduleKeys,
    ),
    "hooks": Slot(registry=HOOKS, many=True),
    "default_hooks": Slot(registry=HOOKS, many=True),
    "dataset": Slot(registry=DATASETS),
    "transforms": Slot(registry=TRANSFORMS, many=True),
    "batch_transforms": Slot(registry=TRANSFORMS, many=True),
    "sampler": Slot(registry=SAMPLERS, given=frozenset({"dataset", "batch_size"})),
}

# What visreg adds to a spec inside another one of the same kind.
NESTED: Mapping[str, Slot] = {
    "models": SLOTS["model"], "schedules": evolve(SLOTS["schedule"], keys=None),
    "tasks": Slot(registry=TASKS, given=frozenset({"model"})),
}  # fmt: skip
