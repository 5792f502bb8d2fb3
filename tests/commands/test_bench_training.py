import json

import pytest

from exp.commands import bench_training
from exp.training.benchmark import rotation
from exp.training.benchmark.ladder import LADDER

TINY = (
    *("model=tiny", "hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1"),
    *("bench.repetitions=2", "bench.steps=1", "bench.batch_size=4", "bench.micro_batch_size=2"),
)
LENGTHS = ("bench.prompt_tokens=20", "bench.input_tokens=6", "bench.completion_tokens=4")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """A fresh process takes seconds to start."""
    call = lambda function, *arguments: function(*arguments)  # noqa: E731
    monkeypatch.setattr(rotation, "in_fresh_process", call)
    monkeypatch.setattr(bench_training, "LADDER", LADDER[:2])


def figures(folder):
    (result,) = folder.iterdir()
    assert {file.name for file in result.iterdir()} == {
        *("training.json", "training.svg", "training.png")
    }
    return json.loads((result / "training.json").read_text())


@pytest.mark.thorough
def test_the_ladder_is_measured_on_random_token_ids(exp, tmp_path, capsys, monkeypatch):
    # All but the last, since compiling takes half a minute.
    monkeypatch.setattr(bench_training, "LADDER", LADDER[:-1])
    assert exp("bench", "training", *TINY, *LENGTHS, f"output_dir={tmp_path}") == 0
    content = figures(tmp_path)
    assert content["disagreements"] == []
    assert "random token ids: 20 shared" in content["title"]
    names = [rung["rung"] for rung in content["rungs"]]
    assert names[:5] == ["padded", "length_aware", "label_rows", "packed", "shared_prefix"]
    assert all(len(rung["repetitions"]) == 2 for rung in content["rungs"])
    assert content["rungs"][0]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert "+ shared prefix" in capsys.readouterr().out


@pytest.mark.thorough
def test_the_ladder_is_measured_on_the_rows_of_the_task(exp, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"id": str(i), "input": "a" * (i + 1), "output": {"n": i}}) + "\n"
            for i in range(30)
        )
    )
    task = ("task=jsonl", "task.name=mine", f"task.train={rows}", "task.instruction=Count.")
    assert exp("bench", "training", *TINY, *task, f"output_dir={tmp_path / 'out'}") == 0
    assert "; mine: " in figures(tmp_path / "out")["title"]


@pytest.mark.thorough
def test_rungs_that_do_not_compute_the_same_make_the_command_fail(exp, tmp_path, monkeypatch):
    monkeypatch.setattr(
        bench_training, "disagreements", lambda *_, **__: ["+ packed: loss 3, but 2"]
    )
    assert exp("bench", "training", *TINY, *LENGTHS, f"output_dir={tmp_path}") == 1
    assert figures(tmp_path)["disagreements"] == ["+ packed: loss 3, but 2"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("bench", "trainig"), "training"),
        (("bench",), "what is not set"),
        (("bench", "training", "bench.steps=0"), "bench.steps is 0"),
        (("bench", "training", "bench.prompt_token=3"), "bench.prompt_tokens"),
    ],
)
def test_a_mistake_is_said_in_three_lines(exp, capsys, words, says):
    assert exp(*words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.thorough
def test_a_setting_of_the_other_benchmark_is_a_warning(exp, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert exp("bench", "training", *TINY, *LENGTHS, "limit=3", "output_dir='~/figures'") == 0
    assert "limit has no effect" in capsys.readouterr().err
    assert figures(tmp_path / "figures")["what"] == "training"


@pytest.mark.thorough
def test_several_runs_are_refused_and_none_is_left_out(exp, trained, capsys):
    assert exp("bench", "training", f"run=[{trained.run},{trained.run}]") == 2
    assert "takes one run" in capsys.readouterr().err
