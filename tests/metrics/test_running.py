from collections.abc import Sequence

import pytest
import torch

from exp.config.schema import OutputFormat
from exp.metrics.running import RunningScores
from exp.metrics.score_sheet import score_predictions
from exp.records import Example, Json, Prediction

SCHEMA = {"properties": {"a": {"type": "integer"}}}
JSON_TEXTS = ['{"a": 1}', '{"a": 2, "b": "x"}', '{"a": "1"}', "{", "", '{"a": [1, {"c": null}]}']
JSON_OUTPUTS: list[Json] = [{"a": 1}, {"a": 1, "b": "x"}, {"a": 1}, {"a": 1}, {}, {"a": [1]}]
TEXTS = ["el perro come pan", "El gato", "no", "el perro bebe mucha agua", "", "a"]
TEXT_OUTPUTS: list[Json] = ["el perro come pan", "el gato", "si", "el perro bebe agua", "x", "a"]
TASKS = [
    (OutputFormat.json, JSON_TEXTS, JSON_OUTPUTS, SCHEMA),
    (OutputFormat.json, JSON_TEXTS, JSON_OUTPUTS, None),
    (OutputFormat.text, TEXTS, TEXT_OUTPUTS, None),
]


def records(
    texts: Sequence[str], outputs: Sequence[Json]
) -> tuple[list[Prediction], list[Example]]:
    predictions = [Prediction(str(i), text, "stop", 1) for i, text in enumerate(texts)]
    return predictions, [Example(str(i), "", output) for i, output in enumerate(outputs)]


@pytest.mark.parametrize("batch_size", [1, 4, 6])
@pytest.mark.parametrize(("output_format", "texts", "outputs", "schema"), TASKS)
def test_batches_add_up_to_the_scores_of_the_whole(
    output_format: OutputFormat,
    texts: list[str],
    outputs: list[Json],
    schema: dict[str, Json] | None,
    batch_size: int,
) -> None:
    predictions, examples = records(texts, outputs)
    running = RunningScores(output_format, schema)
    for start in range(0, len(texts), batch_size):
        batch = slice(start, start + batch_size)
        running.update(predictions[batch], examples[batch])
    sheet = score_predictions(predictions, examples, output_format, schema)
    expected = {name: score.value for name, score in sheet.scores.items() if score is not None}
    assert {name: value.item() for name, value in running.compute().items()} == expected


def test_a_reset_forgets_the_rows() -> None:
    running = RunningScores(OutputFormat.json)
    predictions, examples = records(JSON_TEXTS, JSON_OUTPUTS)
    running.update(predictions[3:4], examples[3:4])
    running.reset()
    running.update(predictions[:1], examples[:1])
    assert running.compute()["field_f1"].item() == 1


def test_a_copy_keeps_the_rows_and_goes_its_own_way() -> None:
    running = RunningScores(OutputFormat.json, SCHEMA)
    running.update(*records(JSON_TEXTS, JSON_OUTPUTS))
    before = running.compute()
    copy = running.clone()
    assert copy.compute() == before
    copy.update(*records(JSON_TEXTS, JSON_OUTPUTS))
    copy.update(*records(["{"], [{"a": 1}]))
    assert copy.compute() != before
    assert running.compute() == before


def test_two_processes_add_their_rows_up(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, examples = records(JSON_TEXTS, JSON_OUTPUTS)
    halves = [RunningScores(OutputFormat.json) for _ in range(2)]
    halves[0].update(predictions[:2], examples[:2])
    halves[1].update(predictions[2:], examples[2:])
    gathered = {name: getattr(halves[1], f"{name}_sums") for name in halves[1].metrics}

    def gather(state: torch.Tensor, group: object = None) -> list[torch.Tensor]:
        other = next(
            gathered[name]
            for name in halves[0].metrics
            if state is getattr(halves[0], f"{name}_sums")
        )
        return [state, other]

    halves[0].sync(dist_sync_fn=gather, distributed_available=lambda: True)
    whole = RunningScores(OutputFormat.json)
    whole.update(predictions, examples)
    for name in whole.metrics:
        sums = getattr(halves[0], f"{name}_sums")
        assert torch.equal(sums, getattr(whole, f"{name}_sums"))
