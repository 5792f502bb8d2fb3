import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from exp.commands import scoring
from exp.commands.scoring import Scored, keep_scored, read_scores
from exp.config.schema import OutputFormat
from exp.data.task import Task
from exp.errors import CheckpointError
from exp.metrics.score_sheet import score_predictions
from exp.records import Example, Prediction
from exp.rundir import RunDir


def test_splits_that_are_scored_at_once_are_all_kept(tmp_path, monkeypatch):
    task = Task("orders", "Write text.", OutputFormat.text, None, None, "bleu", {})
    examples, predictions = [Example("1", "x", "y")], [Prediction("1", "y", "stop", 1)]
    sheet = score_predictions(predictions, examples, OutputFormat.text)
    scored = Scored(examples, predictions, sheet)

    def read_slowly(path):
        content = read_scores(path)
        time.sleep(0.05)
        return content

    monkeypatch.setattr(scoring, "read_scores", read_slowly)
    splits = ("train", "validation", "test")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda s: keep_scored(RunDir(tmp_path), s, "after", task, scored), splits))
    assert read_scores(RunDir(tmp_path).scores).keys() == set(splits)


def test_a_damaged_file_of_scores_is_named(tmp_path):
    path = RunDir(tmp_path).scores
    path.write_text('{"test": ')
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        read_scores(path)
    assert caught.value.where == str(path)
