import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from exp.config.schema import OutputFormat
from exp.metrics.bleu import BLEU
from exp.metrics.metric import row_statistics
from exp.metrics.row import score_row
from exp.records import Example, Prediction

SENTENCES = st.lists(st.sampled_from(["el", "perro", "come", "pan", "."]), max_size=9).map(" ".join)


def bleu(pairs: list[tuple[str, str]]) -> float:
    rows = [
        score_row(Prediction("1", ours, "stop", 1), Example("1", "", theirs), OutputFormat.text)
        for ours, theirs in pairs
    ]
    return float(BLEU.value(row_statistics(BLEU, rows).sum(axis=0)))


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=5))
def test_summed_statistics_give_sacrebleus_corpus_score(pairs: list[tuple[str, str]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    assert bleu(pairs) == pytest.approx(sacrebleu.corpus_bleu(ours, [theirs]).score)


def test_many_sums_are_scored_at_once() -> None:
    one = np.array([4, 4, 4, 3, 2, 1, 4, 3, 2, 1], float)
    assert BLEU.value(np.stack([one, one])).shape == (2,)
    assert BLEU.value(one) == pytest.approx(100)
