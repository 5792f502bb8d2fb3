import logging

import pytest

from exp.commands.session import Session
from exp.config.schema import TrainConfig
from exp.publish import PublishError
from exp.rundir import create_run_dir


def test_a_record_that_cannot_be_written_leaves_nothing_open(tmp_path, monkeypatch):
    handlers = list(logging.getLogger().handlers)
    session = Session(create_run_dir(tmp_path, "run"), TrainConfig())
    finished = []
    monkeypatch.setattr(session._tracker, "finish", finished.append)

    def full(**facts):
        raise PublishError("No space left on device.")

    with pytest.raises(PublishError), session:
        monkeypatch.setattr(session, "note", full)
    assert finished == ["completed"]
    assert logging.getLogger().handlers == handlers
    assert session._metrics._file.closed
