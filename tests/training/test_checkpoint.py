import errno
import json
import os
import pickle
import random
import shutil

import pytest
import torch

from exp.errors import CheckpointError
from exp.publish import PublishError, clean_staging
from exp.rundir import RunDir
from exp.training.checkpoint import (
    ADAPTER,
    find_checkpoint,
    mark_best,
    prune_checkpoints,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from exp.training.manifest import MANIFEST, seal, unseal

CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")
CONFIG = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}


class Killed(BaseException):
    """The process is gone: nothing that follows may reach the disk."""


def fail_at(monkeypatch, k, error=None):
    """Let the k-th call that changes the disk fail, or kill there; count the calls."""
    calls = []

    def hook(name, real):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) - 1 == k and error:
                raise OSError(error, os.strerror(error))
            if len(calls) - 1 == k and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            if len(calls) - 1 >= k and not error:
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, hook(name, getattr(os, name)))
    return calls


def count_calls(folder, monkeypatch):
    run = new_run(folder)
    write(run, 10)
    with monkeypatch.context() as patch:
        calls = fail_at(patch, 10**9)
        write(run, 20)
    return len(calls)


def tensors(step):
    generator = torch.Generator().manual_seed(step)
    return {
        "base_model.model.q_proj.lora_A.weight": torch.randn(2, 4, generator=generator),
        "base_model.model.q_proj.lora_B.weight": torch.randn(4, 2, generator=generator),
    }


def write(run, step, **state):
    moments = {
        "state.0.exp_avg": torch.full((2, 4), float(step)),
        "state.0.step": torch.tensor(1.0),
    }
    return write_checkpoint(run, step, tensors(step), CONFIG, moments, {"step": step, **state})


def new_run(path):
    path.mkdir(exist_ok=True)
    return RunDir(path)


@pytest.fixture
def run(tmp_path):
    return new_run(tmp_path / "run")


