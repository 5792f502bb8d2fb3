"""What evaluation and prediction share: a run's adapter or a base model, loaded when needed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exp.commands.foundation import Foundation, lay_foundation, open_base
from exp.commands.prediction import cached_predictor
from exp.config.plain import read_config, to_plain
from exp.config.quoting import typed
from exp.config.resolve import Resolved
from exp.config.schema import EvaluateConfig
from exp.errors import ConfigError
from exp.generation.cache.store import PredictionCache
from exp.generation.predictor import Predictor
from exp.rundir import RunDir, open_run_dir
from exp.training.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOSSLESS = {"slots", "drafting"}
"""Settings of generation that change its speed alone."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a checkpoint of a run, or a base model alone.

    Attributes:
        label: For tables and for `exp cache info`.
        run: The run folder; None for a base model.
        load_model: Loads the model, merged and in eval mode; only called if something is missing
            in the cache.
    """

    label: str
    run: RunDir | None
    foundation: Foundation
    predictor: Predictor
    load_model: "Callable[[], PreTrainedModel]"


def only_config(resolved: Resolved) -> Any:
    """Return the configuration of a command that cannot take several runs.

    Raises:
        ConfigError: `run` names several.
    """
    if len(resolved.configs) > 1:
        raise ConfigError(
            f"exp {resolved.verb} takes one run, and run= names {len(resolved.configs)}.",
            where="run",
            fix=typed("run", resolved.config.run),
        )
    return resolved.config


def foreign_settings(config: EvaluateConfig) -> list[str]:
    """List the settings by which what comes out is not what the run's own files are of.

    Kept all the same, it would stand in scores.json, in the report and in a leaderboard as the
    score of the run, with nothing to say that it was made otherwise.
    """
    trained = read_config(open_run_dir(config.run).config)
    own, used = to_plain(trained.generation), to_plain(config.generation)
    changed = [name for name in used if used[name] != own[name] and name not in LOSSLESS]
    return [
        *([] if config.limit is None else [f"limit={config.limit}"]),
        *([] if config.checkpoint == "best" else [f"checkpoint={config.checkpoint}"]),
        *([] if config.seed == trained.seed else [f"seed={config.seed}"]),
        *(f"generation.{name}={used[name]}" for name in changed),
    ]


def open_subject(
    config: EvaluateConfig, cache: PredictionCache | None, splits: Sequence[str]
) -> Subject:
    """Find the checkpoint, lay the foundation, build the predictor; load no weights yet."""
    foundation = lay_foundation(config, splits)
    run, checkpoint, label = None, None, config.model.name
    if config.run is not None:
        run = open_run_dir(config.run)
        _check_legend(run, foundation)
        checkpoint = find_checkpoint(run, config.checkpoint)
        label = f"{config.task.name}/{run.name}"
    if config.generation.max_new_tokens is None:
        raise ConfigError(
            "generation.max_new_tokens is not set, and without a run nothing tells how long "
            "completions are.",
            where="generation.max_new_tokens",
            fix="generation.max_new_tokens=256",
        )
    predictor = cached_predictor(foundation, config, cache, checkpoint, label, run)
    return Subject(label, run, foundation, predictor, lambda: _load(foundation, config, checkpoint))


def _check_legend(run: RunDir, foundation: Foundation) -> None:
    """See that answers by position are read with the keys that they were learned with.

    Raises:
        ConfigError: The schema on disk has others now.
    """
    legend = foundation.renderer.writing.legend
    if legend is None:
        return
    try:
        trained = json.loads(run.record.read_text(encoding="utf-8")).get("legend", legend)
    except (OSError, ValueError, AttributeError):
        return  # evaluation does not need run.json otherwise, and the report says what it lacks
    if trained != legend:
        raise ConfigError(
            "The run learned its answers by position, and the schema has other keys, or the same "
            "ones in another order, than in training.",
            where=f"task.schema, and legend in {run.record}",
            fix="bring back the schema that the run was trained with, or train a new run",
        )


def _load(
    foundation: Foundation, config: EvaluateConfig, checkpoint: Path | None
) -> "PreTrainedModel":
    from exp.model.lora import load_lora
    from exp.model.merge import merge_for_good

    model = open_base(foundation, config)
    if checkpoint is not None:
        merge_for_good(load_lora(model, checkpoint))
    return model.eval()
