"""A first layer that is worked out from the data, and not learnt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field
from attrs.validators import ge, gt, instance_of
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from visreg.data import Batch, batch_length
from visreg.errors import ConfigError, Problem, suggest
from visreg.hook import Hook
from visreg.task import Task

if TYPE_CHECKING:
    from visreg.runner import Runner


class _SeenError(Exception):
    """What a layer was given has been noted, and the rest of the model need not run."""


@define(kw_only=True, eq=False)
class Whiten(Hook):
    """Sets a layer, before the first step, so that what it makes of patches of training images is uncorrelated.

    The filters of its first half become the eigenvectors of the patches' covariance, those of the largest eigenvalues
    first, each divided by the root of its own, so that all outputs vary equally much; the second half are the same with
    the opposite sign. Its bias stays as it is. ``Freeze(patterns=["whiten.weight"])`` keeps the filters as they are.
    Hooks that average weights come after it.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498, after Page, "How to train
    your ResNet", 2019.

    Args:
        layer: a convolution or linear layer, by its name in the model.
        samples: how many training images to look at, the first of the first epoch.
        eps: what is added to each eigenvalue, so that directions that hardly vary are not blown up.
    """

    layer: str = field(validator=instance_of(str))
    samples: int = field(default=5000, validator=[instance_of(int), ge(1)])
    eps: float = field(default=5e-4, validator=gt(0))

    def chosen(self, task: Task) -> nn.Conv2d | nn.Linear:
        """Return the layer.

        Raises:
            ConfigError: if there is none of that name, or it is of another kind, or has an odd number of outputs or
                more than there are directions.
        """
        modules = {name.removeprefix("model."): module for name, module in task.named_modules() if name}
        found = modules.get(self.layer.removeprefix("model."))
        if not isinstance(found, (nn.Conv2d, nn.Linear)):
            named = [name for name, module in modules.items() if isinstance(module, (nn.Conv2d, nn.Linear))]
            raise _mistake(f"{self.layer!r} is no Conv2d or Linear of the model{suggest(self.layer, named)}")
        outputs, *shape = found.weight.shape
        if outputs % 2 or outputs > 2 * math.prod(shape):
            raise _mistake(
                f"{self.layer!r} has {outputs} outputs; it takes an even number up to {2 * math.prod(shape)}"
            )
        return found

    @torch.no_grad()
    def before_train(self, runner: Runner) -> None:
        layer = self.chosen(runner.task)
        if runner.step == 0:
            layer.weight.copy_(self._filters(runner, layer))

    def _filters(self, runner: Runner, layer: nn.Conv2d | nn.Linear) -> Tensor:
        """Return the filters, float32 of the shape of the layer's weight."""
        assert runner.train_loader is not None
        size, seen, count = layer.weight[0].numel(), 0, 0
        total = torch.zeros(size, size, device=layer.weight.device)
        for batch in runner.train_loader.epoch(0):
            patches = _patches(_inputs(runner.task, layer, batch)[: self.samples - seen], layer)
            total += patches.T @ patches
            seen, count = seen + batch_length(batch), count + len(patches)
            if seen >= self.samples:
                break
        values, vectors = torch.linalg.eigh(total.cpu().double() / count)
        filters = (vectors / (values + self.eps).sqrt()).T.flip(0)[: len(layer.weight) // 2]
        return torch.cat([filters, -filters]).view_as(layer.weight).to(layer.weight.device, torch.float32)


def _patches(inputs: Tensor, layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Return what a layer sees at each place: float32 (N, numbers of a patch)."""
    values = inputs.to(torch.float32)
    if isinstance(layer, nn.Conv2d):
        framed = pad(values, layer._reversed_padding_repeated_twice)
        values = unfold(framed, layer.kernel_size, layer.dilation, 0, layer.stride).transpose(1, 2)
    return values.flatten(0, -2)


def _mistake(message: str) -> ConfigError:
    return ConfigError([Problem("", f"Whiten: {message}")])


def _inputs(task: Task, layer: nn.Module, batch: Batch) -> Tensor:
    """Return what ``layer`` is given for a batch."""
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])
        raise _SeenError

    handle, was_training = layer.register_forward_pre_hook(look), task.training
    task.eval()
    try:
        task.predict(batch)
    except _SeenError:
        pass
    finally:
        handle.remove()
        task.train(was_training)
    return seen[0]
