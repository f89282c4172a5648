"""A run without data or arithmetic: everything a config names is built, and a blank batch goes through it.

Modules are built on torch's meta device, whose tensors have shapes and dtypes but no values, so that a ResNet takes
milliseconds, no memory and no GPU, and a layer that does not fit the one before it is found all the same.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from visreg import dist
from visreg.config import ConfigPath
from visreg.data import Batch, DataInfo, Sample, Transform, blank_sample, collate, pixels, to_device
from visreg.diagnosis import (
    advice,
    call_of,
    check_image,
    failing_part,
    full_name,
    given_logits,
    hint,
    innermost,
    kept,
    message_of,
    own_paths,
    place_of,
    shape_of,
    wrong_kind,
)
from visreg.errors import ConfigError, suggest
from visreg.generators import seeded
from visreg.hook import Hook
from visreg.hooks.freeze import Freeze
from visreg.metric import Metric
from visreg.options import options_of
from visreg.parts import groups_for, schedule_context
from visreg.patterns import matching_parameters
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
from visreg.schema import DataConfig, RunConfig, Schema
from visreg.task import Task
from visreg.transform import first_obstacle
from visreg.weights import InitialWeights

Found = Iterator[tuple[ConfigPath, str]]
UNKNOWN_LENGTH = 1 << 40  # of a run whose data has not been counted
SAMPLES = 3  # a batch of one hides what broadcasting lets pass
DRAWS = 6  # of each random transform
CLASSES: Mapping[str, type] = {
    "models": nn.Module, "tasks": Task, "metrics": Metric, "hooks": Hook, "optimizers": Optimizer,
    "schedules": LRScheduler,
}  # fmt: skip
CALLED_AS = {"losses": "forward(output, target)", "transforms": "__call__(sample)"}


class _FailedError(Exception):
    """A part could not be made; why has been noted."""


@define(eq=False)
class _DryRun:
    """The parts made so far, and what was wrong with the others.

    Attributes:
        broken: places where mistakes were found before; what is there is not built.
    """

    schema: Schema
    broken: Collection[ConfigPath]
    device: str
    weights: InitialWeights
    found: list[tuple[ConfigPath, str]] = field(factory=list)
    hooks: dict[ConfigPath, Hook] = field(factory=dict)

    def is_broken(self, *path: str | int) -> bool:
        """Return whether a mistake was found at ``path`` or inside."""
        return any(place[: len(path)] == path for place in self.broken)

    def build(self, registry: Registry[Any], spec: Spec | None, path: ConfigPath, **context: Any) -> Any:
        """Return what ``spec`` describes; where its constructor raises, blame the argument that it raises for."""
        if spec is None or self.is_broken(*path):
            raise _FailedError
        if registry is OPTIMIZERS and self.schema.run is not None and self.schema.run.device != "cpu":
            spec = {key: value for key, value in spec.items() if key != "capturable"}  # that needs the real GPU
        try:
            return self._make(registry, spec, context)
        except Exception as error:  # whatever a constructor raises, the config named it
            self._reraise_if_unable(error)
            if registry is TASKS and (own := own_paths(error)):
                self.found += own
                raise _FailedError from error
            inside, kind, part = failing_part(registry, spec, lambda kind, part: self._make(kind, part, context))
            name, _, message = message_of(error).partition(": ")
            blamed = (name,) if name in part else self._blame(kind, part, context)
            message = message if blamed == (name,) else message_of(error)
            self.found.append(((*path, *inside, *blamed), f"{message}, from {call_of(part)}"))
            raise _FailedError from error

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

    def _reraise_if_unable(self, error: Exception) -> None:
        """Let what only the meta device cannot do stop this attempt; the next is made on the CPU."""
        if self.device == "meta" and ("meta" in str(error).lower() or isinstance(error, NotImplementedError)):
            raise error

    def build_all(self, registry: Registry[Any], specs: Sequence[Spec], path: ConfigPath) -> dict[int, Any]:
        """Return the parts of a list by their place in it, without those that fail."""
        made = {}
        for index, spec in enumerate(() if path in self.broken else specs):
            with suppress(_FailedError):
                made[index] = self.build(registry, spec, (*path, index))
        return made

    def run(self) -> None:
        """Build every part and send a blank batch of every split through them."""
        metrics: dict[int, Metric] = self.build_all(METRICS, self.schema.metrics, ("metrics",))
        self._check_scores(metrics)
        batches = {name: self._batch(name, section) for name, section in self._splits()}
        try:
            task = self._task()
        except _FailedError:
            self._optimizer(None)
            return
        self._check_patterns(task)
        optimizer = self._optimizer(task)
        for name, (batch, info) in batches.items():
            if batch is not None and not self._forward(task, name, batch, info, optimizer):
                return
        for name, (batch, info) in batches.items():
            if batch is not None and name != "train":
                self._measure(task, metrics, batch, info)

    def _splits(self) -> Iterator[tuple[str, DataConfig]]:
        sections = {"train": self.schema.train, "val": self.schema.val, "test": self.schema.test}
        return ((name, section) for name, section in sections.items() if section is not None)

    def _check_scores(self, metrics: Mapping[int, Metric]) -> None:
        """Make sure that no two metrics give the same score, and that every score waited for is given."""
        names: list[str] = []
        for index, metric in metrics.items():
            for name in set(names).intersection(metric.names()):
                self.found.append((("metrics", index), f"gives a second score {name!r}; give it another name"))
            names += metric.names()
        for key in ("hooks", "default_hooks"):
            specs = getattr(self.schema, key)
            for index, hook in self.build_all(HOOKS, specs, (key,)).items():
                self.hooks[key, index] = hook
                for name in hook.monitors():
                    self._check_monitor(name, names, (key, index), specs[index])
        for place, spec in self._schedules():
            if spec["type"] == "ReduceLROnPlateau":
                self._check_monitor(spec.get("monitor"), names, place, spec)

    def _schedules(self) -> Iterator[tuple[ConfigPath, Spec]]:
        single = isinstance(self.schema.schedule, Mapping)
        for index, spec in enumerate(self.schema.schedules):
            place: ConfigPath = ("schedule",) if single else ("schedule", index)
            if not self.is_broken(*place):
                yield place, spec

    def _check_monitor(self, name: str | None, names: Sequence[str], path: ConfigPath, spec: Spec) -> None:
        key = next((key for key, value in spec.items() if value == name), "monitor")
        if self.is_broken("metrics") or self.is_broken("val"):
            return
        if self.schema.val is None:
            self.found.append(((*path, key), f"{spec['type']} waits for a score, and there is no val to measure it on"))
        elif name is None:
            self.found.append((path, f"{spec['type']} needs monitor=…{suggest('', names)}"))
        elif name not in names:
            self.found.append(((*path, key), f"no metric gives a score {name!r}{suggest(name, names)}"))

    def _check_patterns(self, task: Task) -> None:
        """Make sure that what hooks such as Freeze are to change is there."""
        for place, hook in self.hooks.items():
            if type(hook).__module__.startswith("visreg.hooks."):
                for option in ("patterns", "exclude"):
                    with self._noted(*place, option):
                        matching_parameters(task, getattr(hook, option, ()), type(hook).__name__)
            if isinstance(hook, Freeze) and not any(path[: len(place)] == place for path, _ in self.found):
                with self._noted(*place, "patterns"):
                    hook.chosen(task)

    @contextmanager
    def _noted(self, *path: str | int) -> Iterator[None]:
        """Note what a hook says of the parameters that it is to change."""
        try:
            yield
        except ConfigError as error:
            self.found.append((path, message_of(error).partition(": ")[2]))

    def _batch(self, name: str, section: DataConfig) -> tuple[Batch | None, DataInfo | None]:
        """Return a blank batch as the task will see it, or None where its shape cannot be known."""
        transforms = self.build_all(TRANSFORMS, section.transforms, (name, "transforms"))
        batch_transforms = self.build_all(TRANSFORMS, section.batch_transforms, (name, "batch_transforms"))
        try:
            dataset = self.build(DATASETS, section.dataset, (name, "dataset"))
        except _FailedError:
            return None, None
        info: DataInfo = dataset.info
        reason = first_obstacle([*transforms.values()], info.sample or info.keys) if section.in_memory is True else ""
        if reason:
            self.found.append(((name, "in_memory"), f"{reason}; set in_memory='auto'"))
        if len(transforms) < len(section.transforms) or len(batch_transforms) < len(section.batch_transforms):
            return None, info
        samples = [dict(info.sample)] if info.sample else _guesses(info)
        made = [self._transform(sample, transforms, (name, "transforms"), bool(info.sample)) for sample in samples]
        if any(sample is None for sample in made) or len({shape_of(sample) for sample in made}) > 1:
            return None, info
        batch = collate([dict(made[0]) for _ in range(SAMPLES)])
        batch = self._transform(batch, batch_transforms, (name, "batch_transforms"), True)
        return (None if batch is None else {**batch, "index": torch.arange(SAMPLES)}), info

    def _transform(self, value: Any, transforms: Mapping[int, Transform], path: ConfigPath, report: bool) -> Any:
        """Return ``value`` transformed, or None where that fails; of a guess nothing is reported.

        It is drawn several times, since a transform that does something now and then can fail just then.
        """
        made = None
        for draw in range(DRAWS if transforms else 1):
            made, place = dict(value), path
            try:
                for index, transform in transforms.items():
                    place = (*path, index)
                    with seeded(draw, index):
                        made = kept(transform(before := made), before)
                check_image(made)
            except Exception as error:  # whatever a transform raises, the config named it
                if report:
                    reason = f"{message_of(error)}{advice(made, error)}"
                    self.found.append((place, f"fails on a blank {shape_of(made)}: {reason}"))
                return None
        return made

    def _task(self) -> Task:
        parts = {"model": self.build(MODELS, self.schema.model, ("model",))}
        if self.schema.loss is not None or self.is_broken("loss"):
            parts["loss"] = self.build(LOSSES, self.schema.loss, ("loss",))
        task: Task = self.build(TASKS, self.schema.task, ("task",), **parts)
        return task.to(self.device)

    def _optimizer(self, task: Task | None) -> torch.optim.Optimizer | None:
        """Return the task's optimizer; without a task, try it on a weight of no use."""
        groups: list[dict[str, Any]] = [{"params": [nn.Parameter(torch.zeros(2, 2))]}]
        try:
            if task is not None and not self.is_broken("param_groups") and not self.is_broken("optimizer"):
                groups = groups_for(task, self.schema)
            optimizer: torch.optim.Optimizer = self.build(
                OPTIMIZERS, self.schema.optimizer, ("optimizer",), params=groups
            )
        except _FailedError:
            return None
        except ValueError as error:
            self.found.append((("param_groups",), message_of(error)))
            return None
        run = self.schema.run or RunConfig(epochs=1)
        for place, spec in self._schedules():
            own, length, _ = schedule_context(spec, run.steps or UNKNOWN_LENGTH, run.epochs or UNKNOWN_LENGTH)
            with suppress(_FailedError):
                self._move(self.build(SCHEDULES, own, place, optimizer=optimizer, **length), optimizer, place)
        return optimizer

    def _move(self, schedule: Any, optimizer: torch.optim.Optimizer, place: ConfigPath) -> None:
        """Let a schedule set the learning rate once, and look at it; then put it back."""
        before = [group["lr"] for group in optimizer.param_groups]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch wants an optimizer step first
                schedule.step(*[0.0] * isinstance(schedule, ReduceLROnPlateau))
        except Exception as error:  # whatever a schedule raises, the config named it
            self.found.append((place, f"cannot take a step: {message_of(error)}"))
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        if not all(0 <= rate < math.inf for rate in rates):
            self.found.append((place, f"sets the learning rate to {min(rates)}; it must not be below 0"))
        for group, rate in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = rate

    def _forward(
        self, task: Task, name: str, batch: Batch, info: DataInfo | None, optimizer: torch.optim.Optimizer | None
    ) -> bool:
        """Return whether the losses, or a prediction, of a split can be had; note why not."""
        on_device = _to(batch, self.device)
        task.train(name == "train")
        with innermost(task) as stack, given_logits(task) as unlogged, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                losses = task(on_device) if name == "train" else {}
                mismatch = task.mismatch(on_device, info) if info is not None else None
            except Exception as error:  # whatever a model or loss raises, the config put them together
                self._reraise_if_unable(error)
                self.found += own_paths(error) or [self._failure(stack, name, batch, error)]
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
        for loss in unlogged:
            path, _ = place_of(loss, self._sections())
            self.found.append(((*path, "type"), "NLLLoss takes log-probabilities, not logits; use CrossEntropyLoss"))
        return True

    def _sections(self) -> dict[str, Spec | None]:
        """Return the specs that the modules of the task come from."""
        return {"task": self.schema.task, "model": self.schema.model, "loss": self.schema.loss}

    def _failure(
        self, stack: Sequence[tuple[str, nn.Module, Any]], name: str, batch: Batch, error: Exception
    ) -> tuple[ConfigPath, str]:
        """Return which part of the task an exception blames, by the innermost module that was at work."""
        where, module, shape = stack[-1] if stack else ("", None, None)
        path, spec = place_of(where, self._sections())
        if isinstance(error, KeyError) and path == ("task",) and error.args[0] not in batch:
            have = ", ".join(repr(key) for key in batch if key != "index")
            return path, f"needs {error.args[0]!r}, but the samples of {name}.dataset have {have}"
        if module is None or path[0] != "model":
            return path, f"cannot be computed: {message_of(error)}"
        if kind := wrong_kind(stack, batch):
            return ("model", "type"), f"{self.schema.model['type']} {kind}, in {name}.dataset"
        where = where.removeprefix("model").removeprefix(".")
        leaf = f"{where!r}, {module}, given {shape}" if not list(module.children()) else f"{where or 'forward'!r}"
        reason = f"in {leaf}: {message_of(error)}{hint(module, shape)}"
        sample, images = tuple(pixels(batch).shape)[1:], "images" if "image" in batch else "clips"
        for option, sizes in (("in_channels", sample[-3:-2]), ("image_size", sample[-2:])):
            if isinstance(spec.get(option), int) and {spec[option]} != {*sizes} and "heads" not in path:
                return (*path, option), f"is {spec[option]}, but the {images} of {name} are {sample}: {reason}"
        grey = sample[-3:-2] == (1,) and "its in_channels" in reason
        if grey and "in_channels" not in options_of(MODELS.get(spec["type"])):
            reason = f"{reason.rpartition(';')[0]}; add dict(type='RGB') to {name}.transforms"
        taken = "features" if "heads" in path else images
        return path, f"cannot take the {taken} {shape if taken == 'features' else sample} of {name}: {reason}"

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
            self.found.append((("optimizer",), f"cannot take a step: {message_of(error)}"))

    def _measure(self, task: Task, metrics: Mapping[int, Metric], batch: Batch, info: DataInfo | None) -> None:
        """Give each metric a blank prediction, to see that it finds there what it needs."""
        task.eval()
        try:
            with torch.no_grad():
                predictions = task.predict(_to(batch, self.device))
        except Exception as error:
            self._reraise_if_unable(error)
            self.found += own_paths(error) or [(("task",), f"cannot predict: {message_of(error)}")]
            return
        predictions = _blank(predictions)
        for key in ("label", "mask", *(info.others if info is not None else ())):
            if info is not None and info.classes_of(key) and isinstance(batch.get(key), Tensor):
                batch = {**batch, key: torch.full_like(batch[key], len(info.classes_of(key)) - 1)}
        for index, metric in metrics.items():
            try:
                metric.reset()
                metric.update(predictions, batch)
                if dist.world_size() == 1:  # else it would wait for the other processes
                    metric.compute()
            except Exception as error:  # whatever a metric raises, the config named it
                self.found += own_paths(error, ("metrics", index)) or [(("metrics", index), message_of(error))]
            metric.reset()


