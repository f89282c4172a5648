"""What the optimizer and the schedules of a config are made with, beside what their specs say."""

from __future__ import annotations

from typing import Any

from torch import nn

from visreg.optimizers.groups import param_groups
from visreg.options import options_of
from visreg.registry import OPTIMIZERS, SCHEDULES
from visreg.schema import ParamGroups, Schema
from visreg.specs import Spec


def groups_for(task: nn.Module, schema: Schema) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups for a task: one, unless ``param_groups`` asks for more.

    Raises:
        ValueError: if a pattern of ``param_groups`` matches no parameter.
    """
    options = schema.param_groups
    if options == ParamGroups():
        return [{"params": list(task.parameters())}]
    known = options_of(OPTIMIZERS.get(schema.optimizer["type"]))
    base = {
        name: schema.optimizer.get(name, known[name].default if name in known else 0.0)
        for name in ("lr", "weight_decay")
    }
    groups = param_groups(
        task, **base, no_decay=options.no_decay, lr_scale=options.lr_scale, layer_decay=options.layer_decay
    )
    return [{key: value for key, value in group.items() if key == "params" or key in known} for group in groups]


def schedule_context(spec: Spec, total_steps: int, total_epochs: int) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return a schedule's own spec, the length that it need not give, and its unit: step, epoch or eval."""
    own = {key: value for key, value in spec.items() if key not in ("every", "monitor")}
    if spec["type"] == "ReduceLROnPlateau":
        return own, {}, "eval"
    every = spec.get("every") or ("step" if "total_steps" in options_of(SCHEDULES.get(spec["type"])) else "epoch")
    length = total_steps if every == "step" else total_epochs
    by_epochs = "epochs" in own  # OneCycleLR takes epochs and steps_per_epoch in place of total_steps
    return own, {"T_max": length} if by_epochs else {"T_max": length, "total_steps": length}, every
