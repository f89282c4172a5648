"""What a metric makes of its options, and of predictions and batches that do not fit."""

import attrs
import pytest
import torch

from visreg.errors import ConfigError, DataError
from visreg.metrics.accuracy import Accuracy, TopKAccuracy
from visreg.metrics.confusion import F1, ConfusionMatrix, MeanClassAccuracy, Precision, Recall

COUNTING = (Precision, Recall, F1, MeanClassAccuracy, ConfusionMatrix)
ALL = (Accuracy, TopKAccuracy, *COUNTING)


def outputs(device="cpu"):
    predictions = {"label": torch.zeros(6, dtype=torch.int64, device=device), "scores": torch.ones(6, 7, device=device)}
    return predictions, {"label": torch.arange(6, device=device)}


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        *((kind, "key", value) for kind in ALL for value in ("", 1, None)),
        *((kind, "num_classes", value) for kind in COUNTING for value in (0, -1, 2.5, "10")),
        *((kind, "ignore", value) for kind in (Accuracy, *COUNTING) for value in ("255", 0.5)),
        *((kind, "average", value) for kind in (Precision, Recall, F1) for value in ("Macro", None, [])),
        *((kind, "name", value) for kind in ALL[:-1] for value in ("", 3)),
        *((TopKAccuracy, "k", value) for value in (0, -1, "5", None, 1.5)),
        (TopKAccuracy, "scores", ""),
    ],
)
def test_a_bad_option_is_refused_with_or_without_building(kind, option, value):
    field = attrs.fields_dict(kind)[option]
    with pytest.raises((TypeError, ValueError), match=option):
        field.validator(None, field, value)
    with pytest.raises((TypeError, ValueError), match=option):
        kind(**{option: value})


@pytest.mark.parametrize("kind", ALL)
def test_repr_is_the_configuration(kind):
    metric = kind()
    metric.update(*outputs())
    shown = repr(metric)
    assert shown.startswith((f"{kind.__name__}(key='label'", "TopKAccuracy(k=5, key='label'"))
    assert "tensor" not in shown


def test_names_tell_averages_apart():
    metrics = [kind(average=average) for kind in (Precision, Recall, F1) for average in ("macro", "micro", "weighted")]
    metrics += [Accuracy(), TopKAccuracy(), TopKAccuracy(k=3), MeanClassAccuracy()]
    names = [name for metric in metrics for name in metric.names()]
    assert names[:4] == ["precision", "precision_micro", "precision_weighted", "recall"]
    assert names[-4:] == ["accuracy", "top5_accuracy", "top3_accuracy", "mean_class_accuracy"]
    assert len(set(names)) == len(names) == 13


@pytest.mark.parametrize("kind", ALL[:-1])
def test_a_name_of_ones_own_is_used_throughout(kind):
    metric = kind(name="mine")
    metric.update(*outputs())
    assert tuple(metric.compute()) == metric.names() == ("mine",)
    assert set(metric.per_class()) <= {"mine"}


@pytest.mark.parametrize("kind", ALL)
def test_a_missing_key_is_named_with_a_proposal(kind):
    predictions, batch = outputs()
    with pytest.raises(DataError, match=rf"{kind.__name__}: .*batch no 'label'; set key='lable'"):
        kind().update(predictions, {"lable": batch["label"]})
    wrong = {"lable": predictions["label"], "score": predictions["scores"]}
    advice = rf"{kind.__name__}: .*predictions no '(label|scores)'; (set key=|did you mean)"
    with pytest.raises(DataError, match=advice):
        kind().update(wrong, batch)


@pytest.mark.parametrize("kind", ALL)
def test_a_list_is_no_tensor(kind):
    predictions, _ = outputs()
    with pytest.raises(DataError, match="a list as 'label'"):
        kind().update(predictions, {"label": [1, 2, 3]})


@pytest.mark.parametrize("kind", ALL)
def test_shapes_that_would_broadcast_are_refused(kind):
    predictions, batch = outputs()
    with pytest.raises(DataError, match=r"\(6, 1\)"):
        kind().update(predictions, {"label": batch["label"][:, None]})


