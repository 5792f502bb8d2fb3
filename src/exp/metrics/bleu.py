"""Corpus BLEU of text tasks, 0 to 100, as sacrebleu computes it.

Source:
    Papineni et al. 2002, BLEU. https://aclanthology.org/P02-1040; Post 2018, sacreBLEU.
"""

import numpy as np
from sacrebleu.metrics.bleu import BLEU as SacreBLEU

from exp.metrics.metric import TEXT, Metric, Numbers
from exp.metrics.row import RowScore

# effective_order only silences sacrebleu's remark on single sentences; the counts are the same.
# force: model output is what it is, tokenised or not.
_SENTENCE = SacreBLEU(effective_order=True, force=True)
_ORDER = _SENTENCE.max_ngram_order


def _statistics(row: RowScore) -> list[float]:
    """Count lengths and n-grams: (ours, reference's, matching 1- to 4-grams, our 1- to 4-grams)."""
    score = _SENTENCE.sentence_score(row.text, [str(row.reference)])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def _corpus_bleu(sums: Numbers) -> Numbers:
    flat = sums.reshape(-1, 2 + 2 * _ORDER)
    return np.array([_bleu(one) for one in flat]).reshape(sums.shape[:-1])


def _bleu(sums: Numbers) -> float:
    whole = [int(number) for number in sums]
    return SacreBLEU.compute_bleu(
        correct=whole[2 : 2 + _ORDER],
        total=whole[2 + _ORDER :],
        sys_len=whole[0],
        ref_len=whole[1],
        smooth_method=_SENTENCE.smooth_method,
    ).score


BLEU = Metric("bleu", TEXT, 2 + 2 * _ORDER, _statistics, _corpus_bleu)
