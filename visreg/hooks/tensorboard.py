"""Shows losses, scores and images in TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field
from attrs.validators import ge, instance_of
from torch import Tensor

from visreg import dist
from visreg.errors import ConfigError, Problem
from visreg.hook import Hook
from visreg.hooks.leftovers import set_aside
from visreg.hooks.readings import LossMean, data_name, learning_rate

if TYPE_CHECKING:
    from visreg.runner import Runner


@define(kw_only=True, eq=False)
class TensorBoard(Hook):
    """Writes to ``tensorboard/`` in the work directory, for ``tensorboard --logdir WORK_DIR``.

    There are the scalars ``train/<loss>`` (means over ``every`` steps and all processes), ``lr`` (the rate of the next
    step) and ``val/<dataset>/<score>``; the first images that training sees, as it sees them; and the config as text.
    Needs ``pip install "visreg[log]"``.

    Args:
        images: how many images to show, from 0.
        every: how many optimizer steps a point of the losses is about.
    """

    images: int = field(default=8, validator=[instance_of(int), ge(0)])
    every: int = field(default=50, validator=[instance_of(int), ge(1)])
    _losses: LossMean = field(factory=LossMean, init=False, repr=False)
    _writer: Any = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            message = 'TensorBoard: the package tensorboard is not installed; run: pip install "visreg[log]"'
            raise ConfigError([Problem("", message)])

    def before_train(self, runner: Runner) -> None:
        if not dist.is_main():
            return
        from torch.utils.tensorboard import SummaryWriter

        folder = runner.work_dir / "tensorboard"
        fresh = runner.step == 0 and not runner.skipped  # else it is this run that was rolled back
        if fresh:
            set_aside(folder)
        # What a killed run wrote after its last checkpoint is hidden, as it comes anew.
        purge_step = None if fresh else runner.step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        if fresh and runner.config:
            text = json.dumps(runner.config, indent=2, default=str)
            self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), 0)

    def before_step(self, runner: Runner) -> None:
        if self._writer is not None and runner.step == 0 and self.images:
            images = runner.batch.get("image")
            if isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] in (1, 3):
                self._writer.add_images("train/images", images[: self.images].cpu(), 0)

    def after_step(self, runner: Runner) -> None:
        self._losses.seen.append(runner.losses)
        if runner.step % self.every == 0:
            self._write("train/", self._losses.read(over_processes=True), runner.step)
            self._write("", {"lr": learning_rate(runner)}, runner.step)

    def after_eval(self, runner: Runner) -> None:
        self._write(f"val/{data_name(runner)}/", runner.scores, runner.step)
        if self._writer is not None:
            self._writer.flush()

    def after_train(self, runner: Runner) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, prefix: str, numbers: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in numbers.items():
                if not math.isnan(value):  # TensorBoard draws NaN as zero
                    self._writer.add_scalar(prefix + name, value, step)

    def state_dict(self) -> dict[str, Any]:
        if self._writer is not None:
            self._writer.flush()  # a checkpoint must not know of points that a kill would lose
        return {"losses": self._losses.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._losses.load_state_dict(state["losses"])
