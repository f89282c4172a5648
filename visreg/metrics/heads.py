"""Metrics of the heads of a model that has several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from attrs import define, evolve, field
from attrs.validators import min_len

from visreg.data import Batch, Predictions
from visreg.errors import ConfigError, DataError, Problem, suggest
from visreg.metric import Columns, Metric


@define(kw_only=True, eq=False)
class PerHead(Metric):
    """Measures each head with metrics of its own; a score is called ``head/score``, such as ``parity/accuracy``.

    Args:
        heads: metrics by the name of the head, which is that of its task in ``MultiTask``.

    Raises:
        ValueError: if two metrics of a head give the same score.
    """

    heads: Mapping[str, Sequence[Metric]] = field(validator=min_len(1))

    def __attrs_post_init__(self) -> None:
        for name, count in Counter(self.names()).items():
            if count > 1:
                raise ValueError(f"heads: {count} metrics give the score {name!r}; give one another name")

    def names(self) -> tuple[str, ...]:
        return tuple(f"{head}/{name}" for head, _, metric in self._each() for name in metric.names())

    def reset(self) -> None:
        for _, _, metric in self._each():
            metric.reset()

    def update(self, predictions: Predictions, batch: Batch) -> None:
        heads = {name: found for name, found in predictions.items() if isinstance(found, Mapping)}
        unknown = [head for head in self.heads if head not in heads]
        problems = [
            Problem(
                f"heads.{head}",
                f"there is no head {head!r}{suggest(head, heads)}" if heads else "the task has no heads",
            )
            for head in unknown
        ]
        mistakes: list[str] = []
        for head, place, metric in self._each():
            try:
                if head not in unknown:
                    metric.update(dict(heads[head]), batch)
            except ConfigError as error:
                problems += [evolve(each, path=f"heads.{head}.{place}.{each.path}") for each in error.problems]
            except DataError as error:
                mistakes += [f"head {head!r}: {mistake}" for mistake in error.mistakes]
        if problems:
            raise ConfigError([*problems, *(Problem("heads", mistake) for mistake in mistakes)])
        if mistakes:
            raise DataError(*mistakes)

    def compute(self) -> dict[str, float]:
        return {f"{head}/{name}": value for head, _, metric in self._each() for name, value in metric.compute().items()}

    def per_class(self) -> dict[str, list[float]]:
        return {name: values for _, columns in self.tables() for name, values in columns.items()}

    def tables(self) -> Iterator[tuple[str, Columns]]:
        for head, _, metric in self._each():
            for key, columns in metric.tables():
                yield key, {f"{head}/{name}": values for name, values in columns.items()}

    def _each(self) -> Iterator[tuple[str, int, Metric]]:
        return ((head, place, metric) for head, metrics in self.heads.items() for place, metric in enumerate(metrics))
