import json
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from exp.config.schema import OutputFormat
from exp.errors import DataError
from exp.metrics.score_sheet import OTHER_FIELDS, ScoreSheet, score_predictions
from exp.metrics.table import METRICS
from exp.records import Example, Prediction

SCHEMA = {"properties": {"a": {"type": "integer"}}}


def sheet(rows: list[tuple[str, Any]], schema: Any = None, **options: Any) -> ScoreSheet:
    predictions = [Prediction(str(i), text, "stop", 1) for i, (text, _) in enumerate(rows)]
    examples = [Example(str(i), "", reference) for i, (_, reference) in enumerate(rows)]
    return score_predictions(predictions, examples, OutputFormat.json, schema, **options)


def values(scored: ScoreSheet) -> dict[str, float | None]:
    return {name: None if score is None else score.value for name, score in scored.scores.items()}


def test_scores_are_micro_averages_over_rows() -> None:
    scored = sheet(
        [
            ('{"a": 1, "b": 2}', {"a": 1, "b": 2}),
            ('{"a": 1, "b": 3, "c": 4}', {"a": 1, "b": 2}),
            ("nothing", {"a": 1, "b": 2, "d": 3, "e": 4}),
            ('{"a": "x"}', {"a": 1}),
        ],
        SCHEMA,
    )
    tp, fp, fn = 3, 3, 6
    assert values(scored) == pytest.approx(
        {
            "field_f1": 2 * tp / (2 * tp + fp + fn),
            "field_precision": tp / (tp + fp),
            "field_recall": tp / (tp + fn),
            "exact_match": 1 / 4,
            "valid": 3 / 4,
            "schema_valid": 2 / 4,
            "bleu": None,
            "text_match": None,
        }
    )


def test_a_perfect_prediction_of_an_empty_reference_scores_one() -> None:
    scored = sheet([("{}", {})])
    assert {scored.scores[name].value for name in ("field_f1", "exact_match")} == {1.0}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"a": ' + "9" * 10_000 + "}",
        '{"a": 1, "b": {"c": ',
        "[" * 100_000 + "]" * 100_000,
        '{"a": NaN}',
        '{"a": 1, "a": 1}',
        '{"a": 1, "x": "\\ud800"}',
        '{"a": 1, "x": "\ud800"}',
        "\x00",
    ],
)
def test_a_broken_output_scores_zero_and_stays_in_the_mean(text: str) -> None:
    scored = sheet([(text, {"a": 1}), ('{"a": 1}', {"a": 1})], SCHEMA)
    broken = scored.rows[0]
    assert (broken.comparison.total.tp, broken.comparison.total.fn) == (0, 1)
    assert values(scored)["exact_match"] == values(scored)["valid"] == 0.5
    assert values(scored)["field_recall"] == values(scored)["schema_valid"] == 0.5
    assert all(score is None or score.count == 2 for score in scored.scores.values())


def test_nothing_readable_at_all_scores_zero_with_a_zero_interval() -> None:
    scored = sheet([("", {"a": 1})] * 3)
    for name in ("field_f1", "field_precision", "field_recall"):
        score = scored.scores[name]
        assert score is not None
        assert (score.value, score.low, score.high) == (0, 0, 0)


def test_every_metric_has_a_score_or_none_in_scores_json() -> None:
    written = json.loads(json.dumps(sheet([("{}", {})]).to_json(), allow_nan=False))
    assert set(METRICS) < set(written)
    assert written["field_f1"] == {"value": 1.0, "low": 1.0, "high": 1.0, "count": 1}
    assert written["schema_valid"] is None
    assert "rows" not in written


def test_intervals_surround_the_score_and_follow_from_the_seed() -> None:
    rows = [(json.dumps({"a": i % 3, "b": [0] * (i % 7)}), {"a": 1}) for i in range(60)]
    scored = sheet(rows, seed=1)
    score = scored.scores["field_f1"]
    assert score is not None
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.value < score.high
    assert scored.scores == sheet(rows, seed=1).scores
    assert scored.scores != sheet(rows, seed=2).scores


def test_the_interval_of_f1_is_that_of_a_loop_over_resampled_rows() -> None:
    rows = [(json.dumps({"a": i % 3, "b": i % 2}), {"a": 1, "c": 5}) for i in range(80)]
    scored = sheet(rows)
    rng = np.random.default_rng(99)
    plain = []
    for _ in range(1000):
        drawn = [scored.rows[i].comparison.total for i in rng.integers(80, size=80)]
        tp = sum(counts.tp for counts in drawn)
        plain.append(2 * tp / sum(2 * counts.tp + counts.fp + counts.fn for counts in drawn))
    low, high = np.percentile(plain, [2.5, 97.5])
    score = scored.scores["field_f1"]
    assert score is not None
    assert score.low == pytest.approx(low, abs=0.02)
    assert score.high == pytest.approx(high, abs=0.02)


