import json
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from exp.config.schema import OnOverlong
from exp.data.audit import AuditSettings, open_audit
from exp.data.render import Renderer
from exp.model.tokenizer import byte_chat_format

SETTINGS = AuditSettings(max_length_tokens=2048)


@pytest.fixture
def ask(corpus, make_task):
    """Ask for an audit; say whether rows had to be looked at, and what came out."""

    def run(splits=corpus, settings=SETTINGS, code="1", **changes):
        task = make_task(splits, **changes)
        chat = byte_chat_format()
        renderer = Renderer(chat, task.instruction, task.output_format, task.schema)
        seen = []

        @contextmanager
        def watch():
            yield seen.append

        report = open_audit(task, renderer, settings, code, watch)
        return sum(seen), report

    return run


def test_the_second_time_no_row_is_looked_at(ask):
    assert ask() == (60, ask()[1])
    assert ask()[0] == 0


@pytest.mark.thorough
def test_whatever_decides_the_result_is_part_of_its_key(ask, corpus):
    ask()
    (first, *others) = corpus["test"]
    changed = corpus | {"test": [replace(first, input="something else"), *others]}
    assert ask(changed)[0] == 60
    assert ask(code="2")[0] == 60
    assert ask(instruction="Write it as JSON.")[0] == 60
    assert ask(schema=None)[0] == 60
    for settings in (
        replace(SETTINGS, max_length_tokens=4096),
        replace(SETTINGS, on_overlong=OnOverlong.skip),
        replace(SETTINGS, near_similarity=0.9),
        replace(SETTINGS, min_grounded=0.1),
    ):
        assert ask(settings=settings)[0] == 60
    assert ask()[0] == 0


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"preimage": 1}', None])
def test_a_damaged_result_is_made_again(ask, damage):
    ask()
    (file,) = Path(os.environ["EXP_CACHE_DIR"]).glob("audits/*.json")
    if damage is None:
        damage = json.dumps(json.loads(file.read_text()) | {"preimage": "other"}).encode()
    file.write_bytes(damage)
    assert ask()[0] == 60
    assert ask()[0] == 0


def test_results_that_nobody_asked_for_in_a_month_go(ask):
    ask()
    ask(code="2")
    for file in Path(os.environ["EXP_CACHE_DIR"]).glob("audits/*.json"):
        os.utime(file, ns=(0, file.stat().st_mtime_ns))
    assert ask()[0] == 0
    assert ask(code="2")[0] == 60
