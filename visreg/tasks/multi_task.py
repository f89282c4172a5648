"""Several tasks on one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from visreg.data import Batch, DataInfo, Predictions
from visreg.errors import ConfigError, Problem, suggest
from visreg.task import Task
from visreg.tasks.images import ImageTask

T = TypeVar("T")


class MultiTask(ImageTask):
    """Several tasks, each of one head of a model that gives a dict of outputs, such as ``MultiHead``.

    The model sees a batch once, and each task takes the output of its own name for that of its model. Losses are
    ``name/loss`` and so on, each multiplied by the weight of its head; predictions are, by name, those of each task.

    With ``weights="uncertainty"`` the weights are learnt: that of a head is 1 / σ², and log σ is one more loss,
    ``name/log_sigma``, without which all weights would become 0. What is learnt, log σ², is a parameter of the task,
    ``log_variances.name``, and starts at 0. Source: Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to
    weigh losses for scene geometry and semantics", 2018, in the form for cross-entropy. Where the optimizer decays
    weights, name ``log_variances`` in ``param_groups.no_decay``.

    Args:
        model: float images (N, C, H, W) to outputs by name. They are of range 0..1, normalised by ``mean`` and ``std``.
        tasks: by the name of their head; each is made with the same model, and with a loss of its own.
        weights: what the losses of each head count, 1 where not given; or ``"uncertainty"``.
        mean: of the pixels, on the scale 0..1: one for each channel, or one for all; 0 where not given.
        std: their standard deviation, likewise; 1 where not given.

    Raises:
        ValueError: if there is no task, a name cannot be one, or a weight is below 0, infinite or of no task.
        ConfigError: if a task has a ``mean`` or ``std`` of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Mapping[str, Task],
        weights: Mapping[str, float] | Literal["uncertainty"] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model, mean, std)
        if not tasks:
            raise ValueError("tasks: name at least one")
        for name, task in tasks.items():
            if isinstance(task, ImageTask) and task.normalises:
                message = "of no use, since the model sees each image once; set task.mean and task.std"
                raise ConfigError([Problem(f"task.tasks.{name}", message)])
            task.model = _Answer()
        try:
            self.tasks = nn.ModuleDict(tasks)
        except KeyError as error:  # a dot in the name, or one that modules have for something else
            raise ValueError(f"tasks: {error.args[0]}; give it another name") from None
        learnt = tasks if weights == "uncertainty" else ()
        self.weights = {} if isinstance(weights, str) or weights is None else _checked(weights, tasks)
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in learnt})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for name, found in self._ask(batch, lambda task, seen: task(seen)).items():
            weight: float | Tensor = self.weights.get(name, 1.0)
            if name in self.log_variances:
                weight = torch.exp(-self.log_variances[name])
            losses |= {f"{name}/{key}": weight * loss for key, loss in found.items()}
            if name in self.log_variances:
                losses[f"{name}/log_sigma"] = self.log_variances[name] / 2
        return losses

    def predict(self, batch: Batch) -> Predictions:
        return self._ask(batch, lambda task, seen: task.predict(seen))

    def mismatch(self, batch: Batch, info: DataInfo) -> str | None:
        found = self._ask(batch, lambda task, seen: task.mismatch(seen, info))
        problems = [
            Problem(f"model.heads.{name}", f"{text} of {info.name}") for name, text in found.items() if text is not None
        ]
        if problems:
            raise ConfigError(problems)
        return None

    def _ask(self, batch: Batch, question: Callable[[Any, Batch], T]) -> dict[str, T]:
        """Return what each task says of a batch, whose images the model sees once.

        Raises:
            ConfigError: if the model's outputs are not those of the tasks; or by a task, of its own part of the config.
        """
        image = self.preprocess(batch["image"])
        outputs = self._outputs(image)
        seen = {**batch, "image": image}
        answers: dict[str, T] = {}
        for name, task in self.tasks.items():
            model: Any = task.model
            model.output = outputs[name]
            try:
                answers[name] = question(task, seen)
            except ConfigError as error:
                raise ConfigError([_of_head(name, problem) for problem in error.problems]) from error
            finally:
                model.output = None  # which holds the graph
        return answers

    def _outputs(self, image: Tensor) -> Mapping[str, Any]:
        outputs = self.model(image)
        if not isinstance(outputs, Mapping):
            message = f"the model must return a dict with an output for each task, got {type(outputs).__name__}"
            raise ConfigError([Problem("model", f"{message}; use MultiHead")])
        missing = [
            Problem(f"task.tasks.{name}", f"the model gives no output {name!r}{suggest(name, outputs)}")
            for name in self.tasks
            if name not in outputs
        ]
        useless = [
            Problem(f"model.heads.{name}", "no task is for this output; add one of its name to task.tasks")
            for name in outputs
            if name not in self.tasks
        ]
        if missing or useless:
            raise ConfigError(missing or useless)
        return outputs


class _Answer(nn.Module):
    """Stands in a head's task for the model, and answers what that head gave."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Any = None

    def forward(self, image: Tensor) -> Any:
        """Return the output; the images were seen already."""
        return self.output


def _checked(weights: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    for name, weight in weights.items():
        if name not in names:
            raise ValueError(f"weights: there is no task {name!r}{suggest(name, names)}")
        if not 0 <= weight < math.inf:
            raise ValueError(f"weights: that of {name} must be 0 or more, and finite, got {weight!r}")
    return dict(weights)


def _of_head(name: str, problem: Problem) -> Problem:
    """Return a problem of a head's task, or of what its model gives, as one of the whole config."""
    part, _, rest = problem.path.partition(".")
    places = {"model": f"model.heads.{name}", "loss": f"task.tasks.{name}.loss", "task": f"task.tasks.{name}"}
    path = ".".join(filter(None, (places.get(part, f"task.tasks.{name}"), rest)))
    return Problem(path, f"head {name!r}: {problem.message}")