def test_the_field_table_collapses_list_indices_and_unknown_fields() -> None:
    reference = {"lineas": [{"producto": "A", "n": 1}, {"producto": "B", "n": 2}]}
    predicted = {"lineas": [{"producto": "A", "n": 1}, {"producto": "C", "n": 2}], "x": 1, "y": 2}
    fields = {field.path: field for field in sheet([(json.dumps(predicted), reference)]).fields}
    assert list(fields) == ["lineas[].n", "lineas[].producto", OTHER_FIELDS]
    assert fields["lineas[].n"].f1 == 1
    producto = fields["lineas[].producto"]
    assert (producto.precision, producto.recall, producto.support) == (0.5, 0.5, 2)
    assert (fields[OTHER_FIELDS].support, fields[OTHER_FIELDS].predicted) == (0, 2)


def test_errors_and_finish_reasons_are_counted_by_row() -> None:
    predictions = [
        Prediction("1", '{"a": 1', "length", 1),
        Prediction("2", '{"b": 2}', "stop", 1),
        Prediction("3", '{"a": 1}', "stop", 1),
    ]
    examples = [Example(i, "", {"a": 1}) for i in "123"]
    scored = score_predictions(predictions, examples, OutputFormat.json)
    assert {kind: n for kind, n in scored.errors.items() if n} == {
        "cut": 1,
        "missing_field": 1,
        "extra_field": 1,
    }
    assert sum(scored.primary_errors.values()) == 2
    assert scored.finish_reasons == {"length": 1, "stop": 2}


def test_a_text_task_has_bleu_and_text_match_instead_of_fields() -> None:
    predictions = [
        Prediction("1", "El  perro come pan", "stop", 1),
        Prediction("2", "no", "stop", 1),
    ]
    examples = [Example("1", "", "el perro come pan"), Example("2", "", "si")]
    scored = score_predictions(predictions, examples, OutputFormat.text)
    present = {name for name, score in scored.scores.items() if score is not None}
    assert present == {"exact_match", "bleu", "text_match"}
    assert (values(scored)["text_match"], values(scored)["exact_match"]) == (0.5, 0)
    assert scored.fields == ()


def test_a_missing_prediction_is_refused() -> None:
    with pytest.raises(DataError, match="without a prediction"):
        score_predictions([], [Example("1", "", {})], OutputFormat.json)


def test_scoring_imports_no_torch() -> None:
    code = "import sys, exp.metrics.score_sheet; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PIECES = [
    *'{}[]",:\\ \n',
    *('"a"', '"b": ', "1", "-0.0", "1e400", "NaN", "-Infinity", "null", "true", "```json\n"),
    *('{"a": 1}', '{"a": [1, {"b": "x"}]}', '"\\ud800"', "\ud800", "\x00", "é", "e\u0301", "😀"),
    *("9" * 5000, "[" * 70, "{" * 5000, '{"a":' * 100, "]" * 70, "[1]" * 50, "'"),
]


def fuzzed(random_source: random.Random) -> str:
    return "".join(random_source.choices(PIECES, k=random_source.randrange(12)))


@pytest.mark.parametrize(
    ("num_rows", "output_format"),
    [
        (5_000, OutputFormat.json),
        (300, OutputFormat.text),
        pytest.param(100_000, OutputFormat.json, marks=pytest.mark.slow),
        pytest.param(10_000, OutputFormat.text, marks=pytest.mark.slow),
    ],
)
@pytest.mark.thorough
def test_no_fuzzed_text_raises_or_loses_a_row(num_rows: int, output_format: OutputFormat) -> None:
    random_source = random.Random(num_rows)
    predictions = [
        Prediction(str(i), fuzzed(random_source), random_source.choice(["stop", "length"]), 1)
        for i in range(num_rows)
    ]
    output: Any = {"a": [1, {"b": "x"}]} if output_format is OutputFormat.json else "a b"
    examples = [Example(str(i), "", output) for i in range(num_rows)]
    schema = SCHEMA if output_format is OutputFormat.json else None
    scored = score_predictions(predictions, examples, output_format, schema)
    assert [row.id for row in scored.rows] == [example.id for example in examples]
    assert sum(scored.finish_reasons.values()) == num_rows
    if output_format is OutputFormat.json:
        failures = {row.parse_failure for row in scored.rows}
        assert len(failures) > 6, "the fuzz is too tame"
        assert 0 < values(scored)["valid"] < 1  # type: ignore[operator]
    json.dumps(scored.to_json(), allow_nan=False, ensure_ascii=False).encode()
