import pytest

from exp.report.scores import Estimate, score_rows


def test_scores_are_paired_by_name_and_other_entries_are_no_scores() -> None:
    before = {"field_f1": {"value": 0.1, "low": 0.0, "high": 0.2, "count": 9}, "bleu": None}
    after = {
        "field_f1": {"value": 0.7, "low": 0.6, "high": 0.8, "count": 9},
        "valid": {"value": 1},
        "errors": {"value": {}, "cut": 3},
        "fields": [{"f1": 1}],
    }
    first, second = score_rows(before, after)
    assert (first.name, first.before) == ("field_f1", Estimate(0.1, 0.0, 0.2, 9))
    assert first.difference == pytest.approx(0.6)
    assert (second.name, second.before, second.after) == ("valid", None, Estimate(1))
    assert second.difference is None


def test_a_sheet_that_is_missing_is_no_error() -> None:
    assert score_rows(None, None) == ()
    (row,) = score_rows({"valid": {"value": 0.5}}, None)
    assert (row.before, row.after) == (Estimate(0.5), None)


def test_an_estimate_shows_its_interval_where_it_has_one() -> None:
    assert str(Estimate(0.5)) == "0.500"
    assert str(Estimate(0.5, 0.4, 0.61234)) == "0.500 (0.400 to 0.612)"
