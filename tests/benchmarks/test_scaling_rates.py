"""The page's rates are tokens over time of the timed steps, and memory is what was counted."""

import json
from pathlib import Path

import pytest
import rates


def test_a_rate_is_the_tokens_over_the_time_of_the_timed_steps(tmp_path: Path) -> None:
    # The first steps are slow; of the others, one has three times the tokens of the rest.
    points, clock = [], 100.0
    for step in range(1, rates.STEPS + 1):
        seconds, tokens = (10.0, 10) if step < rates.FIRST_TIMED else (2.0, 100)
        if step == rates.STEPS:
            seconds, tokens = 4.0, 300
        clock += seconds
        values = {"train/loss": 1.0, "train/tokens_per_second": tokens / seconds}
        points.append({"step": step, "epoch": 0, "time": clock, "values": values})
    points.append({"step": rates.STEPS, "epoch": 0, "time": clock, "values": {"val/loss": 1.0}})
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(f"{json.dumps(point)}\n" for point in points), encoding="utf-8")
    timed = rates.STEPS - rates.FIRST_TIMED
    outcome = rates.read_outcome(file, peak_rss_gib=2.5, started=90.0)
    assert outcome.tokens_per_second == pytest.approx((100 * timed + 300) / (2 * timed + 4))
    assert outcome == rates.Outcome(outcome.tokens_per_second, 2.5, 20.0)


def test_the_page_compares_with_the_smallest_and_tells_cold_from_warm() -> None:
    outcomes = {
        1_000: [rates.Outcome(700, 2.0, 9.0), rates.Outcome(800, 2.2, 5.0)],
        10_000: [rates.Outcome(750, 2.0, 19.0), rates.Outcome(600, 2.0, 6.0)],
    }
    page = rates.page(outcomes)
    assert "| 1,000 | 750 (700 to 800) | 1.00 | 2.10 | 9.0 | 5.0 |" in page
    assert "| 10,000 | 675 (600 to 750) | 0.90 | 2.00 | 19.0 | 6.0 |" in page


def test_rows_are_orders_with_ids_of_their_own(tmp_path: Path) -> None:
    lines = rates.write_rows(tmp_path / "rows.jsonl", 50).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["id"] for row in rows}) == 50
    assert all(row["input"] and row["output"]["lineas"] is not None for row in rows)
