"""The parts of a config, built to see whether they can be; what cannot be built is noted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from attrs import define, field
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from visreg.config import ConfigPath
from visreg.diagnosis import blamed, call_of, failing_part, full_name, message_of, own_paths
from visreg.hook import Hook
from visreg.metric import Metric
from visreg.registry import LOSSES, MODELS, OPTIMIZERS, TASKS, TRANSFORMS, Registry
from visreg.schema import Schema
from visreg.specs import Spec
from visreg.task import Task
from visreg.weights import InitialWeights

CLASSES: Mapping[str, type] = {
    "models": nn.Module, "tasks": Task, "metrics": Metric, "hooks": Hook, "optimizers": Optimizer,
    "schedules": LRScheduler,
}  # fmt: skip
CALLED_AS = {"losses": "forward(output, target)", "transforms": "__call__(sample)"}


class FailedError(Exception):
    """A part could not be made; why has been noted."""


@define(eq=False)
class Parts:
    """Builds the parts of a config, and keeps a list of what is wrong.

    Attributes:
        schema: the config.
        broken: places where mistakes were found before; what is there is not built.
        device: of the models, losses and tasks: ``"meta"``, or ``"cpu"`` where that cannot be or is quicker.
        weights: what the models begin from.
        found: the path and a description of each mistake.
        steps: of an epoch, if the training data knows its size before it is opened; else 0.
    """

    schema: Schema
    broken: Collection[ConfigPath]
    device: str
    weights: InitialWeights
    found: list[tuple[ConfigPath, str]] = field(factory=list)
    steps: int = 0

    def is_broken(self, *path: str | int) -> bool:
        """Return whether a mistake was found at ``path`` or inside."""
        return any(place[: len(path)] == path for place in self.broken)

    def build(self, registry: Registry[Any], spec: Spec | None, path: ConfigPath, **context: Any) -> Any:
        """Return what ``spec`` describes; where its constructor raises, blame the argument that it raises for."""
        if spec is None or self.is_broken(*path):
            raise FailedError
        if registry is OPTIMIZERS and self.schema.run is not None and self.schema.run.device != "cpu":
            spec = {key: value for key, value in spec.items() if key != "capturable"}  # that needs the real GPU
        try:
            return self._make(registry, spec, context)
        except Exception as error:  # whatever a constructor raises, the config named it
            self.reraise_if_unable(error)
            if registry is TASKS and (own := own_paths(error)):
                self.found += own
                raise FailedError from error
            inside, kind, part = failing_part(registry, spec, lambda kind, part: self._make(kind, part, context))
            name, _, message = message_of(error).partition(": ")
            option = (name,) if name in part else self._blame(kind, part, context)
            message = message if option == (name,) else message_of(error)
            self.found.append(blamed((*path, *inside, *option), f"{message}, from {call_of(part)}", error))
            raise FailedError from error

    def build_all(self, registry: Registry[Any], specs: Sequence[Spec], path: ConfigPath) -> dict[int, Any]:
        """Return the parts of a list by their place in it, without those that fail."""
        made = {}
        for index, spec in enumerate(() if path in self.broken else specs):
            with suppress(FailedError):
                made[index] = self.build(registry, spec, (*path, index))
        return made

    def _make(self, registry: Registry[Any], spec: Spec, context: Mapping[str, Any]) -> Any:
        with torch.device(self.device if registry in (MODELS, LOSSES, TASKS) else "cpu"):
            made = registry.build(spec, initial_weights=self.weights, **context)
        if not isinstance(made, CLASSES.get(registry.kind, object)):
            wanted = CLASSES[registry.kind]
            raise TypeError(f"{type(made).__name__} is not a {wanted.__name__}; derive it from {full_name(wanted)}")
        if registry in (LOSSES, TRANSFORMS) and not callable(made):
            raise TypeError(f"a {type(made).__name__} cannot be called; give it {CALLED_AS[registry.kind]}")
        return made

    def _blame(self, registry: Registry[Any], spec: Spec, context: Mapping[str, Any]) -> ConfigPath:
        """Return the argument without which the constructor does not raise, if there is one."""
        for key in spec:
            if key != "type":
                with suppress(Exception):  # then it is not this argument's fault, or not alone
                    self._make(registry, {name: value for name, value in spec.items() if name != key}, context)
                    return (key,)
        return ()

    def reraise_if_unable(self, error: Exception) -> None:
        """Let what only the meta device cannot do stop this attempt; the next is made on the CPU."""
        if self.device == "meta" and ("meta" in str(error).lower() or isinstance(error, NotImplementedError)):
            raise error
