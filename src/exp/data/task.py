"""A task: rows in splits, the instruction that they share, and what outputs look like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exp.config.schema import Notation, OutputFormat, TaskConfig
from exp.data.output import compile_schema
from exp.data.sources.examples import Examples
from exp.data.sources.joined import join
from exp.data.sources.load import load_rows
from exp.data.sources.location import locate
from exp.data.sources.strict_json import BadJson, parse_json
from exp.data.splits import SPLITS, divide
from exp.errors import ConfigError, DataError, UserError, UserErrors, raise_collected

_NO_SCHEMA = "mend the file, or task.schema=null to accept any JSON object"


@dataclass(frozen=True)
class Task:
    """What a model is to learn. All rows were read once and are sound."""

    name: str
    instruction: str
    """Part of every prompt, as it was written; "" if there is none."""
    output_format: OutputFormat
    schema: dict[str, Any] | None
    """A valid JSON Schema for outputs."""
    language: str | None
    monitor: str
    splits: Mapping[str, Examples]
    notation: Notation = Notation.json
    """How the model writes outputs."""

    def has_split(self, name: str) -> bool:
        return name in self.splits

    def split(self, name: str) -> Examples:
        """Return the examples of train, validation or test.

        Raises:
            DataError: The task has no such split.
        """
        if name in self.splits:
            return self.splits[name]
        raise DataError(
            f"The task {self.name} has no {name} split, only: {', '.join(self.splits) or 'none'}.",
            where=f"task.{name}",
            fix=f"task.{name}=<file>"
            + ("" if name == "train" else f" or task.{name}_fraction=0.1"),
        )


def load_task(config: TaskConfig, splits: Sequence[str] = SPLITS) -> Task:
    """Read a task's instruction, schema and rows, and check all of them.

    Args:
        config: The task group.
        splits: Which splits are wanted; files that none of them needs are not looked at. A split
            for which there is neither a file nor a fraction is left out.

    Raises:
        ConfigError: Settings are missing or exclude each other.
        DataError: A file is missing or holds something wrong.
        UserErrors: Several of these, over all files.
    """
    errors: list[UserError] = []
    instruction, schema = "", None
    try:
        instruction = _read_instruction(config)
    except UserError as error:
        errors.append(error)
    try:
        schema = _read_schema(config)
    except UserError as error:
        errors.append(error)
    examples = _read_splits(config, splits, errors)
    raise_collected(errors)
    return Task(
        name=config.name,
        instruction=instruction,
        output_format=config.output_format,
        schema=schema,
        language=config.language,
        monitor=config.monitor,
        splits=examples,
        notation=config.notation,
    )


def _read_instruction(config: TaskConfig) -> str:
    if config.instruction is not None and config.instruction_file is not None:
        raise ConfigError(
            "The instruction is given twice, as text and as a file.",
            where="task.instruction and task.instruction_file",
            fix="task.instruction=null or task.instruction_file=null",
        )
    text = config.instruction or ""
    if config.instruction_file is not None:
        text = _read_text(config.instruction_file, "task.instruction_file")
    # Editors end a file with a line feed that nobody means to be part of the prompt.
    return text.rstrip("\r\n")


def _read_schema(config: TaskConfig) -> dict[str, Any] | None:
    if config.schema is None:
        return None
    where = f"task.schema={config.schema}"
    try:
        schema = parse_json(_read_text(config.schema, "task.schema"))
    except BadJson as error:
        at = "" if error.position is None else f" at character {error.position + 1}"
        raise DataError(
            f"The schema is not JSON{at}: {error.reason}.", where=where, fix=_NO_SCHEMA
        ) from None
    if not isinstance(schema, dict):
        raise DataError("The schema is not a JSON object.", where=where, fix=_NO_SCHEMA)
    try:
        compile_schema(schema)
    except DataError as error:
        raise DataError(error.what, where=where, fix=error.fix) from None
    return schema


def _read_text(name: str, setting: str) -> str:
    path = locate(name, setting)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what, fix = f"Byte {error.start:,} is not UTF-8.", "save the file as UTF-8"
    except OSError as error:
        what, fix = f"The file cannot be read: {error.strerror}.", "check its permissions"
    raise DataError(what, where=f"{setting}={name}", fix=fix)


def _read_splits(
    config: TaskConfig, wanted: Sequence[str], errors: list[UserError]
) -> dict[str, Examples]:
    """Return the wanted splits that the task has; append what is wrong to `errors`."""
    fractions = {
        "validation": 0.0 if config.validation else config.validation_fraction,
        "test": 0.0 if config.test else config.test_fraction,
    }
    splits: dict[str, Examples] = {}
    for name in ("validation", "test"):
        if name in wanted and (file := getattr(config, name)):
            splits |= _read_file(config, name, file, errors)
    if "train" in wanted or any(fractions.get(name) for name in wanted):
        sound = _check_fractions(fractions, errors)
        if not config.train:
            errors.append(_no_training_rows(config))
        else:
            rows = _read_training_files(config, errors)
            if sound and rows is not None:
                try:
                    splits |= divide(rows, fractions["validation"], fractions["test"])
                except DataError as error:
                    errors.append(error)
    return {name: splits[name] for name in SPLITS if name in wanted and name in splits}


def _read_training_files(config: TaskConfig, errors: list[UserError]) -> Examples | None:
    """Return the rows of all training files as one sequence; None if some of them are bad."""
    files = [config.train] if isinstance(config.train, str) else list(config.train)
    parts = [
        _read_file(config, "train", file, errors, id_prefix=f"train{number}" if number > 1 else "")
        for number, file in enumerate(files, 1)
    ]
    sound = [part["train"] for part in parts if part]
    if len(sound) < len(parts):
        return None
    try:
        return join(sound)
    except UserErrors as several:
        errors.extend(several.errors)
    except UserError as error:
        errors.append(error)
    return None


def _read_file(
    config: TaskConfig, split: str, file: str, errors: list[UserError], id_prefix: str = ""
) -> dict[str, Examples]:
    """Return the rows of one file by the split that they are for; nothing if they are bad.

    Args:
        config: Says where the columns are.
        split: What the rows are for.
        file: What the user wrote.
        errors: What is wrong is appended.
        id_prefix: What rows without an id are called by; "" for the split.
    """
    try:
        examples = load_rows(
            file,
            config.fields,
            output_format=config.output_format,
            split=split,
            where=f"task.{split}",
            id_prefix=id_prefix,
        )
    except UserErrors as several:
        errors.extend(several.errors)
    except UserError as error:
        errors.append(error)
    else:
        if len(examples):
            return {split: examples}
        errors.append(
            DataError(
                "The file holds no rows.",
                where=f"task.{split}={file}",
                fix=f"task.{split}=<a file with rows>",
            )
        )
    return {}


def _check_fractions(fractions: Mapping[str, float], errors: list[UserError]) -> bool:
    """Say whether a training split can be left; append why not."""
    bad = [name for name, value in fractions.items() if not 0 <= value < 1]
    errors.extend(
        ConfigError(
            f"task.{name}_fraction={fractions[name]:g} is not a share: at least 0, less than 1.",
            where=f"task.{name}_fraction",
            fix=f"task.{name}_fraction=0.1",
        )
        for name in bad
    )
    total = sum(fractions.values())
    if not bad and total >= 1:
        errors.append(
            ConfigError(
                f"Nothing is left to train on: the fractions add up to {total:g}.",
                where="task.validation_fraction and task.test_fraction",
                fix="task.validation_fraction=0.1 task.test_fraction=0.1",
            )
        )
    return not bad and total < 1


def _no_training_rows(config: TaskConfig) -> ConfigError:
    return ConfigError(
        f"The task {config.name} has no training rows: task.train is not set.",
        where="task.train",
        fix="task.train=<a .jsonl, .csv or .parquet file>; columns other than input and output are "
        "named by task.fields.input=... task.fields.output=...",
    )
