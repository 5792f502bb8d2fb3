import pytest

from exp.errors import CheckpointError
from exp.rundir import create_run_dir


def test_a_run_folder_that_is_there_is_never_reused(tmp_path):
    run = create_run_dir(tmp_path / "new" / "parent", "first")
    assert run.path.is_dir()
    with pytest.raises(CheckpointError, match="never writes over another"):
        create_run_dir(tmp_path / "new" / "parent", "first")


def test_runs_without_a_name_do_not_meet(tmp_path):
    assert len({create_run_dir(tmp_path, None).path for _ in range(20)}) == 20


def test_a_run_folder_that_cannot_be_made_is_said_in_three_lines(tmp_path):
    (tmp_path / "file").touch()
    for parent in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="cannot be made") as caught:
            create_run_dir(parent, "run")
        assert caught.value.where == f"output_dir={parent}"
