"""One pass over a config that is right so far."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import define
from torch import Tensor
from torch.optim import Optimizer

from visreg import dist
from visreg.config import ConfigPath
from visreg.data import Batch, DataInfo, to_device
from visreg.diagnosis import blamed, message_of, own_paths, place_of_class
from visreg.dry_run.batch import blank_batch
from visreg.dry_run.failure import calls, failure, given_logits, place_of
from visreg.dry_run.hooks import check_patterns, check_scores
from visreg.dry_run.learning import build_optimizer, try_step
from visreg.dry_run.parts import FailedError, Parts
from visreg.dry_run.small import in_small
from visreg.errors import DataError
from visreg.metric import Metric
from visreg.registry import LOSSES, METRICS, MODELS, TASKS
from visreg.schema import DataConfig, Schema
from visreg.specs import Spec, without
from visreg.task import Task
from visreg.weights import InitialWeights

KNOWN = ("torch", "torchvision", "visreg")  # packages whose modules take a blank image as they do any other
LIGHT = 4e9  # parameters × pixels of a batch: the most that takes less time than torch needs to import meta kernels


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


@define(eq=False)
class _DryRun(Parts):
    """Sends a blank batch of every split through the parts."""

    def run(self) -> None:
        """Build every part and send a blank batch of every split through them."""
        metrics: dict[int, Metric] = self.build_all(METRICS, self._metrics(), ("metrics",))
        hooks = check_scores(self, metrics)
        batches = {name: blank_batch(self, name, section) for name, section in self._splits()}
        try:
            task = self._task()
        except FailedError:
            build_optimizer(self, None)
            return
        if self.device == "meta" and _is_light(task, [batch for batch, _ in batches.values() if batch is not None]):
            self.device = "cpu"
            task = self._task()
        if self.device == "cpu":
            known = {name: batch for name, (batch, _) in batches.items() if batch is not None}
            small = dict(zip(known, in_small(task, [*known.values()]), strict=True))
            batches = {name: (small.get(name), info) for name, (_, info) in batches.items()}
        check_patterns(self, hooks, task)
        optimizer = build_optimizer(self, task)
        for name, (batch, info) in batches.items():
            if batch is not None and not self._forward(task, name, batch, info, optimizer):
                return
        for name, (batch, info) in batches.items():
            if batch is not None and name != "train":
                self._measure(task, metrics, batch, info)

    def _metrics(self) -> list[Spec]:
        """Return the metrics without those inside of others, such as PerHead, that are known to be wrong."""
        specs = []
        for index, spec in enumerate(() if ("metrics",) in self.broken else self.schema.metrics):
            inside = {_item(path[2:]) for path in self.broken if path[:2] == ("metrics", index)}
            if inside and () not in inside:
                spec = without(spec, inside)
                self.broken = {path for path in self.broken if path[:2] != ("metrics", index)}
            specs.append(spec)
        return specs

    def _splits(self) -> Iterator[tuple[str, DataConfig]]:
        sections = {"train": self.schema.train, "val": self.schema.val, "test": self.schema.test}
        return ((name, section) for name, section in sections.items() if section is not None)

    def _task(self) -> Task:
        parts = {"model": self.build(MODELS, self.schema.model, ("model",))}
        if self.schema.loss is not None or self.is_broken("loss"):
            parts["loss"] = self.build(LOSSES, self.schema.loss, ("loss",))
        task: Task = self.build(TASKS, self.schema.task, ("task",), **parts)
        return task.to(self.device)

    def _forward(self, task: Task, name: str, batch: Batch, info: DataInfo | None, optimizer: Optimizer | None) -> bool:
        """Return whether the losses, or a prediction, of a split can be had; note why not."""
        on_device = _to(batch, self.device)
        task.train(name == "train")
        with calls(task) as stack, given_logits(task) as unlogged, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                losses = task(on_device) if name == "train" else {}
                mismatch = task.mismatch(on_device, info) if info is not None else None
            except Exception as error:  # whatever a model or loss raises, the config put them together
                self.reraise_if_unable(error)
                self.found += own_paths(error) or [blamed(*failure(stack, self._sections(), name, batch, error), error)]
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
            try_step(self, losses, optimizer)
        for loss in unlogged:
            path, _ = place_of(loss, self._sections())
            self.found.append(((*path, "type"), "NLLLoss takes log-probabilities, not logits; use CrossEntropyLoss"))
        return True

    def _sections(self) -> dict[str, Spec | None]:
        """Return the specs that the modules of the task come from."""
        return {"task": self.schema.task, "model": self.schema.model, "loss": self.schema.loss}

    def _are_scalars(self, losses: Mapping[str, Any]) -> bool:
        before = len(self.found)
        for key, loss in losses.items():
            if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
                shape = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
                self.found.append((("loss",), f"{key!r} must be one floating-point number, and is {shape}"))
        return len(self.found) == before

    def _measure(self, task: Task, metrics: Mapping[int, Metric], batch: Batch, info: DataInfo | None) -> None:
        """Give each metric a blank prediction, to see that it finds there what it needs."""
        task.eval()
        try:
            with torch.no_grad():
                predictions = task.predict(_to(batch, self.device))
        except Exception as error:
            self.reraise_if_unable(error)
            self.found += own_paths(error) or [blamed(("task",), f"cannot predict: {message_of(error)}", error)]
            return
        predictions = _blank(predictions)
        for key in ("label", "mask", *(info.others if info is not None else ())):
            if info is not None and info.classes_of(key) and isinstance(batch.get(key), Tensor):
                batch = {**batch, key: torch.full_like(batch[key], len(info.classes_of(key)) - 1)}
        for index, metric in metrics.items():
            place: ConfigPath = ("metrics", index)
            try:
                metric.reset()
                metric.update(predictions, batch)
                if dist.world_size() == 1:  # else it would wait for the other processes
                    self._compare_names(metric, metric.compute(), place)
                metric.reset()
            except Exception as error:  # whatever a metric raises, the config named it
                texts = error.mistakes if isinstance(error, DataError) else [message_of(error)]
                self.found += own_paths(error, place) or [blamed(place, text, error) for text in texts]

    def _compare_names(self, metric: Metric, scores: Mapping[str, float], place: ConfigPath) -> None:
        """Make sure that a metric gives the scores that it says it gives, which hooks wait for."""
        said, given = sorted(set(metric.names()) - set(scores)), sorted(set(scores) - set(metric.names()))
        if said or given:
            parts = [
                f"names() says {', '.join(map(repr, metric.names()))}",
                f"compute() returns {', '.join(map(repr, scores))}",
            ]
            message = f"{type(metric).__name__}: {' and '.join(parts)}; they must be the same"
            self.found.append((place, f"{message}{place_of_class(type(metric))}"))


def _item(path: ConfigPath) -> ConfigPath:
    """Return the way to the first item of a list that ``path`` leads into; nothing if there is none."""
    return path[: next((place for place, step in enumerate(path, start=1) if isinstance(step, int)), 0)]


def _blank(predictions: Any) -> Any:
    """Return predictions, of a head or of several, as zeros on the CPU."""
    if isinstance(predictions, Mapping):
        return {key: _blank(value) for key, value in predictions.items()}
    return torch.zeros_like(predictions, device="cpu") if isinstance(predictions, Tensor) else predictions


def _is_light(task: Task, batches: Sequence[Batch]) -> bool:
    """Return whether the arithmetic of a task costs next to nothing, even if all weights are used at every pixel.

    Modules of others may do what blank images do not allow, or what takes more memory than their weights tell.
    """
    known = all(type(module).__module__.partition(".")[0] in KNOWN for module in task.modules())
    images = [batch.get("image") for batch in batches]
    pixels = max((image.numel() // image.shape[-3] for image in images if isinstance(image, Tensor)), default=math.inf)
    return known and pixels * sum(weight.numel() for weight in task.parameters()) <= LIGHT


def _to(batch: Batch, device: str) -> Batch:
    moved: Batch = to_device(batch, torch.device(device))
    return moved