def break_file(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def names(paths):
    return [path.name for path in paths]


def content(folder):
    return sorted(names(folder.iterdir()))


def steps_on_disk(run):
    return sorted(path.name for path in run.checkpoints.glob("step_*"))


def test_a_checkpoint_reads_back_bit_for_bit(run):
    state = {"epoch": 0.1, "counts": [1, 2], "note": "ñ"}
    found = read_checkpoint(write(run, 120, **state))
    assert found.step == 120
    assert found.adapter_config == CONFIG
    assert found.state == {"step": 120, **state}
    expected = tensors(120)
    assert found.adapter.keys() == expected.keys()
    assert all(torch.equal(found.adapter[name], expected[name]) for name in expected)
    assert torch.equal(found.optimizer_tensors["state.0.exp_avg"], torch.full((2, 4), 120.0))


def test_a_checkpoint_has_the_files_of_the_run_folder_design(run):
    path = write(run, 120)
    assert path == run.path / "checkpoints" / "step_000120"
    assert content(path) == [
        "MANIFEST.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    pointer = json.loads((run.checkpoints / "last.json").read_text())
    assert (pointer["name"], pointer["step"]) == ("step_000120", 120)


def test_the_same_content_gives_the_same_bytes(run, tmp_path):
    other = new_run(tmp_path / "other")
    first, second = write(run, 7), write(other, 7)
    for name in content(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_tied_and_transposed_tensors_are_kept(run):
    base = torch.arange(6.0).reshape(2, 3)
    path = write_checkpoint(run, 1, {"a": base, "b": base, "t": base.T}, CONFIG, {}, {})
    found = read_checkpoint(path)
    assert torch.equal(found.adapter["b"], base)
    assert torch.equal(found.adapter["t"], base.T)
    assert found.optimizer_tensors == {}


def test_a_kill_at_any_call_leaves_the_previous_or_the_new_checkpoint(tmp_path, monkeypatch):
    total = count_calls(tmp_path / "count", monkeypatch)
    found = []
    for k in range(total):
        run = new_run(tmp_path / f"run{k}")
        write(run, 10)
        with monkeypatch.context() as patch:
            fail_at(patch, k)
            with pytest.raises(Killed):
                write(run, 20)
        found.append(find_checkpoint(run, "last").name)
        clean_staging(run.checkpoints)
        assert set(content(run.checkpoints)) <= {"last.json", "step_000010", "step_000020"}
        assert read_checkpoint(find_checkpoint(run, "last")).step in (10, 20)
        # The next attempt must not trip over what the first one left.
        assert write(run, 20) == find_checkpoint(run, "last")
    assert total >= 30
    assert found == sorted(found)
    assert set(found) == {"step_000010", "step_000020"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_refusal_at_any_call_is_told_and_spares_the_previous(tmp_path, monkeypatch, number):
    total = count_calls(tmp_path / "count", monkeypatch)
    for k in range(total):
        run = new_run(tmp_path / f"run{k}")
        write(run, 10)
        with monkeypatch.context() as patch:
            fail_at(patch, k, number)
            with pytest.raises(PublishError, match="bytes are needed") as caught:
                write(run, 20)
        assert str(run.checkpoints) in caught.value.what
        verify_checkpoint(run.checkpoint(10))
        assert find_checkpoint(run, "last").name in ("step_000010", "step_000020")
        assert not list(run.checkpoints.glob(".staging-*"))


def test_a_manifest_cut_at_any_byte_is_noticed(run):
    path = write(run, 1) / MANIFEST
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=MANIFEST):
            verify_checkpoint(path.parent)
    path.write_bytes(whole)
    verify_checkpoint(path.parent)


def test_a_flipped_bit_anywhere_is_noticed_and_the_file_named(run):
    path = write(run, 1)
    choose = random.Random(0)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for _ in range(60):
            bit = choose.randrange(8 * len(whole))
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            with pytest.raises(CheckpointError, match=file.name):
                verify_checkpoint(path)
            with pytest.raises(CheckpointError, match=file.name):
                read_checkpoint(path)
        file.write_bytes(whole)
    verify_checkpoint(path)


@pytest.mark.parametrize("change", ["missing", "longer", "empty"])
def test_a_file_that_is_missing_or_resized_is_noticed(run, change):
    file = write(run, 1) / ADAPTER
    if change == "missing":
        file.unlink()
    else:
        file.write_bytes(b"" if change == "empty" else file.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=ADAPTER):
        verify_checkpoint(file.parent)


def test_a_cut_file_is_told_with_both_sizes(run):
    file = write(run, 1) / "state.json"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:3])
    with pytest.raises(CheckpointError, match=f"it has 3 bytes instead of {size}"):
        verify_checkpoint(file.parent)


def test_a_pickle_in_place_of_an_adapter_is_never_read(run, tmp_path):
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    path = write(run, 1)
    (path / ADAPTER).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not canary.exists()


def test_last_skips_damaged_checkpoints_with_a_warning_each(run, caplog):
    for step in (10, 20, 30):
        write(run, step)
    break_file(run.checkpoint(30) / ADAPTER)
    (run.checkpoint(20) / MANIFEST).unlink()
    assert find_checkpoint(run, "last") == run.checkpoint(10)
    assert len(caplog.records) == 2
    assert "step_000030" in caplog.text
    assert ADAPTER in caplog.text


def test_last_is_ordered_by_step_and_not_by_name(run):
    for step in (999_999, 1_000_000):
        write(run, step)
    assert find_checkpoint(run, "last").name == "step_1000000"


def test_last_tells_that_the_newest_checkpoint_is_missing(run, caplog):
    write(run, 10)
    shutil.rmtree(write(run, 20))
    assert find_checkpoint(run, "last") == run.checkpoint(10)
    assert "step_000020, is missing" in caplog.text


def test_a_damaged_pointer_does_not_hide_the_last_checkpoint(run):
    write(run, 10)
    (run.checkpoints / "last.json").write_text("{")
    assert find_checkpoint(run, "last") == run.checkpoint(10)


def test_no_intact_checkpoint_is_an_error(run):
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        find_checkpoint(run, "last")


def test_best_is_the_one_that_was_marked(run):
    for step in (10, 20):
        write(run, step)
    mark_best(run, 10, 0.8)
    assert find_checkpoint(run, "best") == run.checkpoint(10)
    assert json.loads((run.checkpoints / "best.json").read_text())["score"] == 0.8


def test_a_damaged_best_is_an_error_and_never_replaced(run):
    for step in (10, 20):
        write(run, step)
    mark_best(run, 10, 0.8)
    break_file(run.checkpoint(10) / ADAPTER)
    with pytest.raises(CheckpointError, match="step_000010") as caught:
        find_checkpoint(run, "best")
    assert caught.value.fix == "checkpoint=last, or one of step_000020"


@pytest.mark.parametrize("size", [0, 5, -1])
def test_a_cut_best_pointer_is_an_error(run, size):
    write(run, 10)
    mark_best(run, 10, 0.8)
    pointer = run.checkpoints / "best.json"
    pointer.write_bytes(pointer.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="best"):
        find_checkpoint(run, "best")


def test_a_damaged_checkpoint_cannot_become_the_best(run):
    break_file(write(run, 10) / ADAPTER)
    with pytest.raises(CheckpointError):
        mark_best(run, 10, 0.5)
    assert not (run.checkpoints / "best.json").exists()


@pytest.mark.parametrize("which", ["step_000020", "lst", "../run", "/", "", "step_10"])
def test_an_unknown_checkpoint_is_refused_with_the_choices(run, which):
    write(run, 10)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(run, which)
    assert "step_000010" in caught.value.fix


def test_a_checkpoint_is_found_by_its_name(run):
    write(run, 10)
    write(run, 20)
    assert find_checkpoint(run, "step_000010") == run.checkpoint(10)


def test_writing_the_same_checkpoint_again_changes_nothing(run):
    path = write(run, 10)
    before = (path / MANIFEST).stat().st_mtime_ns
    assert write(run, 10) == path
    assert (path / MANIFEST).stat().st_mtime_ns == before


def test_an_intact_checkpoint_with_other_content_is_not_written_over(run):
    write(run, 10)
    with pytest.raises(CheckpointError, match="there already"):
        write(run, 10, other=True)
    assert read_checkpoint(run.checkpoint(10)).state == {"step": 10}


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(run):
    break_file(write(run, 10) / ADAPTER)
    write(run, 10)
    verify_checkpoint(run.checkpoint(10))


def test_a_state_that_json_cannot_hold_is_refused_before_anything_is_written(run):
    with pytest.raises(ValueError, match="JSON"):
        write(run, 10, loss=float("nan"))
    assert not run.checkpoints.exists()


def test_pruning_keeps_the_newest_and_the_best(run):
    for step in (10, 20, 30, 40, 50):
        write(run, step)
    mark_best(run, 20, 0.9)
    assert names(prune_checkpoints(run, keep=2)) == ["step_000030", "step_000010"]
    assert steps_on_disk(run) == ["step_000020", "step_000040", "step_000050"]
    assert prune_checkpoints(run, keep=2) == []


def test_pruning_counts_only_intact_checkpoints(run):
    for step in (10, 20, 30, 40):
        write(run, step)
    break_file(run.checkpoint(30) / ADAPTER)
    prune_checkpoints(run, keep=2)
    assert steps_on_disk(run) == ["step_000020", "step_000030", "step_000040"]


def test_nothing_is_pruned_while_the_newest_is_damaged(run):
    for step in (10, 20, 30):
        write(run, step)
    break_file(run.checkpoint(30) / ADAPTER)
    assert prune_checkpoints(run, keep=1) == []
    assert len(steps_on_disk(run)) == 3


def test_nothing_is_pruned_while_the_best_is_unknown(run):
    for step in (10, 20):
        write(run, step)
    mark_best(run, 10, 0.9)
    (run.checkpoints / "best.json").write_text("{")
    assert prune_checkpoints(run, keep=1) == []


def test_fewer_checkpoints_than_are_to_be_kept_stay(run):
    write(run, 10)
    assert prune_checkpoints(run, keep=3) == []


def test_a_manifest_of_another_format_is_refused(run):
    path = write(run, 10)
    manifest = unseal((path / MANIFEST).read_bytes())
    (path / MANIFEST).write_bytes(seal({**manifest, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        verify_checkpoint(path)
