"""`exp train`: data -> base scores -> adapter -> best checkpoint -> scores -> report."""

import logging
from contextlib import nullcontext

from exp.commands.advising import find_improvements
from exp.commands.auditing import audit_before_training, log_warnings
from exp.commands.augmenting import open_augmenter
from exp.commands.fitting import (
    close_generation,
    open_tokens,
    prepare_data,
    run_identity,
    select_training_rows,
    validator,
)
from exp.commands.foundation import Foundation, lay_foundation, open_base
from exp.commands.memory_watch import MemoryWatch, fit_memory
from exp.commands.outcome import report_outcome
from exp.commands.paraphrasing import paraphrase_rows
from exp.commands.prediction import cached_predictor, for_base_model
from exp.commands.rank import in_first_process, join_run_dir
from exp.commands.scoring import score_stage
from exp.commands.session import Session, SilentSession
from exp.commands.subset import subset
from exp.config.resolve import Resolved
from exp.config.schema import TrainConfig
from exp.data.augmentation.chain import Augmenter
from exp.data.augmentation.lexicon import load_number_words
from exp.data.augmentation.number_words import NumberWords
from exp.data.selection import Selection
from exp.data.tokens import TokenStore
from exp.generation.cache.store import PredictionCache
from exp.generation.grounding.learning import learn_grounding
from exp.generation.grounding.storage import write_grounding
from exp.generation.template import learn_template, write_template
from exp.model.fused_layer.layer import fuse_layers
from exp.model.lora import attach_lora, set_adapter_weights
from exp.model.merge import merged_for_inference
from exp.report.console import print_derived
from exp.training.checkpoint import find_checkpoint, read_checkpoint
from exp.training.fit import fit
from exp.training.interruption import Interrupted

log = logging.getLogger(__name__)

SPLITS = ("validation", "test")


def run(resolved: Resolved) -> int:
    """Train an adapter and score it; return the exit code."""
    config: TrainConfig = resolved.config
    foundation = lay_foundation(config, ("train", *SPLITS))
    audit = audit_before_training(foundation, config)
    tokens, selection = select_training_rows(foundation, config, open_tokens(foundation, "train"))
    paraphrases = paraphrase_rows(foundation, config, selection)
    augmenter = open_augmenter(foundation.task, config.augmentation, config.seed, paraphrases)
    number_words = _read_number_words(config)
    config, token_limit = close_generation(config, tokens)
    config, fitted = fit_memory(config, foundation, tokens, selection)
    run_dir = join_run_dir(config)
    derived = (*resolved.derived, *foundation.hardware.reasons, token_limit, *fitted)
    open_session = Session if in_first_process() else SilentSession
    with open_session(run_dir, config) as session:
        session.note_derived(derived)
        session.note(audit=audit.summary(), legend=foundation.renderer.writing.legend)
        log_warnings(audit)
        try:
            _train(config, foundation, tokens, selection, augmenter, number_words, session)
        except Interrupted as interruption:
            session.note(status="interrupted")
            log.warning("interrupted; go on with: exp train training.resume=%s", run_dir.path)
            return interruption.exit_code
    return 0


def _read_number_words(config: TrainConfig) -> NumberWords | None:
    """Read what grounding reads numbers by; None where no schema says what answers have."""
    if config.task.schema is None:
        return None
    return load_number_words(config.task.language, config.augmentation.lexicon)


def _train(
    config: TrainConfig,
    foundation: Foundation,
    tokens: TokenStore,
    selection: Selection,
    augmenter: Augmenter | None,
    number_words: NumberWords | None,
    session: Session,
) -> None:
    run_dir, task = session.run, foundation.task
    memory = MemoryWatch.start(config, foundation)
    model = open_base(foundation, config)
    data = prepare_data(foundation, config, model, tokens, selection, augmenter)
    if in_first_process():
        write_template(run_dir.template, learn_template(tokens))
        if number_words is not None:
            grounding = learn_grounding(task.split("train"), number_words)
            write_grounding(run_dir.grounding, grounding)
    base_config, for_base = for_base_model(config)
    session.note_derived((*data.derived, *(for_base if config.training.evaluate_base else ())))
    print_derived(session.derived)
    limits = {"validation": config.training.validation_limit, "test": config.training.test_limit}
    examples = {
        split: subset(task.split(split), limits[split], config.seed)
        for split in SPLITS
        if task.has_split(split) and len(task.split(split))
    }
    with PredictionCache.from_config(config.cache) or nullcontext() as cache:
        if config.training.evaluate_base and in_first_process():
            predictor = cached_predictor(foundation, base_config, cache, None, config.model.name)
            some = {
                split: subset(rows, config.training.base_limit, config.seed)
                for split, rows in examples.items()
            }
            score_stage(run_dir, "before", task, some, predictor, model.eval, seed=config.seed)

        adapted = attach_lora(model, config.lora, config.seed)
        fuse_layers(model)
        resumed = config.training.resume is not None
        outcome = fit(
            adapted,
            data.module,
            config=config,
            hardware=data.hardware,
            run=run_dir,
            validate=validator(
                foundation, config, adapted, examples.get("validation", []), run_dir
            ),
            record=session.record,
            base_name=config.model.hub_id or config.model.name,
            identity=run_identity(foundation, config, task.split("train").content_key, augmenter),
            start=read_checkpoint(find_checkpoint(run_dir, "last")) if resumed else None,
            probe=memory.expect(data),
        )
        session.note(memory=memory.compare())
        session.note_outcome(outcome)
        if not in_first_process():
            return
        best = find_checkpoint(run_dir, "best")
        set_adapter_weights(adapted, read_checkpoint(best).adapter, str(best))
        label = f"{task.name}/{run_dir.name}"
        predictor = cached_predictor(foundation, config, cache, best, label, run_dir)
        with merged_for_inference(adapted):
            score_stage(
                run_dir, "after", task, examples, predictor, lambda: model, seed=config.seed
            )
    improvements = find_improvements(run_dir, config, foundation.hardware, adapted, data.plan)
    report_outcome(session, outcome, improvements)
