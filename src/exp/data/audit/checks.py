"""The table of all checks. A check is named after the problem that it looks for."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Errors stop a training, warnings do not."""

    error = "error"
    warning = "warning"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that can be wrong with a row.

    Attributes:
        name: The problem in a word or two.
        severity: What a row with it is.
        claim: What holds of a data set that passes.
        fault: Completes "3 of 200 train rows ...".
        fix: What to type, or which rows to change.
    """

    name: str
    severity: Severity
    claim: str
    fault: str
    fix: str


_STALE = "exp audit again after: rm -r ${EXP_CACHE_DIR:-~/.cache/exp}/tokens"
_MODEL = "choose another model, e.g. model=qwen3_0_6b, or mend the chat_template.jinja of this one"
_REMOVE = "remove the rows from their file"
_RESPLIT = "task.validation=null task.test=null, to split the training rows by their inputs"


def _error(name: str, claim: str, fault: str, fix: str) -> Check:
    return Check(name, Severity.error, claim, fault, fix)


def _warning(name: str, claim: str, fault: str, fix: str) -> Check:
    return Check(name, Severity.warning, claim, fault, fix)


EMPTY_ID = _error(
    "empty_id",
    "Every row has an id",
    "have an empty id",
    "task.fields.id=null to name rows by their line",
)
REPEATED_ID = _error(
    "repeated_id",
    "No id is twice in a split",
    "have the id of an earlier row of their split",
    "task.fields.id=null to name rows by their line",
)
SHARED_ID = _warning(
    "shared_id",
    "No id is in two splits",
    "have an id that is also in another split",
    "task.fields.id=null to name rows by split and line",
)
EMPTY_INPUT = _error(
    "empty_input",
    "Every row has an input",
    "have an empty input",
    "task.fields.input=<the column with the text>, or remove the rows",
)
UNWRITABLE_OUTPUT = _error(
    "unwritable_output",
    "Every output can be written in the task's format",
    "have an output that cannot be written in the task's format",
    "task.output_format=text for strings; for JSON objects or arrays, and for "
    "task.notation=positional ones that task.schema admits",
)
NO_LABEL = _error(
    "no_label",
    "Every row has a label",
    "have no label to learn from",
    "task.fields.output=<the column with the answer>, or remove the rows",
)
NO_END_TOKEN = _error(
    "no_end_token",
    "Every completion ends with its end-of-turn token as a label",
    "have a completion that does not end with the end-of-turn token",
    _STALE,
)
DIFFERENT_PROMPT = _error(
    "different_prompt",
    "The training prompt is the inference prompt, id for id",
    "are trained on another prompt than inference would give them",
    _STALE,
)
DOUBLE_BOS = _error(
    "double_bos",
    "No row has its BOS token twice",
    "have the BOS token twice in a row, or again behind the template",
    _MODEL,
)
CONTROL_TOKEN = _error(
    "control_token",
    "No text of the data becomes a control token",
    "have control tokens inside their input or output",
    _STALE,
)
UNKNOWN_TOKEN = _warning(
    "unknown_token",
    "The tokenizer can write every text",
    "have characters that the tokenizer does not know",
    "choose a model with another tokenizer, e.g. model=qwen3_0_6b",
)
OVER_LONG = _error(
    "over_long",
    "Every row fits the limit, so nothing is cut",
    "are longer than {limit:,} tokens; the longest has {longest:,}",
    "data.max_length_tokens={longest}, or data.on_overlong=skip to leave them out, or "
    "data.on_overlong=truncate_prompt to cut their inputs",
)
UNPARSABLE_OUTPUT = _error(
    "unparsable_output",
    "Every completion can be read back as JSON",
    "have a completion that cannot be read back",
    _STALE,
)
LOSSY_OUTPUT = _error(
    "lossy_output",
    "Every output survives tokenising and decoding",
    "have an output that comes back as another one from its own tokens",
    _MODEL,
)
SCHEMA_INVALID = _error(
    "schema_invalid",
    "Every output keeps to the task's schema",
    "have an output that breaks the schema",
    "mend the rows, or task.schema=null to accept any JSON object",
)
EMPTY_OUTPUT = _warning(
    "empty_output",
    "No output is empty",
    "have an empty output",
    _REMOVE + " if they are no right answers",
)
UNGROUNDED = _warning(
    "ungrounded",
    "What outputs say is said in their inputs",
    "say much that their input does not: of all {strings:,} strings of the split only "
    "{share:.0%} occur in their inputs",
    "task.fields.input=<the column with the text>; for labels list their values as enum in "
    "task.schema",
)
ANSWER_IN_INPUT = _warning(
    "answer_in_input",
    "No input holds its own answer",
    "have their whole output written in their input",
    "task.fields.input=<the column without the answer>",
)
INSTRUCTION_IN_INPUT = _warning(
    "instruction_in_input",
    "No input repeats the instruction",
    "repeat the instruction in their input",
    "task.instruction=null task.instruction_file=null, or take it out of the rows",
)
CONTROL_TEXT = _warning(
    "control_text",
    "No text spells a control token",
    "spell control tokens of the model, which are read as plain text",
    "take the chat template out of the rows; it is added when they are rendered",
)
DUPLICATE = _warning(
    "duplicate",
    "No row is twice in a split",
    "are copies of an earlier row of their split",
    _REMOVE,
)
CONFLICT = _warning(
    "conflict",
    "The same input has the same output everywhere",
    "have another output than an earlier row with the same input",
    "mend or remove the rows",
)
LEAK = _warning(
    "leak",
    "No input is in two splits",
    "have an input that is also in an earlier split",
    _RESPLIT,
)
NEAR_DUPLICATE = _warning(
    "near_duplicate",
    "No two inputs of a split are nearly the same",
    "have nearly the input of an earlier row of their split",
    _REMOVE + ", or near_similarity=0.95 to be told of closer ones only",
)
NEAR_LEAK = _warning(
    "near_leak",
    "No two splits have inputs that are nearly the same",
    "have nearly the input of a row of an earlier split",
    _REMOVE + ", or near_similarity=0.95 to be told of closer ones only",
)
UNSEEN_FIELD = _warning(
    "unseen_field",
    "Every field that is scored is there in training",
    "have a field that no training row has",
    "add training rows with the field, or remove these",
)

CHECKS = (
    *(EMPTY_ID, REPEATED_ID, EMPTY_INPUT, UNWRITABLE_OUTPUT, NO_LABEL, NO_END_TOKEN),
    *(DIFFERENT_PROMPT, DOUBLE_BOS, CONTROL_TOKEN, OVER_LONG, UNPARSABLE_OUTPUT, LOSSY_OUTPUT),
    *(SCHEMA_INVALID, UNKNOWN_TOKEN, EMPTY_OUTPUT, UNGROUNDED, ANSWER_IN_INPUT),
    *(INSTRUCTION_IN_INPUT, CONTROL_TEXT, DUPLICATE, CONFLICT, LEAK, NEAR_DUPLICATE, NEAR_LEAK),
    *(SHARED_ID, UNSEEN_FIELD),
)
BY_NAME = {check.name: check for check in CHECKS}
