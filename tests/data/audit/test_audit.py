"""Each fault is planted into a clean corpus; it has to be found, by name, and nothing else."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from exp.config.schema import OnOverlong, OutputFormat, TaskConfig
from exp.data.audit.audit import audit
from exp.data.audit.checks import BY_NAME, CHECKS, Severity
from exp.data.audit.settings import AuditSettings
from exp.data.render import ChatFormat, Renderer
from exp.data.task import load_task
from exp.errors import DataError, UserErrors
from exp.model.tokenizer import byte_chat_format
from exp.records import Example, Rendered


def change(rows, number, **changes):
    rows[number] = replace(rows[number], **changes)


def output(rows, number, **changes):
    change(rows, number, output=rows[number].output | changes)


def near(text):
    return f"{text}!"


PLANTED = {
    "empty_id": lambda s: change(s["train"], 3, id=" "),
    "repeated_id": lambda s: change(s["train"], 4, id=s["train"][3].id),
    "shared_id": lambda s: change(s["test"], 4, id=s["train"][3].id),
    "empty_input": lambda s: change(s["validation"], 2, input="\n "),
    "unwritable_output": lambda s: change(s["train"], 7, output="nails"),
    "no_label": lambda s: change(s["train"], 7, output=None),
    "over_long": lambda s: change(s["train"], 5, input=s["train"][5].input + " x" * 1500),
    "schema_invalid": lambda s: output(s["test"], 1, quantity=0),
    "empty_output": lambda s: change(s["train"], 2, output={}),
    "ungrounded": lambda s: [
        output(s["test"], n, product=f"thing {chr(97 + n) * 3}") for n in range(8)
    ],
    "answer_in_input": lambda s: change(
        s["train"], 9, input=s["train"][9].input + " -> " + json.dumps(s["train"][9].output)
    ),
    "instruction_in_input": lambda s: change(
        s["train"], 9, input="Write the order\nas JSON. " + s["train"][9].input
    ),
    "control_text": lambda s: change(s["test"], 9, input="<|user|>" + s["test"][9].input),
    "duplicate": lambda s: s["train"].append(replace(s["train"][0], id="copy")),
    "conflict": lambda s: s["train"].append(
        replace(s["train"][0], id="other", output={"product": "nails", "quantity": 99})
    ),
    "leak": lambda s: s["test"].append(replace(s["train"][0], id="leaked")),
    "near_duplicate": lambda s: s["train"].append(
        replace(s["train"][1], id="near", input=near(s["train"][1].input))
    ),
    "near_leak": lambda s: s["test"].append(
        replace(s["train"][1], id="near", input=near(s["train"][1].input))
    ),
    "unseen_field": lambda s: [row.output.pop("unit", None) for row in s["train"]],
}
"""Faults of rows: how each is planted, by the name of the check that has to find it."""

ALSO = {"empty_output": {"schema_invalid"}}
"""What the same rows are also found for, as it is wrong with them too."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_and_nothing_else(name, corpus, audited):
    PLANTED[name](corpus)
    report = audited(corpus)
    found = {finding.check for finding in report.findings}
    assert found == {name} | ALSO.get(name, set())


class WithoutEnd(Renderer):
    """Cuts completions short, as a truncation on the right does."""

    def render(self, examples):
        return [Rendered(r.prompt_ids, r.completion_ids[:-1]) for r in super().render(examples)]


class Truncating(Renderer):
    """Cuts the text of long completions and puts the end token behind what is left."""

    def render(self, examples):
        return [
            Rendered(r.prompt_ids, (*r.completion_ids[:-1][:20], self.end_id))
            for r in super().render(examples)
        ]


class OtherPrompt(Renderer):
    """Trains on prompts that inference never gives."""

    def render(self, examples):
        return [Rendered((*r.prompt_ids, 32), r.completion_ids) for r in super().render(examples)]


class DoubleBos(Renderer):
    """Puts a BOS token before a template that has its own, in training and inference."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.head_ids = (self.bos_id, *self.head_ids)


class ReadsControl(Renderer):
    """Lets text of the data become control tokens."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._plain.encode_special_tokens = False


