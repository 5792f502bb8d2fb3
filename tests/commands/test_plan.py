"""`exp plan`: cards side by side without a GPU, without torch, without a download."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exp.commands import lengths
from exp.config.schema import ModelConfig, Weights

PROFILES = ("t4", "t4x2", "a100", "a100_80", "rtx4090", "rtx5090", "h100", "h200", "cpu")


@pytest.fixture
def task(tmp_path: Path) -> tuple[str, ...]:
    rows = [
        {"id": str(n), "input": "send " + "nails " * (n % 9), "output": {"n": n}} for n in range(30)
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return (
        *("task=jsonl", "task.name=orders", "task.instruction=Write the order as JSON."),
        *(f"task.train={path}", "task.validation_fraction=0", "task.test_fraction=0"),
    )


def lines(text: str) -> dict[str, list[str]]:
    """The words of each line of the table, by the profile that it is about."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in PROFILES and words[1] in ("yes", "no"):
            found[words[0]] = words
    return found


def test_every_profile_has_its_line(
    exp: Callable[..., int], task: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exp("plan", "model=qwen3_8b", "hardware=all", *task) == 0
    printed = capsys.readouterr().out
    table = lines(printed)
    assert set(table) == set(PROFILES)
    assert table["h200"][1] == "yes"
    assert "nf4" in table["t4"]
    assert "type quantization=nf4" in printed
    assert "is not on this machine; lengths are estimated" in printed
    for profile in PROFILES:
        for chosen in ("training.micro_batch_tokens", "training.gradient_checkpointing"):
            assert any(
                line.split()[:2] == [profile, chosen] and len(line.split()) > 4
                for line in printed.splitlines()
            )


def test_a_model_that_fits_nowhere_is_exit_code_1(
    exp: Callable[..., int], task: tuple[str, ...]
) -> None:
    tiny_card = "hardware.memory_gib=1"
    assert exp("plan", "model=qwen3_8b", "hardware=rtx4090", tiny_card, *task) == 1


def test_one_card_shows_its_memory_by_purpose(
    exp: Callable[..., int], task: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exp("plan", "model=tiny", "hardware=t4", *task) == 0
    printed = capsys.readouterr().out
    assert set(lines(printed)) == {"t4"}
    for phase in ("load", "training", "validation"):
        assert any(line.split()[:2] == [phase, "together"] for line in printed.splitlines())
    assert "estimated" not in printed


def test_an_unknown_profile_is_named(
    exp: Callable[..., int], task: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exp("plan", "model=tiny", "profiles=[t5]", *task) == 2
    assert "profiles names t5; there are a100" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_plan_imports_no_torch(task: tuple[str, ...], tmp_path: Path) -> None:
    script = (
        "import sys; from exp import cli; code = cli.main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; raise SystemExit(code)"
    )
    words = ("plan", "model=qwen3_8b", "hardware=all", *task)
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_rows_beyond_the_limit_are_told_in_tokens_also_where_these_are_estimated(
    exp: Callable[..., int], task: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exp("plan", "model=qwen3_8b", "data.max_length_tokens=20", *task) == 2
    error = capsys.readouterr().err
    assert "training rows are longer than 20 tokens" in error
    longest = int(error.partition("the longest has ")[2].partition(".")[0])
    assert exp("plan", "model=qwen3_8b", f"data.max_length_tokens={longest}", *task) in (0, 1)


def test_a_tokenizer_in_the_hub_cache_is_used_and_none_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelConfig(name="x", hub_id="owner/name", weights=Weights.pretrained)
    assert lengths.local_files(model) is None
    for name in lengths.TOKENIZER_FILES:
        (tmp_path / name).touch()
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda _, name, revision: str(tmp_path / name),
    )
    found = lengths.local_files(model)
    assert found is not None
    assert found.folder == tmp_path


@pytest.mark.thorough
def test_a_run_keeps_predicted_beside_measured(trained: object) -> None:
    record = json.loads((trained.run / "run.json").read_text())  # type: ignore[attr-defined]
    memory = record["memory"]
    assert memory["predicted_bytes"] > 0
    assert memory["measured_bytes"] is None or memory["measured_bytes"] > 0
    assert memory["largest_forward"]["tokens"] > 0
    derived = {value["name"]: value for value in record["derived"]}
    assert derived["training.gradient_checkpointing"]["value"] is False
    assert "predicted peak, GiB" in derived


@pytest.mark.thorough
def test_no_profile_at_all_is_a_mistake(
    exp: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exp("plan", "profiles=[]", "model=tiny") == 2
    assert "profiles names none." in capsys.readouterr().err
