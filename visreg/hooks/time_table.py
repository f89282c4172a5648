"""Where the time of some steps went, read off what torch's profiler saw of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import get_args

from attrs import frozen
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # it is there
from torch.autograd.profiler_util import FunctionEvent

from visreg.hook import Event
from visreg.phase import PHASES

STEP = "ProfilerStep"  # the name that torch gives to the steps it is told of, with their numbers
HOOKS = frozenset(get_args(Event))


@frozen
class Span:
    """A stretch of time, in µs, that has a name."""

    name: str
    start: float
    end: float

    def within(self, other: Span) -> float:
        """Return how many µs of this lie in the other."""
        return max(0.0, min(self.end, other.end) - max(self.start, other.start))


@frozen
class TimeTable:
    """Where the time of some steps went.

    Attributes:
        steps: how many there were.
        total: ms of one, on average.
        parts: ms of each part of it; they add up to ``total``.
        idle: ms in which the GPU had nothing to do; None where there is none.
    """

    steps: int
    total: float
    parts: dict[str, float]
    idle: float | None = None

    @classmethod
    def of(cls, events: Iterable[FunctionEvent], most: int | None = None) -> TimeTable:
        """Return the table of what a profiler saw: steps, told to it by ``step()``, the first so many, with phases."""
        seen = [*events]
        steps = [event for event in seen if event.name.startswith(STEP) and _on_cpu(event)][:most]
        thread = steps[0].thread
        named = {*PHASES, *HOOKS}
        spans = [_span(event) for event in seen if event.name in named and event.thread == thread and _on_cpu(event)]
        kernels = [_span(event) for event in seen if not _on_cpu(event) and not event.is_user_annotation]
        whole = Span(STEP, _span(steps[0]).start, _span(steps[-1]).end)
        return cls._of(whole, len(steps), sorted(spans, key=lambda span: span.start), kernels)

    @classmethod
    def _of(cls, whole: Span, steps: int, spans: Sequence[Span], kernels: Sequence[Span]) -> TimeTable:
        parts = {"data wait": _waits(whole, spans), **dict.fromkeys((*PHASES, "hooks"), 0.0)}
        for span in spans:
            parts["hooks" if span.name in HOOKS else span.name] += span.within(whole)
        if not parts["evaluation"]:
            del parts["evaluation"]
        total = whole.end - whole.start
        parts["rest"] = total - sum(parts.values())
        idle = (total - _covered(whole, kernels)) / steps / 1e3 if kernels else None
        return cls(steps, total / steps / 1e3, {name: time / steps / 1e3 for name, time in parts.items()}, idle)

    def __str__(self) -> str:
        """Return the table as text: ms of a step, and their share of it."""
        rows = [*self.parts.items(), ("a step", self.total)]
        if self.idle is not None:
            rows.append(("GPU idle", self.idle))
        return "\n".join(f"  {name:16}{time:10.3f} ms {time / self.total:8.1%}" for name, time in rows)


def _span(event: FunctionEvent) -> Span:
    return Span(event.name, event.time_range.start, event.time_range.end)


def _on_cpu(event: FunctionEvent) -> bool:
    return bool(event.device_type == DeviceType.CPU)


def _waits(whole: Span, spans: Sequence[Span]) -> float:
    """Return the µs that the loop waited for batches: before each step, since what came before; without the copying."""
    copies = [span for span in spans if span.name == "host to device"]
    others = [Span("", whole.start, whole.start), *(span for span in spans if span.name != "host to device")]
    gaps = [Span("", one.end, other.start) for one, other in pairwise(others) if other.name == "before_step"]
    copied = sum(copy.within(gap) for gap in gaps for copy in copies)
    return sum(gap.within(whole) for gap in gaps) - copied


def _covered(whole: Span, spans: Iterable[Span]) -> float:
    """Return the µs of ``whole`` in which at least one of ``spans`` went on."""
    covered, reached = 0.0, whole.start
    for span in sorted(spans, key=lambda span: span.start):
        covered += max(0.0, min(span.end, whole.end) - max(span.start, reached))
        reached = max(reached, span.end)
    return covered