class Lossy(Renderer):
    """Lower-cases what it tokenises."""

    def render(self, examples):
        lower = [replace(e, output=json.loads(json.dumps(e.output).lower())) for e in examples]
        return super().render(lower)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (WithoutEnd, "no_end_token"),
        (Truncating, "unparsable_output"),
        (OtherPrompt, "different_prompt"),
        (DoubleBos, "double_bos"),
    ],
)
def test_a_fault_of_the_rendering_is_found_in_every_row(kind, name, corpus, audited):
    report = audited(corpus, kind)
    assert {finding.check for finding in report.findings} == {name}
    assert sum(finding.count for finding in report.errors) == report.num_rows


def test_control_tokens_from_the_data_are_found(corpus, audited):
    change(corpus["train"], 2, input="<|end|>" + corpus["train"][2].input)
    change(corpus["train"], 3, input="<|bos|>" + corpus["train"][3].input)
    report = audited(corpus, ReadsControl)
    rows = {finding.check: [row.row for row in finding.rows] for finding in report.errors}
    assert rows == {"control_token": [2], "double_bos": [3]}


def test_an_output_that_its_tokens_do_not_give_back_is_found(corpus, audited):
    output(corpus["test"], 6, product="Blue Ink")
    report = audited(corpus, Lossy)
    (finding,) = report.findings
    assert (finding.check, [row.row for row in finding.rows]) == ("lossy_output", [6])
    assert "blue ink" in finding.rows[0].detail


def test_characters_that_the_tokenizer_lacks_are_found(corpus, audited):
    alphabet = ["<unk>", "</s>", "\n", *map(chr, range(32, 127))]
    vocabulary = {char: number for number, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in alphabet[:2]])
    chat = ChatFormat(tokenizer, None, None, "</s>")
    assert audited(corpus, chat=chat).findings == ()
    change(corpus["train"], 2, input=corpus["train"][2].input + " \u00f1")
    (finding,) = audited(corpus, chat=chat).findings
    assert (finding.check, [row.row for row in finding.rows]) == ("unknown_token", [2])


def test_a_clean_corpus_has_no_finding(corpus, audited):
    assert audited(corpus).findings == ()


@pytest.mark.thorough
def test_the_shipped_task_has_no_finding():
    folder = "builtin:orders_es/"
    config = TaskConfig(
        name="orders_es",
        **{split: f"{folder}{split}.jsonl" for split in ("train", "validation", "test")},
        instruction_file=f"{folder}instruction.txt",
        schema=f"{folder}schema.json",
    )
    task = load_task(config)
    renderer = Renderer(byte_chat_format(), task.instruction, task.output_format, task.schema)
    report = audit(task, renderer, AuditSettings())
    assert report.findings == ()
    assert {split.name: split.num_rows for split in report.splits} == {
        "train": 1500,
        "validation": 200,
        "test": 300,
    }


def test_a_text_task_is_held_to_what_concerns_text(corpus, audited):
    for rows in corpus.values():
        rows[:] = [replace(row, output=f"{row.output['quantity']} bought") for row in rows]
    settings = {"output_format": OutputFormat.text, "schema": None}
    assert audited(corpus, **settings).findings == ()
    change(corpus["train"], 0, output="")
    change(corpus["test"], 0, output={"quantity": 2})
    report = audited(corpus, **settings)
    assert {finding.check for finding in report.findings} == {"empty_output", "unwritable_output"}


def test_a_row_is_named_with_its_file_and_line_and_what_is_wrong(corpus, audited):
    output(corpus["test"], 1, quantity=0)
    (finding,) = audited(corpus).findings
    (row,) = finding.rows
    assert (row.row, row.id, row.place) == (1, "test-51", "test.jsonl, line 2")
    assert row.detail == "$.quantity: 0 is less than the minimum of 1"


def test_errors_are_shown_together_in_three_lines_each(corpus, audited):
    output(corpus["test"], 1, quantity=0)
    change(corpus["train"], 3, id="")
    with pytest.raises(UserErrors) as caught:
        audited(corpus).raise_errors()
    assert str(caught.value) == (
        "empty_id: 1 of 40 train rows have an empty id.\n"
        "  where: train.jsonl, line 4\n"
        "  fix:   task.fields.id=null to name rows by their line\n"
        "\n"
        "schema_invalid: 1 of 10 test rows have an output that breaks the schema.\n"
        "  where: test.jsonl, line 2 ($.quantity: 0 is less than the minimum of 1); ids test-51\n"
        "  fix:   mend the rows, or task.schema=null to accept any JSON object"
    )


