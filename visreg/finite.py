"""Keeps numbers that are not finite out of the weights, and finds where they came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, frozen
from torch import Tensor, nn

import visreg
from visreg import dist
from visreg.checkpoint import save
from visreg.data import Batch, split
from visreg.errors import NotFiniteError, ResourceError

if TYPE_CHECKING:
    from visreg.runner import Runner

DELAY = 2  # steps between a late answer and the look at it; the device has work for that long
MAX_OVERFLOWS = 20  # fp16 steps in a row that the scaler may skip; it has then halved its scale 20 times
SHOWN = 16  # sample indices in a message


@frozen
class Suspect:
    """A step that may not have been finite.

    Attributes:
        step: its number, from 1. lr: the learning rate it was to be taken with, of the first group.
        batch: this process's part. losses: by name.
        flag: 1 if this step, or one before it, was not finite, else 0; float32 ().
        ready: when ``flag`` has come from the device; None if it was never there.
    """

    step: int
    lr: float
    batch: Batch
    losses: Mapping[str, Tensor]
    flag: Tensor
    ready: torch.cuda.Event | None = None


def answers_late(runner: Runner) -> bool:
    """Return whether the device itself can leave out a step that is not finite, so that nobody need wait for it."""
    able = getattr(runner.optimizer, "_step_supports_amp_scaling", False)  # PyTorch's fused optimizers
    return runner.device.type == "cuda" and bool(able) and not runner.scaler.is_enabled()


@define(eq=False)
class FiniteCheck:
    """Stops a run before the first optimizer step whose losses or gradients are not finite.

    One fused operation, that of PyTorch's ``GradScaler``, looks at all of them and raises a flag that stays up. On the
    CPU the flag is read at once. On a GPU a fused optimizer leaves out every step while it is up, and it is read
    ``DELAY`` steps later, when it has long arrived: so nothing waits, and the weights are those before the bad step
    (only the running statistics of batch norms have seen it). An optimizer that is not fused cannot leave a step out on
    its own, and so there, as with fp16, the flag is waited for once a step.

    With fp16 a gradient beyond its range is no fault: the scaler leaves the step out, and only ``MAX_OVERFLOWS`` such
    steps in a row stop the run.

    With ``on_nan="ignore"`` it is ``off``: nothing is looked at, and nothing is ever raised.
    """

    off: bool
    late: bool
    several: bool  # processes
    _flag: Tensor
    _one: Tensor
    _waiting: deque[Suspect] = field(factory=deque)
    _buffers: tuple[list[Tensor], list[Tensor]] | None = None  # the task's, and what they were before the step

    @classmethod
    def of(cls, runner: Runner) -> FiniteCheck:
        """Return a check for ``runner``, before its first step."""
        flag = torch.zeros((), device=runner.device)
        return cls(runner.on_nan == "ignore", answers_late(runner), dist.world_size() > 1, flag, torch.ones_like(flag))

    def before_step(self, task: nn.Module) -> None:
        """Remember the buffers, which a forward may change: running statistics, above all."""
        if self.off:
            return
        if self._buffers is None:
            buffers = [buffer.detach() for buffer in task.buffers()]
            self._buffers = (buffers, [buffer.clone() for buffer in buffers])
        elif self._buffers[0]:
            torch._foreach_copy_(self._buffers[1], self._buffers[0])

    def restore(self) -> None:
        """Put the buffers back to what they were before the step."""
        if self._buffers is not None and self._buffers[0]:
            torch._foreach_copy_(*self._buffers)

    def check(self, runner: Runner, batch: Batch) -> None:
        """Look at the losses and gradients of ``batch``, right before the optimizer step.

        Raises:
            NotFiniteError: if they are not finite, or those of some steps ago were not; every process raises it at the
                same step.
        """
        if self.off:
            return
        assert runner.optimizer is not None
        groups = runner.optimizer.param_groups
        values = list(runner.losses.values())
        if not self._overflowed(runner):
            values += [each.grad for group in groups for each in group["params"] if each.grad is not None]
        _raise_flag(self._flag, values, self._one)
        if self.several:  # gradients agree between processes, losses do not
            self._flag.copy_(dist.largest(self._flag))
        if self.late:
            runner.optimizer.found_inf, runner.optimizer.grad_scale = self._flag, None  # type: ignore[attr-defined]
            flag, ready = _on_its_way(self._flag)
            lr = float(groups[0]["lr"])
            self._waiting.append(Suspect(runner.step + 1, lr, batch, runner.losses, flag, ready))
            self._read(runner, keep=DELAY)
        elif self._flag.item() or runner.overflows >= MAX_OVERFLOWS:
            self._flag.zero_()
            self.restore()
            runner.scaler.update(runner.scaler.get_scale())  # it was told of a step, which is not to come
            lr = float(groups[0]["lr"])
            raise explained(runner, Suspect(runner.step + 1, lr, batch, runner.losses, self._flag))

    def settle(self, runner: Runner) -> None:
        """Wait for the answers that are still on their way, before anything is saved or reported as done.

        Raises:
            NotFiniteError: if one of them is bad.
        """
        if self._waiting:
            self._read(runner, keep=0)

    def _read(self, runner: Runner, keep: int) -> None:
        while len(self._waiting) > keep:
            suspect = self._waiting.popleft()
            if suspect.ready is not None:
                suspect.ready.synchronize()
            if suspect.flag.item():
                self._waiting.clear()
                self._flag.zero_()  # the optimizer holds it
                runner.optimizer.zero_grad()  # type: ignore[union-attr]  # it has taken steps
                with torch.enable_grad():  # whoever asks
                    runner.gradients(suspect.batch)  # those that were bad are long gone
                raise explained(runner, suspect)

    def _overflowed(self, runner: Runner) -> bool:
        """Return whether fp16's scaler is about to leave this step out, and count how often it did in a row."""
        if not runner.scaler.is_enabled():
            return False
        found = runner.scaler._found_inf_per_device(runner.optimizer)  # type: ignore[arg-type]  # there is one
        overflowed = any(value.item() for value in found.values())
        runner.overflows = runner.overflows + 1 if overflowed else 0
        return overflowed


