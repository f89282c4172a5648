"""What happens around the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from visreg.runner import Runner

Event = Literal[
    "before_train", "before_epoch", "before_step", "after_backward", "after_step",
    "before_eval", "after_eval", "after_interrupted_eval", "after_epoch", "between_steps",
    "after_train",
]  # fmt: skip


class Hook:
    """Something a runner calls at fixed points; override the points you need, the others cost nothing.

    ::

        before_train                    the run may have been resumed: runner.step tells
        for each epoch:
            before_epoch
            for each step:
                before_step             runner.batch is the one to come
                forward, backward
                after_backward          gradients are complete, averaged over processes and unscaled
                optimizer step
                after_step              runner.losses are of this step, still on the device
                every eval_every epochs or steps:
                    before_eval
                    predict every validation batch
                    after_eval          runner.scores are fresh
                    after_interrupted_eval
                                        in its place where a signal ended the evaluation, which a resumed run
                                        begins anew: takes back what before_eval did
                after_epoch, if it was the epoch's last step
                between_steps           all of the above is done: what is saved here resumes exactly
        after_train                     also after an exception

    Hooks are called in the order the config lists them; afterwards come the default ones (Console, MetricsLog and
    Checkpoint), so that whatever a hook changes is seen by them.
    """

    def before_train(self, runner: Runner) -> None: ...
    def before_epoch(self, runner: Runner) -> None: ...
    def before_step(self, runner: Runner) -> None: ...
    def after_backward(self, runner: Runner) -> None: ...
    def after_step(self, runner: Runner) -> None: ...
    def before_eval(self, runner: Runner) -> None: ...
    def after_eval(self, runner: Runner) -> None: ...
    def after_interrupted_eval(self, runner: Runner) -> None: ...
    def after_epoch(self, runner: Runner) -> None: ...
    def between_steps(self, runner: Runner) -> None: ...
    def after_train(self, runner: Runner) -> None: ...

    def monitors(self) -> Sequence[str]:
        """Return the names of the scores that this hook waits for; a config without them is refused."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep of this hook: tensors and plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where ``state`` left off."""
