"""A run without data or arithmetic: everything a config names is built, and a blank batch goes through it.

Modules are built on torch's meta device, whose tensors have shapes and dtypes but no values, so that a ResNet takes
milliseconds, no memory and no GPU, and a layer that does not fit the one before it is found all the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn

from visreg.config import ConfigPath
from visreg.data import Batch, DataInfo, Dataset, Sample, collate, to_device
from visreg.errors import ConfigError, VisregError, suggest
from visreg.generators import seeded
from visreg.hook import Hook
from visreg.metric import Metric
from visreg.options import options_of
from visreg.parts import groups_for, schedule_context
from visreg.registry import (
    DATASETS,
    HOOKS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    TASKS,
    TRANSFORMS,
    Registry,
    Spec,
)  # fmt: skip
from visreg.schema import DataConfig, Schema
from visreg.task import Task

Found = Iterator[tuple[ConfigPath, str]]
UNKNOWN_LENGTH = 1 << 40  # of a run whose data has not been counted
SAMPLES = 3  # a batch of one hides what broadcasting lets pass


class _FailedError(Exception):
    """A part could not be made; why has been noted."""


@define(eq=False)
class _DryRun:
    """The parts made so far, and what was wrong with the others."""

    schema: Schema
    device: str
    found: list[tuple[ConfigPath, str]] = field(factory=list)

    def build(self, registry: Registry[Any], spec: Spec, path: ConfigPath, **context: Any) -> Any:
        """Return what ``spec`` describes; where its constructor raises, blame the argument that it raises for."""
        spec = _without_weights(spec)
        try:
            with torch.device(self.device):
                return registry.build(spec, **context)
        except Exception as error:
            self._reraise_if_unable(error)
            blamed = self._blame(registry, spec, context)
            self.found.append(((*path, *blamed), f"{_message(error)}, from {_call(spec)}"))
            raise _FailedError from error

    def _blame(self, registry: Registry[Any], spec: Spec, context: Mapping[str, Any]) -> ConfigPath:
        for key in spec:
            if key != "type":
                try:
                    with torch.device(self.device):
                        registry.build({name: value for name, value in spec.items() if name != key}, **context)
                except Exception:  # then it is not this argument's fault, or not alone
                    continue
                return (key,)
        return ()

    def _reraise_if_unable(self, error: Exception) -> None:
        """Let what only the meta device cannot do stop this attempt; the next is made on the CPU."""
        if self.device == "meta" and ("meta" in str(error).lower() or isinstance(error, NotImplementedError)):
            raise error

    def build_all(self, registry: Registry[Any], specs: Sequence[Spec], path: ConfigPath) -> list[Any]:
        """Return the parts of a list, without those that fail."""
        made = []
        for index, spec in enumerate(specs):
            try:
                made.append(self.build(registry, spec, (*path, index)))
            except _FailedError:
                continue
        return made

    def run(self) -> None:
        """Build every part and send a blank batch of every split through them."""
        metrics = self.build_all(METRICS, self.schema.metrics, ("metrics",))
        self._check_scores(metrics)
        batches = {name: self._batch(name, section) for name, section in self._splits()}
        try:
            task = self._task()
        except _FailedError:
            return
        optimizer = self._optimizer(task)
        for name, (batch, info) in batches.items():
            if batch is not None and not self._forward(task, name, batch, info, optimizer):
                return
        for name, (batch, _) in batches.items():
            if batch is not None and name != "train":
                self._measure(task, metrics, batch)

    def _splits(self) -> Iterator[tuple[str, DataConfig]]:
        sections = {"train": self.schema.train, "val": self.schema.val, "test": self.schema.test}
        return ((name, section) for name, section in sections.items() if section is not None)

    def _check_scores(self, metrics: Sequence[Metric]) -> None:
        """Make sure that no two metrics give the same score, and that every score waited for is given."""
        names = [name for metric in metrics for name in metric.names()]
        for index, metric in enumerate(metrics):
            earlier = {name for other in metrics[:index] for name in other.names()}
            for name in earlier.intersection(metric.names()):
                self.found.append((("metrics", index), f"gives a second score {name!r}; give it another name"))
        for key in ("hooks", "default_hooks"):
            for index, spec in enumerate(getattr(self.schema, key)):
                try:
                    hook = self.build(HOOKS, spec, (key, index))
                except _FailedError:
                    continue
                if not isinstance(hook, Hook):
                    self.found.append(((key, index), f"{spec['type']} is not a Hook; derive it from visreg.Hook"))
                    continue
                for name in hook.monitors():
                    self._check_monitor(name, names, (key, index), spec)
        for index, spec in enumerate(self.schema.schedules):
            path = ("schedule", index) if not isinstance(self.schema.schedule, Mapping) else ("schedule",)
            if spec["type"] == "ReduceLROnPlateau":
                self._check_monitor(spec.get("monitor"), names, path, spec)

    def _check_monitor(self, name: str | None, names: Sequence[str], path: ConfigPath, spec: Spec) -> None:
        key = next((key for key, value in spec.items() if value == name), "monitor")
        if self.schema.val is None:
            self.found.append(((*path, key), f"{spec['type']} waits for a score, and there is no val to measure it on"))
        elif name is None:
            self.found.append((path, f"{spec['type']} needs monitor=…{suggest('', names)}"))
        elif name not in names:
            self.found.append(((*path, key), f"no metric gives a score {name!r}{suggest(name, names)}"))

    def _batch(self, name: str, section: DataConfig) -> tuple[Batch | None, DataInfo | None]:
        """Return a blank batch as the task will see it, or None where its shape cannot be known."""
        transforms = self.build_all(TRANSFORMS, section.transforms, (name, "transforms"))
        batch_transforms = self.build_all(TRANSFORMS, section.batch_transforms, (name, "batch_transforms"))
        try:
            dataset = self.build(DATASETS, section.dataset, (name, "dataset"))
        except _FailedError:
            return None, None
        info: DataInfo | None = dataset.info if isinstance(dataset, Dataset) else None
        complete = len(transforms) == len(section.transforms) and len(batch_transforms) == len(section.batch_transforms)
        if info is None or not complete:
            return None, info
        samples = [self._transform(sample, transforms, (name, "transforms")) for sample in _blank_samples(info)]
        if not samples or any(sample is None for sample in samples) or len({_shapes(s) for s in samples}) > 1:
            return None, info
        batch = self._transform(
            collate([dict(samples[0]) for _ in range(SAMPLES)]), batch_transforms, (name, "batch_transforms")
        )
        return (None if batch is None else {**batch, "index": torch.arange(SAMPLES)}), info

    def _transform(self, value: Any, transforms: Sequence[Callable[[Any], Any]], path: ConfigPath) -> Any:
        for index, transform in enumerate(transforms):
            try:
                with seeded(0, index):
                    value = transform(value)
            except Exception as error:  # whatever a transform raises, the config named it
                self.found.append(((*path, index), f"fails on a blank {_shapes(value)}: {_message(error)}"))
                return None
        return value

    def _task(self) -> Task:
        parts = {"model": self.build(MODELS, self.schema.model, ("model",))}
        if self.schema.loss is not None:
            parts["loss"] = self.build(LOSSES, self.schema.loss, ("loss",))
        task: Task = self.build(TASKS, self.schema.task, ("task",), **parts)
        return task.to(self.device)

    def _optimizer(self, task: Task) -> torch.optim.Optimizer | None:
        path: ConfigPath = ("optimizer",)
        try:
            groups = groups_for(task, self.schema)
        except ValueError as error:
            self.found.append((("param_groups",), _message(error)))
            return None
        try:
            optimizer: torch.optim.Optimizer = self.build(OPTIMIZERS, self.schema.optimizer, path, params=groups)
            single = isinstance(self.schema.schedule, Mapping)
            run = self.schema.run
            for index, spec in enumerate(self.schema.schedules):
                own, length, _ = schedule_context(spec, run.steps or UNKNOWN_LENGTH, run.epochs or UNKNOWN_LENGTH)
                place: ConfigPath = ("schedule",) if single else ("schedule", index)
                self.build(SCHEDULES, own, place, optimizer=optimizer, **length)
        except _FailedError:
            return None
        return optimizer

    def _forward(
        self, task: Task, name: str, batch: Batch, info: DataInfo | None, optimizer: torch.optim.Optimizer | None
    ) -> bool:
        """Return whether the losses, or a prediction, of a split can be had; note why not."""
        on_device = _to(batch, self.device)
        task.train(name == "train")
        with _innermost(task) as stack, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                losses = task(on_device) if name == "train" else {}
                mismatch = task.mismatch(on_device, info) if info is not None else None
            except Exception as error:  # whatever a model or loss raises, the config put them together
                self._reraise_if_unable(error)
                self.found.append(_failure(stack, name, batch, error))
                return False
        if mismatch:
            path: ConfigPath = ("model", "num_classes") if "num_classes" in self.schema.model else ("model",)
            self.found.append((path, f"{mismatch} of {name}.dataset"))
            return False
        # torch warns, and goes on, where the shapes of output and target differ but can be broadcast
        self.found += [
            (("loss",), text) for text in {str(w.message).splitlines()[0] for w in caught if "size" in str(w.message)}
        ]
        if losses and self._are_scalars(losses) and optimizer is not None:
            self._step(losses, optimizer)
        return True

    def _are_scalars(self, losses: Mapping[str, Any]) -> bool:
        before = len(self.found)
        for key, loss in losses.items():
            if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
                shape = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
                self.found.append((("loss",), f"{key!r} must be one floating-point number, and is {shape}"))
        return len(self.found) == before

    def _step(self, losses: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Take an optimizer step, which some optimizers want more for than a gradient."""
        try:
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
        except Exception as error:  # whatever an optimizer raises, the config named it
            self._reraise_if_unable(error)
            self.found.append((("optimizer",), f"cannot take a step: {_message(error)}"))

    def _measure(self, task: Task, metrics: Sequence[Metric], batch: Batch) -> None:
        """Give each metric a blank prediction, to see that it finds there what it needs."""
        task.eval()
        try:
            with torch.no_grad():
                predictions = task.predict(_to(batch, self.device))
        except Exception as error:
            self._reraise_if_unable(error)
            self.found.append((("task",), f"cannot predict: {_message(error)}"))
            return
        predictions = {
            key: torch.zeros_like(value, device="cpu") if isinstance(value, Tensor) else value
            for key, value in predictions.items()
        }
        for index, metric in enumerate(metrics):
            try:
                metric.reset()
                metric.update(predictions, batch)
            except Exception as error:  # whatever a metric raises, the config named it
                self.found.append((("metrics", index), _message(error)))
            metric.reset()