def _raise_flag(flag: Tensor, values: list[Tensor], one: Tensor) -> None:
    """Set ``flag`` to 1 if any of ``values`` is not finite, without waiting for the device."""
    try:
        torch._amp_foreach_non_finite_check_and_unscale_(values, flag, one)
    except RuntimeError:  # sparse or complex; or a loss that is in integers, which are finite, or on another device
        dense = [value.coalesce().values() if value.is_sparse else value for value in values]
        real = [torch.view_as_real(value) if value.is_complex() else value for value in dense]
        there = [value.detach().to(flag.device) for value in real if value.is_floating_point()]
        torch._amp_foreach_non_finite_check_and_unscale_(there, flag, one)


def _on_its_way(flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Return a copy of ``flag`` in this machine's memory, and when it will be there."""
    if not flag.is_cuda:
        return flag.clone(), None
    copy = torch.empty((), pin_memory=True)
    copy.copy_(flag, non_blocking=True)
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
    ready.record()
    return copy, ready


def explained(runner: Runner, suspect: Suspect) -> NotFiniteError:
    """Find out what was not finite, keep the batch for a closer look, and say all of it.

    The file, ``not_finite/step_00000012.pt`` in the work directory, is read by `visreg.checkpoint.load` and holds
    ``step``, ``lr``, ``losses``, ``found`` (what was not finite, as text), ``index`` (of the samples), ``batches`` (one
    for each process) and ``task``, the weights before the step. Every process must call.
    """
    losses = {name: float(value) for name, value in suspect.losses.items()}
    mine = (_cause(runner, suspect), losses, _plain(suspect.batch))
    causes, all_losses, batches = zip(*dist.gather(mine), strict=True)
    _, found = min(causes, key=lambda cause: cause[0])
    losses = {name: sum(each.get(name, 0.0) for each in all_losses) / len(all_losses) for name in losses}
    indices = [int(index) for batch in batches for index in batch.get("index", ())]
    path = runner.work_dir / "not_finite" / f"step_{suspect.step:08d}.pt"
    state = {
        "visreg": visreg.__version__,
        "step": suspect.step,
        "lr": suspect.lr,
        "losses": losses,
        "found": found,
        "index": indices,
        "batches": list(batches),
        "task": runner.task.state_dict(),
    }
    kept = _keep(state, path) if dist.is_main() else ""
    (kept, *_) = dist.gather(kept)  # nobody leaves before the file is written
    skip = "" if runner.on_nan == "rollback" else ", or set run.on_nan='rollback' to skip such batches"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in {"lr": suspect.lr, **losses}.items())
    return NotFiniteError(
        f"step {suspect.step} of {runner.total_steps}: {found} ({numbers}); {kept}, of samples {_shown(indices)}; no "
        f"weight was changed. Lower optimizer.lr, add the hook ClipGrad, look at these samples{skip}",
        step=suspect.step,
    )


