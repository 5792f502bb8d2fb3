"""Corpus BLEU of text tasks, 0 to 100, as sacrebleu computes it.

Source:
    Papineni et al. 2002, BLEU. https://aclanthology.org/P02-1040; Post 2018, sacreBLEU.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from exp.metrics.metric import TEXT, Metric, Numbers
from exp.metrics.row import RowScore

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU as SacreBLEU

_ORDER = 4
"""Longest n-grams that are counted."""


@cache
def _sacrebleu() -> "SacreBLEU":
    # Imported when the first text is scored: it takes a tenth of a second, and JSON needs none.
    from sacrebleu.metrics.bleu import BLEU as SacreBLEU

    # effective_order only silences sacrebleu's remark on single sentences; the counts are the same.
    # force: model output is what it is, tokenised or not.
    return SacreBLEU(max_ngram_order=_ORDER, effective_order=True, force=True)


def _statistics(row: RowScore) -> list[float]:
    """Count lengths and n-grams: (ours, reference's, matching 1- to 4-grams, our 1- to 4-grams)."""
    score = _sacrebleu().sentence_score(row.text, [str(row.reference)])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def _corpus_bleu(sums: Numbers) -> Numbers:
    flat = sums.reshape(-1, 2 + 2 * _ORDER)
    return np.array([_bleu(one) for one in flat]).reshape(sums.shape[:-1])


def _bleu(sums: Numbers) -> float:
    whole = [int(number) for number in sums]
    bleu = _sacrebleu()
    return bleu.compute_bleu(
        correct=whole[2 : 2 + _ORDER],
        total=whole[2 + _ORDER :],
        sys_len=whole[0],
        ref_len=whole[1],
        smooth_method=bleu.smooth_method,
    ).score


BLEU = Metric("bleu", TEXT, 2 + 2 * _ORDER, _statistics, _corpus_bleu)
