import pytest

from exp.commands.rank import join_run_dir
from exp.config.schema import TrainConfig
from exp.errors import ConfigError


def test_a_further_process_that_exp_did_not_start_is_told_what_to_type(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("EXP_RUN_DIR", raising=False)
    with pytest.raises(ConfigError, match="not started by exp") as caught:
        join_run_dir(TrainConfig())
    assert "without torchrun" in (caught.value.fix or "")