def dry_run_problems(schema: Schema) -> list[tuple[ConfigPath, str]]:
    """Return (path, message) of each mistake that shows when a checked config is built and run on blank data."""
    for device in ("meta", "cpu"):
        attempt = _DryRun(schema, device)
        try:
            with torch.random.fork_rng(devices=[]):
                attempt.run()
        except Exception:
            if device == "cpu":
                raise
            continue  # something that has no meta kernel
        break
    return attempt.found


def _without_weights(spec: Spec) -> Spec:
    """Return a spec that loads no pretrained weights, which would be a download."""
    component = MODELS.find(spec["type"])
    if component is None or component.owner != "torchvision":
        return spec
    known = options_of(component.load())
    return {**spec, **{name: None for name in ("weights", "weights_backbone") if name in known}}


def _blank_samples(info: DataInfo) -> list[Sample]:
    """Return a blank sample, or two of different sizes where the size is not known, or none."""
    return [dict(info.sample)] if info.sample else []


def _shapes(values: Any) -> str:
    if not isinstance(values, Mapping):
        return type(values).__name__
    image = values.get("image")
    return str(tuple(image.shape)) if isinstance(image, Tensor) else type(image).__name__


def _call(spec: Spec) -> str:
    """Return the call that a spec stands for, as text."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in spec.items() if key != "type")
    return f"{spec['type']}({arguments if len(arguments) < 200 else arguments[:200] + '…'})"


def _to(batch: Batch, device: str) -> Batch:
    moved: Batch = to_device(batch, torch.device(device))
    return moved


@contextmanager
def _innermost(task: nn.Module) -> Iterator[list[tuple[str, nn.Module, Any]]]:
    """Keep a stack of the modules whose forward is under way, each with the shape it was given."""
    stack: list[tuple[str, nn.Module, Any]] = []

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            stack.append((name, module, tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else None))

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        stack.pop()

    handles = []
    for name, module in task.named_modules():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def _failure(
    stack: Sequence[tuple[str, nn.Module, Any]], name: str, batch: Batch, error: Exception
) -> tuple[ConfigPath, str]:
    """Return which part of the task an exception blames, by the innermost module that was at work."""
    message = _message(error)
    if not stack or not stack[-1][0].startswith("model"):
        part = "loss" if stack and stack[-1][0].startswith("loss") else "task"
        return (part,), f"cannot be computed: {message}"
    where, module, shape = stack[-1]
    where = where.removeprefix("model").removeprefix(".")
    leaf = f"in {where!r}, {module}, given {shape}" if not list(module.children()) else f"in {where or 'forward'!r}"
    return ("model",), f"cannot take the images {_shapes(batch)} of {name}: {leaf}: {message}{_hint(module, shape)}"


def _hint(module: nn.Module, shape: Any) -> str:
    if isinstance(module, nn.Linear) and shape and shape[-1] != module.in_features:
        return f"; its in_features must be {shape[-1]}"
    if isinstance(module, nn.Conv2d) and shape and len(shape) == 4 and shape[1] != module.in_channels:
        return f"; its in_channels must be {shape[1]}"
    return ""


def _message(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "; ".join(problem.message for problem in error.problems)
    text = (str(error.args[0]) if error.args else str(error)).strip().splitlines()
    first = text[0] if text else ""
    return (
        first
        if isinstance(error, (VisregError, ValueError, TypeError, RuntimeError))
        else f"{type(error).__name__}: {first}"
    )
