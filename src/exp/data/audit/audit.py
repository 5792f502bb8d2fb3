"""One pass over every row of every split, through the render code of training and inference."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from exp.data.audit.duplicates import DuplicateChecks
from exp.data.audit.facts import edges, longest, spread
from exp.data.audit.fields import FieldChecks
from exp.data.audit.near import check_near
from exp.data.audit.outputs import OutputChecks
from exp.data.audit.report import AuditReport, SplitFacts
from exp.data.audit.rows import AuditedSplit, open_split
from exp.data.audit.settings import AuditSettings
from exp.data.audit.tally import Tally
from exp.data.audit.text import TextChecks
from exp.data.audit.tokens import TokenChecks, check_lengths
from exp.data.render import Renderer
from exp.data.task import Task


def audit(
    task: Task,
    renderer: Renderer,
    settings: AuditSettings,
    advance: Callable[[int], None] = lambda rows: None,
) -> AuditReport:
    """Run all checks.

    Args:
        task: Its splits are looked through in their order; earlier ones are those that later ones
            must not repeat.
        renderer: The one that training and inference use.
        settings: Limits.
        advance: Called with the number of rows done since the last call.

    Raises:
        DataError: The schema refers to something outside itself.
    """
    tally = Tally(task.splits)
    duplicates = DuplicateChecks(task.splits, tally)
    fields = FieldChecks(task, settings.min_grounded, tally)
    checks = (
        TextChecks(task, renderer, tally),
        TokenChecks(renderer, tally),
        OutputChecks(task, renderer, tally),
        fields,
        duplicates,
    )
    splits = []
    for name in task.splits:
        split = open_split(task, name, renderer, tally)
        splits.append(split)
        check_lengths(split, settings, tally)
        for rows in split.chunks():
            for check in checks:
                check.look_at(rows)
            advance(len(rows))
    check_near(task.splits, duplicates.finish(), settings.near_similarity, tally)
    lengths = [np.asarray(split.store.lengths) for split in splits]
    labels = [np.asarray(split.store.completion_lengths) for split in splits]
    token_edges, label_edges = edges(lengths), edges(labels)
    facts = [_facts(split, fields, token_edges, label_edges) for split in splits]
    return AuditReport(
        findings=tally.findings(),
        splits=tuple(facts),
        token_edges=tuple(token_edges.tolist()),
        label_edges=tuple(label_edges.tolist()),
    )


def _facts(
    split: AuditedSplit,
    fields: FieldChecks,
    token_edges: NDArray[np.float64],
    label_edges: NDArray[np.float64],
) -> SplitFacts:
    store = split.store
    return SplitFacts(
        name=split.name,
        source=split.examples.name,
        num_rows=len(split.examples),
        tokens=spread(np.asarray(store.lengths), token_edges),
        labels=spread(np.asarray(store.completion_lengths), label_edges),
        longest=longest(split),
        fields=fields.finish(split.name),
    )
