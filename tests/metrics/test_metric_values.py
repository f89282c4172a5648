"""Every metric against scikit-learn, over batches of any size, and in the cases where a definition is stretched."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from visreg.metrics.accuracy import Accuracy, TopKAccuracy
from visreg.metrics.confusion import F1, ConfusionMatrix, MeanClassAccuracy, Precision, Recall

AVERAGES = ("macro", "micro", "weighted")
FRACTIONS = {Precision: "precision_score", Recall: "recall_score", F1: "f1_score"}


def random_case(seed):
    """Return targets, predictions and the number of classes; some classes are rare or absent."""
    rng = np.random.default_rng(seed)
    classes, size = int(rng.integers(1, 12)), int(rng.integers(1, 200))
    target = rng.choice(classes, size, p=rng.dirichlet(np.full(classes, 0.3)))
    guess = rng.choice(classes, size, p=rng.dirichlet(np.full(classes, 0.3)))
    return target, np.where(rng.random(size) < rng.random(), target, guess), classes


CASES = {f"seed {seed}": random_case(seed) for seed in range(25)} | {
    "one class": (np.zeros(7, int), np.zeros(7, int), 1),
    "one sample": (np.array([2]), np.array([1]), 3),
    "perfect": (np.array([0, 1, 2, 2]), np.array([0, 1, 2, 2]), 3),
    "all wrong": (np.array([0, 1, 2, 2]), np.array([1, 2, 0, 1]), 3),
    "never predicted": (np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]), 3),
    "never a target": (np.array([0, 1, 1, 0]), np.array([0, 1, 2, 2]), 3),
    "absent classes": (np.array([1, 4, 4]), np.array([4, 4, 1]), 9),
}


@pytest.fixture(params=CASES, name="case")
def case_fixture(request):
    return CASES[request.param]


def score(metric, target, prediction, cuts=()):
    """Return what ``metric`` computes over batches cut at ``cuts``."""
    metric.reset()
    for wanted, guess in zip(np.split(target, cuts), np.split(prediction, cuts), strict=True):
        metric.update({"label": torch.tensor(guess)}, {"label": torch.tensor(wanted)})
    return metric.compute()


def test_accuracy_is_that_of_sklearn(case):
    target, prediction, _ = case
    assert score(Accuracy(), target, prediction)["accuracy"] == sklearn_metrics.accuracy_score(target, prediction)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("kind", FRACTIONS)
def test_fractions_are_those_of_sklearn(case, kind, average):
    target, prediction, classes = case
    metric = kind(num_classes=classes, average=average)
    wanted = getattr(sklearn_metrics, FRACTIONS[kind])(target, prediction, average=average, zero_division=0)
    assert score(metric, target, prediction) == {metric.names()[0]: pytest.approx(wanted, abs=1e-12)}


@pytest.mark.parametrize("kind", FRACTIONS)
def test_columns_are_those_of_sklearn_but_nan_for_absent_classes(case, kind):
    target, prediction, classes = case
    metric = kind(num_classes=classes)
    score(metric, target, prediction)
    wanted = getattr(sklearn_metrics, FRACTIONS[kind])(
        target, prediction, average=None, labels=range(classes), zero_division=0
    )
    present = np.isin(range(classes), [target, prediction])
    wanted = np.where(present, wanted, np.nan).tolist()
    assert metric.per_class() == {metric.title: pytest.approx(wanted, abs=1e-12, nan_ok=True)}


def test_macro_is_the_mean_of_the_column_where_it_is_a_number(case):
    target, prediction, classes = case
    metric = F1(num_classes=classes)
    assert score(metric, target, prediction)["f1"] == pytest.approx(np.nanmean(metric.per_class()["f1"]))


def test_mean_class_accuracy_is_balanced_accuracy(case):
    target, prediction, classes = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of predicted classes without targets
        wanted = sklearn_metrics.balanced_accuracy_score(target, prediction)
    metric = MeanClassAccuracy(num_classes=classes)
    assert score(metric, target, prediction) == {"mean_class_accuracy": pytest.approx(wanted, abs=1e-12)}
    column = metric.per_class()["mean_class_accuracy"]
    assert np.isfinite(column).tolist() == np.isin(range(classes), target).tolist()


def test_confusion_matrix_is_that_of_sklearn(case):
    target, prediction, classes = case
    metric = ConfusionMatrix(num_classes=classes)
    assert score(metric, target, prediction) == {}
    assert metric.names() == ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a single class, labels or no labels
        wanted = sklearn_metrics.confusion_matrix(target, prediction, labels=range(classes))
    assert metric.matrix is not None
    assert metric.matrix.tolist() == wanted.tolist()
    assert metric.matrix.dtype == torch.int64
    assert metric.per_class() == {f"as {index}": wanted[:, index].tolist() for index in range(classes)}


def metrics_for(classes):
    fractions = [kind(num_classes=classes, average=average) for kind in FRACTIONS for average in AVERAGES]
    return [Accuracy(), MeanClassAccuracy(num_classes=classes), ConfusionMatrix(num_classes=classes), *fractions]


def test_batches_of_any_size_give_the_score_of_the_whole(case):
    target, prediction, classes = case
    rng = np.random.default_rng(len(target))
    for metric in metrics_for(classes):
        whole = score(metric, target, prediction), metric.per_class()
        for _ in range(3):
            cuts = np.sort(rng.integers(0, len(target) + 1, rng.integers(1, 6)))  # some batches are empty
            assert score(metric, target, prediction, cuts) == whole[0]
            assert repr(metric.per_class()) == repr(whole[1])  # as text NaN equals NaN


def test_a_pixel_that_is_ignored_does_not_count(case):
    target, prediction, classes = case
    skipped = np.arange(len(target)) % 3 == 2
    for metric in metrics_for(classes):
        wanted = score(metric, target[~skipped], prediction[~skipped]), repr(metric.per_class())
        metric.ignore = 255
        wild = np.where(skipped, 99, prediction)  # nobody minds what was predicted there
        assert (score(metric, np.where(skipped, 255, target), wild), repr(metric.per_class())) == wanted


def test_an_ignored_class_may_still_be_predicted():
    metric = Precision(num_classes=3, ignore=0)
    score(metric, np.array([0, 1, 2]), np.array([0, 0, 2]))
    assert metric.per_class() == {"precision": [0, 0, 1]}
    assert score(Accuracy(ignore=0), np.array([0, 1, 2]), np.array([0, 0, 2])) == {"accuracy": 0.5}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_masks_of_any_whole_dtype_are_counted_pixel_by_pixel(dtype):
    target = torch.randint(0, 40, (2, 5, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    prediction = target.flip(0)
    wanted = sklearn_metrics.confusion_matrix(target.flatten(), prediction.flatten(), labels=range(40))
    metrics = Accuracy(key="mask"), ConfusionMatrix(key="mask", num_classes=40)
    for metric in metrics:
        metric.update({"mask": prediction}, {"mask": target})
    assert metrics[0].compute() == {"accuracy": wanted.trace() / target.numel()}
    metrics[1].compute()
    assert metrics[1].matrix is not None
    assert metrics[1].matrix.tolist() == wanted.tolist()


def top(k, scores, target, cuts=()):
    metric = TopKAccuracy(k=k)
    for some, wanted in zip(np.split(scores, cuts), np.split(target, cuts), strict=True):
        metric.update({"scores": torch.as_tensor(some)}, {"label": torch.as_tensor(wanted)})
    return metric.compute()[f"top{k}_accuracy"]


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_top_k_is_that_of_sklearn(seed, dtype):
    rng = np.random.default_rng(seed)
    classes, size = int(rng.integers(3, 20)), int(rng.integers(1, 60))
    scores = rng.permuted(np.tile(np.linspace(0, 1, classes), (size, 1)), axis=1).astype(dtype)  # no ties
    target = rng.integers(0, classes, size)
    cuts = np.sort(rng.integers(0, size + 1, 3))
    for k in {1, classes // 2, classes - 1}:
        wanted = sklearn_metrics.top_k_accuracy_score(target, scores, k=k, labels=range(classes))
        assert top(k, scores, target) == top(k, scores, target, cuts) == pytest.approx(wanted, abs=1e-12)
    assert top(classes, scores, target) == 1


def test_among_equal_scores_the_lower_index_comes_first():
    scores = np.random.default_rng(0).integers(0, 3, (200, 6)).astype(np.float16)
    target = np.arange(200) % 6
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in range(1, 7):
        assert top(k, scores, target) == (order[:, :k] == target[:, None]).any(axis=1).mean()
    assert top(1, scores, target) == (torch.tensor(scores).argmax(1).numpy() == target).mean()


def test_top_k_of_a_model_that_scores_all_classes_alike_is_chance():
    assert top(2, np.zeros((10, 5), np.float32), np.arange(10) % 5) == 0.4


def test_a_target_whose_score_is_nan_is_wrong():
    scores = np.array([[np.nan, np.nan, np.nan], [0.1, np.nan, 0.2], [0.1, np.nan, 0.2]], np.float32)
    assert top(2, scores, np.array([0, 0, 2])) == pytest.approx(1 / 3)
    assert top(3, scores, np.array([0, 0, 2])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [*metrics_for(4), TopKAccuracy(k=2)], ids=lambda metric: type(metric).__name__)
def test_nothing_seen_is_nan_and_so_it_is_after_a_reset(metric):
    predictions = {"label": torch.tensor([1, 2]), "scores": torch.rand(2, 4)}
    none = {key: value[:0] for key, value in predictions.items()}
    fresh = metric.compute()
    metric.update(none, {"label": none["label"]})
    empty = metric.compute()
    metric.update(predictions, {"label": torch.tensor([0, 1])})
    seen = metric.compute()
    metric.reset()
    for scores in (fresh, empty, metric.compute()):
        assert tuple(scores) == tuple(metric.names()) == tuple(seen)
        assert all(math.isnan(value) for value in scores.values())
    assert all(isinstance(value, float) and math.isfinite(value) for value in seen.values())


def test_columns_of_nothing_are_empty_or_nan():
    unknown, known = Precision(), Precision(num_classes=2)
    for metric in (unknown, known):
        metric.compute()
    assert unknown.per_class() == {}
    assert known.per_class() == {"precision": pytest.approx([math.nan, math.nan], nan_ok=True)}
    assert Accuracy().per_class() == TopKAccuracy().per_class() == ConfusionMatrix().per_class() == {}


def test_columns_and_matrix_stay_as_of_the_last_compute():
    for metric in metrics_for(2)[1:]:
        score(metric, np.array([0, 1]), np.array([0, 1]))
        columns = metric.per_class()
        metric.update({"label": torch.tensor([0, 0])}, {"label": torch.tensor([1, 1])})
        assert metric.per_class() == columns
        metric.compute()
        assert metric.per_class() != columns