@pytest.mark.parametrize("kind", [TopKAccuracy, *COUNTING])
def test_soft_labels_are_no_class_indices(kind):
    predictions, batch = outputs()
    with pytest.raises(DataError, match="true 'label' is float32; give class indices"):
        kind().update(predictions, {"label": batch["label"].float()})


@pytest.mark.parametrize("bad", [-1, 7, 255, 2**40, -(2**40)])
@pytest.mark.parametrize("kind", [TopKAccuracy, *COUNTING])
def test_a_target_outside_the_classes_is_an_error_at_compute(kind, bad):
    predictions, batch = outputs()
    metric = kind()
    metric.update(predictions, {"label": torch.full((6,), bad)})
    metric.update(predictions, batch)  # that later batches are fine does not matter
    low, high = min(0, bad), max(5, bad)
    with pytest.raises(DataError, match=f"true 'label' run from {low} to {high}, but the 7 classes are 0 to 6"):
        metric.compute()
    metric.reset()
    metric.update(predictions, batch)
    metric.compute()


@pytest.mark.parametrize("kind", COUNTING)
def test_a_prediction_outside_the_classes_is_an_error_at_compute(kind):
    metric = kind(num_classes=7)
    metric.update({"label": torch.arange(6) * 2}, outputs()[1])
    with pytest.raises(DataError, match="predicted 'label' run from 0 to 10"):
        metric.compute()


@pytest.mark.parametrize("kind", COUNTING)
def test_the_number_of_classes_comes_from_the_option_or_from_fitting_scores(kind):
    predictions, batch = outputs()
    maps = {"mask": torch.zeros(2, 3, 3, dtype=torch.int64)}
    for found, key in ((predictions | maps, "mask"), ({"label": predictions["label"]}, "label")):
        with pytest.raises(ConfigError, match="num_classes") as caught:
            kind(key=key).update(found, batch | maps)
        assert caught.value.problems[0].path == "num_classes"
    kind(key="mask").update(maps | {"scores": torch.ones(2, 7, 3, 3)}, maps)
    kind(key="mask", num_classes=7).update(maps, maps)
    kind().update(predictions, batch)


def test_k_above_the_number_of_classes_is_a_mistake_in_the_config():
    with pytest.raises(ConfigError, match="the 8 best of 7 classes are asked for; lower k"):
        TopKAccuracy(k=8).update(*outputs())
    TopKAccuracy(k=7).update(*outputs())


def test_scores_may_not_change_their_width():
    metric = TopKAccuracy(k=2)
    metric.update(*outputs())
    with pytest.raises(DataError, match=r"\(6, 5\).*expected \(N, 7\)"):
        metric.update({"scores": torch.ones(6, 5)}, {"label": torch.zeros(6, dtype=torch.int64)})


@pytest.mark.parametrize("kind", ALL)
def test_an_update_reads_no_value(kind):
    """Meta tensors have none, so that whatever would wait for a device fails on them."""
    options = {"ignore": 3} if "ignore" in attrs.fields_dict(kind) else {}
    metric = kind(**options)
    for _ in range(2):
        metric.update(*outputs("meta"))
    assert metric.counts.device.type == "meta"


@pytest.mark.parametrize("kind", ALL)
def test_batches_may_come_in_and_out_of_inference_mode(kind):
    metric, wanted = kind(), kind()
    with torch.inference_mode():
        metric.update(*outputs())
    metric.update(*outputs())
    for _ in range(2):
        wanted.update(*outputs())
    assert (metric.compute(), repr(metric.per_class())) == (wanted.compute(), repr(wanted.per_class()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ALL)
def test_a_gpu_is_not_waited_for_and_counts_the_same(kind):
    metric, wanted = kind(), kind()
    predictions, batch = outputs("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            metric.update(predictions, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for _ in range(2):
        wanted.update(*outputs())
    assert (metric.compute(), repr(metric.per_class())) == (wanted.compute(), repr(wanted.per_class()))
