"""Evaluating a checkpoint: the scores of training, as a table and as JSON."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import tiny_config

from visreg.build import build_runner
from visreg.checkpoint import load, newest, save
from visreg.config import config_from
from visreg.errors import CheckpointError, ResourceError
from visreg.evaluate import PerClass, Result, evaluate_checkpoint, print_scores, write_scores


@pytest.fixture(scope="module", name="trained")
def trained_fixture(tmp_path_factory):
    """The config, the runner and the newest checkpoint of a short run."""
    folder = tmp_path_factory.mktemp("work")
    run = {"epochs": 3, "work_dir": str(folder)}
    metrics = [{"type": "Accuracy"}, {"type": "F1"}, {"type": "Recall"}, {"type": "ConfusionMatrix"}]
    hooks = [{"type": "EMA", "decay": 0.5}, {"type": "Checkpoint"}]
    values = tiny_config(metrics=metrics, hooks=hooks, run=run, test={
        "dataset": {"type": "Digits", "size": 16}, "batch_size": 77,
    })  # fmt: skip
    runner = build_runner(values)
    runner.train()
    return values, runner, newest(folder / "checkpoints")[0]


def test_it_agrees_exactly_with_the_last_validation_of_training(trained):
    values, runner, path = trained
    for config in (None, config_from(values)):
        found = evaluate_checkpoint(path, config, "val")
        assert found.scores == runner.scores
        assert (found.step, found.split, found.data) == (12, "val", "digits (scikit-learn, not MNIST)")
        assert {table.classes for table in found.per_class} == {tuple("0123456789")}


def test_the_test_split_is_taken_where_there_is_one(trained):
    _, runner, path = trained
    assert evaluate_checkpoint(path).split == "test"
    assert evaluate_checkpoint(path).scores != runner.scores
    assert evaluate_checkpoint(path, overrides=["test=None"]).split == "val"


def test_the_scores_are_those_of_predictions_made_by_hand(trained):
    """With the averaged weights, over all samples at once, by sums of my own."""
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

    values, runner, path = trained
    state = load(path)
    task = build_runner({**values, "hooks": []}).task.eval()
    task.load_state_dict(state["hooks"][0]["state"]["average"])
    tensors = runner.val_loader.tensors
    predicted, label = task.predict(tensors)["label"], tensors["label"]
    found = evaluate_checkpoint(path, split="val")
    assert found.scores["accuracy"] == accuracy_score(label, predicted)
    assert found.scores["f1"] == pytest.approx(f1_score(label, predicted, average="macro", zero_division=0))
    columns = {name: column for table in found.per_class for name, column in table.columns.items()}
    recall = recall_score(label, predicted, average=None, zero_division=0)
    assert columns["recall"] == pytest.approx(recall.tolist())
    matrix = confusion_matrix(label, predicted)
    assert [column for column in columns.values() if column in matrix.T.tolist() or column in matrix.tolist()]


def test_the_json_has_every_score_and_one_value_for_each_class(trained):
    found = evaluate_checkpoint(trained[2], split="val")
    write_scores(found)
    written = json.loads((trained[2].parents[1] / "test.json").read_text())
    assert written["scores"] == found.scores
    assert (written["step"], written["split"], written["data"]) == (12, "val", found.data)
    assert written["checkpoint"] == str(trained[2])
    assert {"f1", "recall"} <= written["per_class"].keys()
    for name, column in written["per_class"].items():
        assert list(column) == list("0123456789"), name
        assert all(isinstance(value, (int, float)) for value in column.values())


def table(*classes, **columns):
    return PerClass(classes or ("cat", "dog"), columns)


def result(tmp_path, **changes):
    found = {
        "checkpoint": tmp_path / "best.pt", "step": 3, "data": "pets", "split": "val",
        "scores": {"accuracy": 0.75}, "per_class": (table(recall=[0.5, float("nan")]),),
    }  # fmt: skip
    return Result(**{**found, **changes})


def test_what_is_not_a_number_is_null(tmp_path):
    write_scores(result(tmp_path, scores={"accuracy": float("nan")}))  # beside a checkpoint that is in no such folder
    written = json.loads((tmp_path / "test.json").read_text())
    assert written["scores"] == {"accuracy": None}
    assert written["per_class"] == {"recall": {"cat": 0.5, "dog": None}}


def test_classes_without_a_name_have_their_number(tmp_path):
    write_scores(result(tmp_path, per_class=(table("cat", recall=[0.5, float("nan")]),)), tmp_path / "other.json")
    assert json.loads((tmp_path / "other.json").read_text())["per_class"]["recall"] == {"cat": 0.5, "1": None}


def test_a_file_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ResourceError, match="cannot write the scores: No such file or directory; give --out FILE"):
        write_scores(result(tmp_path), tmp_path / "nowhere" / "test.json")


def test_the_tables(tmp_path, capsys):
    tables = table(recall=[0.5, float("nan")]), table(cat=[3.0, 0.0], dog=[1.0, 12.0])
    print_scores(result(tmp_path, per_class=tables))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}/best.pt (step 3), val on pets"
    cells = [[cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")] for line in lines]
    assert ["accuracy", "0.7500"] in cells
    assert ["class", "recall"] in cells
    assert ["cat", "0.5000"] in cells
    assert ["dog", "nan"] in cells
    assert ["class", "cat", "dog"] in cells
    assert ["dog", "0", "12"] in cells


@pytest.mark.parametrize(("classes", "columns"), [(101, 1), (3, 21)])
def test_a_table_that_fits_no_screen_is_left_to_the_json(tmp_path, capsys, classes, columns):
    columns_of = {f"column {number}": [0.5] * classes for number in range(columns)}
    print_scores(result(tmp_path, per_class=(table(**columns_of),)))
    out = capsys.readouterr().out
    assert f"{classes} classes × {columns} columns (column 0" in out
    assert "see test.json" in out
    assert "0.5000" not in out


def test_a_checkpoint_of_other_classes_is_refused(trained, tmp_path):
    state = load(trained[2])
    old = {key: value for key, value in state.items() if key != "class_names"}  # of before there was such a thing
    swapped = [*"102", *"3456789"]
    for other in ({**old, "classes": swapped}, {**state, "class_names": {"label": swapped}}):
        save(other, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match="0: '1' in the checkpoint, '0' in the data\n  1: '0' in the check"):
            evaluate_checkpoint(tmp_path / "other.pt", split="val")
    save(old, tmp_path / "old.pt")
    assert (
        evaluate_checkpoint(tmp_path / "old.pt", split="val").scores
        == evaluate_checkpoint(trained[2], split="val").scores
    )


def test_classes_are_compared_and_named_by_what_they_are_of(tmp_path):
    """Masks with a background, and boxes without one, of one dataset; the masks alone are the same classes."""
    folder = str(tmp_path / "work")
    scenes = {"type": "ShapeScenes", "size": 4, "image_size": 32, "targets": ["boxes", "mask"]}
    values = tiny_config(
        task={"type": "SemanticSegmentation"}, model={"type": "UNet", "num_classes": 8, "width": 4, "depth": 1},
        metrics=[{"type": "MeanIoU"}], train={"dataset": scenes, "batch_size": 4},
        val={"dataset": scenes, "batch_size": 4}, run={"epochs": 1, "work_dir": folder},
        default_hooks=[{"type": "Checkpoint"}],
    )  # fmt: skip
    build_runner(values).train()
    path = newest(tmp_path / "work" / "checkpoints")[0]
    state = load(path)
    assert state["classes"] == state["class_names"]["labels"] == state["class_names"]["mask"][1:]
    found = evaluate_checkpoint(path)
    write_scores(found)
    written = json.loads((tmp_path / "work" / "test.json").read_text())
    assert [*written["per_class"]["mean_iou"]] == state["class_names"]["mask"]
    only_masks = evaluate_checkpoint(path, overrides=['val.dataset.targets=["mask"]'])
    assert only_masks.scores == found.scores
    names = {**state["class_names"], "mask": state["class_names"]["mask"][::-1]}
    save({**state, "class_names": names}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="the classes of 'mask' are not the checkpoint's"):
        evaluate_checkpoint(tmp_path / "other.pt")


def test_a_checkpoint_of_another_model_is_refused(trained):
    with pytest.raises(CheckpointError, match=r"of another model:\n  model.features.0.bias: \(8,\) in the checkpoint"):
        evaluate_checkpoint(trained[2], overrides=["model.widths=[9]"])


def test_the_generator_and_the_checkpoint_are_left_as_they_were(trained):
    before = trained[2].read_bytes()
    scores = [evaluate_checkpoint(trained[2], split="val").scores for _ in range(2)]
    assert scores[0] == scores[1]
    assert trained[2].read_bytes() == before
    assert torch.is_grad_enabled()