def test_warnings_raise_nothing(corpus, audited):
    PLANTED["duplicate"](corpus)
    report = audited(corpus)
    report.raise_errors()
    assert [finding.check for finding in report.warnings] == ["duplicate"]


@pytest.mark.parametrize(
    ("split", "what", "severity"),
    [
        ("train", OnOverlong.error, Severity.error),
        ("train", OnOverlong.skip, Severity.warning),
        ("train", OnOverlong.truncate_prompt, Severity.warning),
        ("test", OnOverlong.error, Severity.warning),
    ],
)
def test_long_rows_stop_a_training_only_where_it_would_refuse_them(
    split, what, severity, corpus, audited
):
    change(corpus[split], 5, input=corpus[split][5].input + " x" * 1500)
    report = audited(corpus, settings=AuditSettings(max_length_tokens=2048, on_overlong=what))
    (finding,) = report.findings
    assert finding.severity is severity
    assert [row.id for row in finding.rows] == [corpus[split][5].id]
    longest = next(facts for facts in report.splits if facts.name == split).longest[0]
    assert longest[:2] == (5, corpus[split][5].id)
    assert f"the longest has {longest[2]:,}" in finding.what
    assert f"data.max_length_tokens={longest[2]}," in finding.fix


def test_a_row_whose_input_cannot_be_cut_enough_is_an_error(corpus, audited):
    output(corpus["train"], 5, product="nails" * 500)
    change(corpus["train"], 5, input="nails" * 500)
    settings = AuditSettings(max_length_tokens=2048, on_overlong=OnOverlong.truncate_prompt)
    (finding,) = audited(corpus, settings=settings).findings
    assert (finding.check, finding.severity) == ("over_long", Severity.error)
    assert "besides its input" in finding.rows[0].detail


def test_all_long_rows_are_listed_however_many_they_are(audited):
    rows = [Example(f"r{n}", f"{n} nails", {"product": "nails"}) for n in range(250)]
    settings = AuditSettings(max_length_tokens=10, near_similarity=1)
    report = audited({"train": rows}, settings=settings)
    (finding,) = [finding for finding in report.findings if finding.check == "over_long"]
    assert len(finding.rows) == finding.count == 250


def test_rows_behind_an_unwritable_one_keep_their_own_tokens(corpus, audited):
    change(corpus["train"], 3, output="nails")
    change(corpus["train"], 20, output=3)
    change(corpus["train"], 30, input=corpus["train"][30].input + " x" * 1500)
    report = audited(corpus)
    rows = {finding.check: [row.row for row in finding.rows] for finding in report.findings}
    assert rows == {"unwritable_output": [3, 20], "over_long": [30]}
    assert report.splits[0].longest[0][:2] == (30, corpus["train"][30].id)


def test_a_split_of_which_no_row_can_be_rendered_is_audited_too(corpus, audited):
    corpus["test"] = [replace(row, output="nails") for row in corpus["test"]]
    report = audited(corpus)
    assert [(f.check, f.split, f.count) for f in report.findings] == [
        ("unwritable_output", "test", 10)
    ]
    assert (report.splits[2].tokens, report.splits[2].longest) == (None, ())


def test_a_damaged_store_of_token_ids_is_found(corpus, audited):
    assert audited(corpus).findings == ()
    (first, *_) = sorted(Path(os.environ["EXP_CACHE_DIR"]).glob("tokens/*/ids.i32"))
    content = bytearray(first.read_bytes())
    content[0] ^= 1
    first.write_bytes(content)
    assert {finding.check for finding in audited(corpus).findings} == {"different_prompt"}


def test_every_check_is_in_the_table_once_and_has_a_planted_fault():
    assert len(BY_NAME) == len(CHECKS)
    by_rendering = {
        *("no_end_token", "unparsable_output", "different_prompt", "double_bos"),
        *("control_token", "lossy_output", "unknown_token"),
    }
    assert set(PLANTED) | by_rendering == set(BY_NAME)


def test_a_schema_that_leads_outside_itself_is_the_users_error(corpus, audited):
    schema = {"properties": {"product": {"$ref": "https://example.org/x.json"}}}
    with pytest.raises(DataError, match="which is not in it"):
        audited(corpus, schema=schema)
