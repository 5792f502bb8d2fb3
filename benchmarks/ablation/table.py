"""Write docs/results/ablation.md from the runs that run.py left.

Run from the checkout: `python benchmarks/ablation/table.py`.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from results import Estimate, Results, difference, estimate, read_results
from trials import (
    ARMS,
    BASELINE,
    DATA_SETS,
    SEEDS,
    SHARED,
    VIGGO,
    WORKER,
    Arm,
    DataSet,
    Trial,
    all_trials,
)

from exp.errors import UserError

CHECKOUT = Path(__file__).parents[2]
TARGET = CHECKOUT / "docs" / "results" / "ablation.md"

TEXT = """# Ablation: what each optimisation brings

One factor at a time from the baseline recipe (`experiment=canonicalization_baseline`, here without
warmup) to the optimised one (`experiment=canonicalization_optimized`, with augmentation).
{done} of {planned} trials are done: {num_arms} arms, {num_data_sets} data sets, {num_seeds} seeds.

All trials: {model}, {steps} optimizer steps of {batch_size} examples, AdamW at a learning rate of
{lr:g}, which is the same for all arms and was tuned for none, {test_rows} test rows.
Code: {commits}.

**What a short budget means.** A trial sees {examples} examples, with augmentation too (half of
them are variants then): {passes}.
So this measures how far an arm gets in few steps, where whatever learns faster looks better, and
not where it ends. Several passes over the same rows, where augmentation should help the most, come
with the fewest rows alone. With a learning rate of its own, an arm may do better.

**How to read it.** A seed chooses the adapter's start, the order of the examples, the training rows
where not all of them are taken, and the test rows. All arms of a seed share these, so differences
are taken seed by seed. Means come with their 95% interval by Student's t over the seeds; three
seeds make wide ones (4.3 standard errors each way). Of {num_differences} differences that are none,
one is expected to look like one. The claims do not say per cent of what: "points" are hundredths of
field F1, "relative" is the share of the baseline's field F1.

## Differences to the baseline, in points of test field F1

An asterisk marks those whose interval excludes 0.

{summary}

{sections}

## Commands

```
for core in 0 1; do
    taskset -c $core python benchmarks/ablation/run.py --viggo {viggo} &
done
python benchmarks/ablation/table.py
```

`{viggo}` holds ViGGO (jjuraska/slug2slug, CC BY-SA 4.0) as train.jsonl, validation.jsonl and
test.jsonl, each row with `text`, and `target`: an object with `function` and `attributes`. Each
worker runs trials that are not done yet. A trial is the following command, one line of either list
in its place, and a seed of {seeds}:

```
exp train {shared} <data set> <arm> seed=<seed> {worker}
```

| data set | |
| --- | --- |
{data_words}

| arm | |
| --- | --- |
{arm_words}

One factor alone as a sweep of Hydra's:

```
exp train --multirun experiment=ablation lora=baseline,standard seed=0,1,2
```
"""


def main() -> int:
    """Write the page; 2 if there is nothing to write, or runs do not go together."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/ablation"), help="of the runs")
    parser.add_argument("--output", type=Path, default=TARGET, help="the page")
    options = parser.parse_args()
    try:
        text = page(read_results(all_trials(), options.folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    options.output.write_text(text, encoding="utf-8")
    return 0


def page(results: Results) -> str:
    """Render the page from the trials that are done."""
    budget = next(iter(results.values())).budget
    examples = budget.steps * budget.batch_size
    planned = list(all_trials())
    return TEXT.format(
        done=len(results),
        planned=len(planned),
        num_arms=len(ARMS),
        num_data_sets=len(DATA_SETS),
        num_seeds=len(SEEDS),
        model=budget.model,
        steps=budget.steps,
        batch_size=budget.batch_size,
        lr=budget.lr,
        test_rows=budget.test_rows,
        commits=", ".join(sorted({f"`{result.commit}`" for result in results.values()})),
        examples=examples,
        passes="; ".join(
            f"{examples / data.rows:.2g} passes over {data.title}" for data in DATA_SETS
        ),
        num_differences=(len(ARMS) - 1) * len(DATA_SETS),
        summary=summary(results),
        sections="\n\n".join(section(results, data) for data in DATA_SETS),
        viggo=VIGGO,
        seeds=", ".join(map(str, SEEDS)),
        shared=SHARED,
        worker=WORKER,
        data_words=_words(DATA_SETS),
        arm_words=_words(ARMS),
    )


def summary(results: Results) -> str:
    """Render one row per arm and one column per data set."""
    rows = []
    for arm in ARMS:
        if arm is not BASELINE:
            cells = [_points(difference(results, data, arm)) for data in DATA_SETS]
            rows.append([arm.name, arm.change, _claim(arm), *cells])
    return _table(["arm", "change", "claimed", *(data.title for data in DATA_SETS)], rows)


def section(results: Results, data: DataSet) -> str:
    """Render the scores on one data set, a row per arm."""
    rows = []
    for arm in ARMS:
        found = [results[t] for seed in SEEDS if (t := Trial(data, arm, seed)) in results]
        compared = None if arm is BASELINE else difference(results, data, arm)
        rows.append(
            [
                arm.name,
                str(len(found)),
                _interval(estimate([one.field_f1 for one in found])) if found else "-",
                f"{statistics.fmean(one.exact_match for one in found):.3f}" if found else "-",
                "-" if compared is None else _interval(compared[0], scale=100, digits=1, sign="+"),
                "-" if compared is None else _share(compared[1]),
                _claim(arm),
            ]
        )
    head = ["arm", "trials", "field F1", "exact match", "points", "relative", "claimed"]
    return f"## {data.title}\n\n{_table(head, rows)}"


def _points(compared: tuple[Estimate, float] | None) -> str:
    if compared is None:
        return "-"
    mark = r" \*" if compared[0].excludes_zero else ""
    return f"{100 * compared[0].mean:+.1f}{mark}"


def _interval(value: Estimate, scale: float = 1, digits: int = 3, sign: str = "-") -> str:
    text = f"{scale * value.mean:{sign}.{digits}f}"
    if value.low is None or value.high is None:
        return text
    low, high = (f"{scale * edge:{sign}.{digits}f}" for edge in (value.low, value.high))
    return f"{text} ({low} to {high})"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.0%}"


def _words(choices: Sequence[Arm] | Sequence[DataSet]) -> str:
    """Render what each of them adds to the command line."""
    shown = ((one.name, " ".join(one.overrides)) for one in choices)
    return "\n".join(f"| {name} | {f'`{words}`' if words else '-'} |" for name, words in shown)


def _claim(arm: Arm) -> str:
    return f"+{arm.claim}" if arm.claim else "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