def dry_run_problems(
    schema: Schema, broken: Collection[ConfigPath] = (), weights: bool = True
) -> list[tuple[ConfigPath, str]]:
    """Return (path, message) of each mistake that shows when a config is built and run on blank data.

    Args:
        schema: the config.
        broken: places where it is known to be wrong, which are left alone.
        weights: whether to look at the files that models begin from, too.
    """
    for device in ("meta", "cpu"):
        attempt = _DryRun(schema, broken, device, InitialWeights("check" if weights else "leave"))
        try:
            with torch.random.fork_rng(devices=[]):
                attempt.run()
        except Exception:
            if device == "cpu":
                raise
            continue  # something that has no meta kernel
        break
    return attempt.found


def _blank(predictions: Any) -> Any:
    """Return predictions, of a head or of several, as zeros on the CPU."""
    if isinstance(predictions, Mapping):
        return {key: _blank(value) for key, value in predictions.items()}
    return torch.zeros_like(predictions, device="cpu") if isinstance(predictions, Tensor) else predictions


def _guesses(info: DataInfo) -> list[Sample]:
    """Return samples of unlike sizes, for data whose size is not known: transforms may make them alike."""
    return [blank_sample(info.keys, *size, frames=info.frames) for size in ((301, 403), (520, 390))]


def _to(batch: Batch, device: str) -> Batch:
    moved: Batch = to_device(batch, torch.device(device))
    return moved
