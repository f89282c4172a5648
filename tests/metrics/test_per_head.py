"""Metrics of a model with several heads: the names, and what each gets to see."""

from __future__ import annotations

import pytest
import torch

from visreg.errors import ConfigError, DataError
from visreg.metrics.accuracy import Accuracy, TopKAccuracy
from visreg.metrics.confusion import F1
from visreg.metrics.heads import PerHead

DIGIT = {"label": torch.tensor([1, 2, 3]), "scores": torch.eye(4)[1:]}
PARITY = {"parity": torch.tensor([1, 0, 1]), "scores": torch.eye(2)[[1, 0, 1]]}
FOUND = {"digit": DIGIT, "parity": PARITY}
BATCH = {"label": torch.tensor([1, 2, 0]), "parity": torch.tensor([0, 1, 1])}


def per_head():
    return PerHead(heads={"digit": [Accuracy(), F1()], "parity": [Accuracy(key="parity"), F1(key="parity")]})


def scores(metric, found=FOUND, batch=BATCH):
    metric.reset()
    metric.update(found, batch)
    return metric.compute()


def test_the_scores_are_those_of_each_head_alone():
    metric = per_head()
    found = scores(metric)
    assert list(found) == list(metric.names()) == ["digit/accuracy", "digit/f1", "parity/accuracy", "parity/f1"]
    assert found["digit/accuracy"] == pytest.approx(2 / 3)
    assert found["parity/accuracy"] == pytest.approx(1 / 3)
    assert found["digit/f1"] == scores(F1(), DIGIT)["f1"]
    assert found["parity/f1"] == scores(F1(key="parity"), PARITY)["f1"]


def test_what_is_known_of_each_class_comes_with_the_key_it_is_of():
    metric = per_head()
    scores(metric)
    tables = [(key, {name: len(column) for name, column in columns.items()}) for key, columns in metric.tables()]
    assert [table for table in tables if table[1]] == [("label", {"digit/f1": 4}), ("parity", {"parity/f1": 2})]
    assert metric.per_class().keys() == {"digit/f1", "parity/f1"}


@pytest.mark.parametrize(
    ("heads", "found", "path", "message"),
    [
        ({"pairty": [Accuracy()]}, FOUND, "heads.pairty", "there is no head 'pairty'; did you mean 'parity'?"),
        ({"parity": [Accuracy()]}, PARITY, "heads.parity", "the task has no heads"),
        ({"parity": [Accuracy(key="parity"), TopKAccuracy(key="parity")]}, FOUND, "heads.parity.1.k", "lower k"),
    ],
)
def test_a_mistake_in_the_config_is_placed(heads, found, path, message):
    with pytest.raises(ConfigError) as caught:
        scores(PerHead(heads=heads), found)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert message in problem.message


def test_a_metric_that_asks_a_head_for_what_it_has_not():
    with pytest.raises(DataError, match="head 'parity': Accuracy: found in the predictions no 'label'"):
        scores(PerHead(heads={"parity": [Accuracy()]}))


def test_a_metric_of_no_head_is_told_of_them():
    with pytest.raises(DataError, match="no 'label', but the heads digit, parity; use PerHead"):
        scores(Accuracy())


def test_two_scores_of_one_name_are_refused():
    with pytest.raises(ValueError, match="heads: 2 metrics give the score 'a/accuracy'"):
        PerHead(heads={"a": [Accuracy(), Accuracy(key="parity")]})
    with pytest.raises(ValueError, match="heads"):
        PerHead(heads={})
