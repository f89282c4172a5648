"""The interfaces that plugins derive from: what they must have, and what they may leave out."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyTask

from visreg.data import DataInfo, Dataset
from visreg.hook import Hook
from visreg.metric import Metric
from visreg.task import Task


@pytest.mark.parametrize(
    ("interface", "methods"),
    [
        (Task, {"forward", "predict"}),
        (Metric, {"names", "reset", "update", "compute"}),
        (Dataset, {"info", "open", "__len__", "__getitem__"}),
    ],
)
def test_what_an_interface_demands(interface, methods):
    assert interface.__abstractmethods__ == methods
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (interface,), {})()


def test_a_task_is_a_module_that_matches_any_data_unless_it_says_otherwise():
    task = TinyTask()
    assert isinstance(task, torch.nn.Module)
    assert {name.partition(".")[0] for name, _ in task.named_parameters()} == {"model"}
    assert task.mismatch({}, DataInfo(name="any", classes=("a",))) is None


def test_a_metric_without_classes_has_no_columns():
    whole = {name: lambda self: None for name in Metric.__abstractmethods__}
    assert type("Whole", (Metric,), whole)().per_class() == {}


def test_a_dataset_need_not_fit_in_memory():
    whole = {name: lambda self: None for name in Dataset.__abstractmethods__}
    assert type("Whole", (Dataset,), whole)().tensors() is None


def test_a_hook_may_leave_out_everything():
    hook = Hook()
    assert (hook.monitors(), hook.state_dict()) == ((), {})
    hook.load_state_dict({})
    events = [name for name in vars(Hook) if name.startswith(("before_", "after_", "between_"))]
    assert len(events) == 11
    for name in events:
        assert getattr(hook, name)(None) is None


def test_the_docstring_of_a_hook_tells_every_event():
    from typing import get_args

    from visreg.hook import Event

    assert [event for event in get_args(Event) if event not in Hook.__doc__] == []
    assert set(get_args(Event)) == {name for name in vars(Hook) if name.startswith(("before_", "after_", "between_"))}