def _keep(state: Mapping[str, Any], path: Path) -> str:
    """Write what was found, and return what to say of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(state, path)
    except (ResourceError, OSError) as error:
        return f"the batch could not be kept ({error})"
    return f"the batch is kept in {path}"


def _shown(indices: Sequence[int]) -> str:
    more = f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else ""
    return ", ".join(map(str, indices[:SHOWN])) + more if indices else "unknown"


def _cause(runner: Runner, suspect: Suspect) -> tuple[int, str]:
    """Return what was not finite, and how close to its source that is: 0 is closest."""
    module = _first_module(runner, suspect.batch)
    if module:
        inputs = [repr(name) for name, value in suspect.batch.items() if not _finite(value)]
        given = f", and neither is the batch's {' or '.join(inputs)}" if inputs else ""
        return 0, f"the output of {module} is not finite{given}"
    if runner.overflows >= MAX_OVERFLOWS:
        return 1, f"the gradients of {runner.overflows} steps in a row went beyond fp16; precision='bf16' goes further"
    though = "is not finite, though the output of every module is when the batch is run again"
    losses = [name for name, value in suspect.losses.items() if not _finite(value)]
    if losses:
        return 2, f"{' and '.join(losses)} {though}"
    for name, parameter in runner.task.named_parameters():
        if not _finite(parameter.grad):
            return 3, f"the gradient of {name} {though}"
    return 4, "a loss or gradient was not finite"


@torch.no_grad()
def _first_module(runner: Runner, batch: Batch) -> str:
    """Return the first module, by name and type, whose output on ``batch`` is not finite; "" if there is none."""
    found: list[str] = []

    def look(name: str, module: nn.Module, output: Any) -> None:
        if not found and not _finite(output):
            found.append(f"{name} ({type(module).__name__})")

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: look(name, module, output))
        for name, module in runner.task.named_modules()
        if name and not isinstance(module, torch.jit.ScriptModule)  # which takes no hooks
    ]
    before = [(buffer, buffer.clone()) for buffer in runner.task.buffers()]
    try:
        for part, _ in split(batch, runner.accumulate):
            with runner.autocast():
                runner.task(part)
    finally:
        for handle in handles:
            handle.remove()
        for buffer, value in before:
            buffer.copy_(value)
    return found[0] if found else ""


def _finite(value: Any) -> bool:
    """Return whether every number in ``value`` is finite; what is no tensor, nor made of them, is."""
    if isinstance(value, Tensor):
        return bool((value.coalesce().values() if value.is_sparse else value).isfinite().all())
    if isinstance(value, Mapping):
        return all(_finite(item) for item in value.values())
    return all(_finite(item) for item in value) if isinstance(value, (list, tuple)) else True


def _plain(value: Any) -> Any:
    """Return ``value`` as a checkpoint can hold it: on the CPU, without subclasses of tensors and unknown types."""
    if isinstance(value, Tensor):
        return value.detach().cpu().as_subclass(Tensor).clone()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, bytes, int, float, bool, type(None))) else repr(value)
