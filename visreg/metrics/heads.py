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
        for head, place, metric in self._each():
            found = predictions.get(head)
            if not isinstance(found, Mapping):
                heads = [name for name, value in predictions.items() if isinstance(value, Mapping)]
                message = f"there is no head {head!r}{suggest(head, heads)}" if heads else "the task has no heads"
                raise ConfigError([Problem(f"heads.{head}", message)])
            try:
                metric.update(dict(found), batch)
            except ConfigError as error:
                inside = f"heads.{head}.{place}"
                raise ConfigError([evolve(each, path=f"{inside}.{each.path}") for each in error.problems]) from error
            except DataError as error:
                raise DataError(f"head {head!r}: {error}") from error

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
