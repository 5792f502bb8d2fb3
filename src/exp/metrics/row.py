"""One prediction against its reference: all that scores are made of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from jsonschema.protocols import Validator

from exp.config.schema import OutputFormat
from exp.data.output import ParseFailure, encode_normalised, normalise, parse_output, schema_errors
from exp.errors import DataError, UserError, raise_collected
from exp.metrics.comparison import Comparison, compare, compare_equal, compare_nothing
from exp.records import Example, Json, Prediction


class ErrorKind(StrEnum):
    """What can be wrong with a prediction; the order is that of `RowScore.primary_error`."""

    cut = "cut"
    """Ended at the token limit before the output was complete."""
    unparsable = "unparsable"
    """Complete, but no JSON that can be accepted."""
    missing_field = "missing_field"
    """The reference has a field that the prediction lacks."""
    extra_field = "extra_field"
    """The prediction has a field that the reference lacks."""
    wrong_type = "wrong_type"
    """A field has a value of another JSON type than in the reference, like "50" for 50."""
    wrong_value = "wrong_value"
    """A field has another value than in the reference."""
    schema_invalid = "schema_invalid"
    """The output breaks the task's JSON Schema."""
    wrong_order = "wrong_order"
    """The items of a list are right, but not in the order of the reference."""


@dataclass(frozen=True, slots=True)
class RowScore:
    """The verdict on one prediction.

    `value` is what was read from the text, None where nothing could be; a text task's value is its
    text. `errors` is sorted by `ErrorKind`, and empty if and only if the prediction is exact and
    keeps to the schema.
    """

    id: str
    text: str
    reference: Json
    value: Json
    parse_failure: ParseFailure | None
    comparison: Comparison
    exact: bool
    schema_valid: bool | None
    finish_reason: str
    errors: tuple[ErrorKind, ...]

    @property
    def valid(self) -> bool:
        return self.parse_failure is None

    @property
    def primary_error(self) -> ErrorKind | None:
        return self.errors[0] if self.errors else None


def score_row(
    prediction: Prediction,
    example: Example,
    output_format: OutputFormat,
    validator: Validator | None = None,
) -> RowScore:
    """Judge one prediction; whatever its text is, this does not raise."""
    value, failure = _read(prediction.text, output_format)
    predicted, reference = normalise(value), normalise(example.output)
    exact = failure is None and encode_normalised(predicted) == encode_normalised(reference)
    if failure is not None:
        comparison = compare_nothing(reference)
    elif exact:
        comparison = compare_equal(reference)
    else:
        comparison = compare(predicted, reference)
    schema_valid = None
    if validator is not None:
        schema_valid = failure is None and not schema_errors(value, validator)
    cut = prediction.finish_reason == "length" and (
        failure is not None or (output_format is OutputFormat.text and not exact)
    )
    return RowScore(
        id=prediction.id,
        text=prediction.text,
        reference=example.output,
        value=value,
        parse_failure=failure,
        comparison=comparison,
        exact=exact,
        schema_valid=schema_valid,
        finish_reason=prediction.finish_reason,
        errors=_errors(cut, failure, comparison, exact, schema_valid),
    )


def _read(text: str, output_format: OutputFormat) -> tuple[Json, ParseFailure | None]:
    return (text, None) if output_format is OutputFormat.text else parse_output(text)


def _errors(
    cut: bool,
    failure: ParseFailure | None,
    comparison: Comparison,
    exact: bool,
    schema_valid: bool | None,
) -> tuple[ErrorKind, ...]:
    found = {ErrorKind(difference) for difference in comparison.differences}
    if cut:
        found.add(ErrorKind.cut)
    elif failure is not None:
        found.add(ErrorKind.unparsable)
    elif not exact and not comparison.differences:
        found.add(ErrorKind.wrong_order)
    if failure is None and schema_valid is False:
        found.add(ErrorKind.schema_invalid)
    return tuple(kind for kind in ErrorKind if kind in found)


def match_rows(
    predictions: Sequence[Prediction], references: Sequence[Example]
) -> list[tuple[Prediction, Example]]:
    """Pair predictions and references by id, in the order of the references.

    Raises:
        DataError: There is no row, an id is missing or there twice, or a reference has no output.
    """
    by_id = {prediction.id: prediction for prediction in predictions}
    known = {example.id for example in references}
    lacking = [example.id for example in references if example.id not in by_id]
    unknown = [prediction.id for prediction in predictions if prediction.id not in known]
    problems = {
        "examples without a prediction": lacking,
        "predictions without an example": unknown,
        "ids that several predictions have": _repeated([p.id for p in predictions]),
        "ids that several examples have": _repeated([e.id for e in references]),
        "examples without an output to score against": [
            e.id for e in references if e.output is None
        ],
    }
    errors: list[UserError] = [
        DataError(
            f"There are {problem}: {len(ids)}.",
            where="id " + ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else ""),
            fix="score one prediction for each example, with ids that are unique",
        )
        for problem, ids in problems.items()
        if ids
    ]
    if not references:
        errors.append(DataError("There is no row to score.", fix="choose another split=..."))
    raise_collected(errors)
    return [(by_id[example.id], example) for example in references]


def _repeated(ids: Sequence[str]) -> list[str]:
    return [one for one, count in Counter(ids).items() if count > 1]
