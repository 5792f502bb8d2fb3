from types import SimpleNamespace

import pytest

from exp.commands.foundation import check_monitor
from exp.config.schema import OutputFormat
from exp.errors import ConfigError


def task(monitor, output_format=OutputFormat.json, schema=None):
    return SimpleNamespace(monitor=monitor, output_format=output_format, schema=schema)


@pytest.mark.parametrize(
    "given",
    [
        task("field_f1"),
        task("schema_valid", schema={}),
        task("bleu", OutputFormat.text),
        task("exact_match", OutputFormat.text),
    ],
)
def test_a_score_that_the_task_has_can_choose_the_checkpoint(given):
    check_monitor(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (task("field_F1"), "the closest is field_f1"),
        (task("schema_valid"), "is no score of this task"),
        (task("field_f1", OutputFormat.text), "is no score of this task"),
    ],
)
def test_a_score_that_it_lacks_is_refused(given, says):
    with pytest.raises(ConfigError, match=says) as caught:
        check_monitor(given)
    assert "out of: " in (caught.value.fix or "")
