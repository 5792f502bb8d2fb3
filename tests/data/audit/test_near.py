from itertools import combinations
from random import Random

import pytest

from exp.data.audit.near import CROWD, jaccard, pieces
from exp.data.audit.settings import AuditSettings
from exp.records import Example


def similarity(one, other):
    """The slow, plain reference: sets of five-character pieces of lower-case text."""
    sets = []
    for text in (one, other):
        words = " ".join(text.lower().split())
        sets.append({words[at : at + 5] for at in range(max(1, len(words) - 4))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def variants(rng, text, count):
    words = text.split()
    for _ in range(count):
        changed = list(words)
        for _ in range(rng.randrange(1, 6)):
            changed[rng.randrange(len(changed))] = f"{rng.randrange(10**6)}"
        yield " ".join(changed)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_all_pairs_compared_would_give_is_what_is_found(split, audited):
    rng = Random(3)
    texts = []
    for number in range(12):
        words = [f"{rng.randrange(10**5)}w{number}" for _ in range(14)]
        texts += [" ".join(words), *variants(rng, " ".join(words), 5)]
    half = len(texts) // 2 if split == "validation" else len(texts)
    rng.shuffle(texts)
    rows = [Example(str(n), text, {"product": "w"}) for n, text in enumerate(texts)]
    splits = {"train": rows[:half], "validation": rows[half:]}
    splits = {name: some for name, some in splits.items() if some}
    report = audited(splits, settings=AuditSettings(near_similarity=0.7, min_grounded=0))
    found = {f.check: {row.id for row in f.rows} for f in report.findings}
    within, across = set(), set()
    for (one, first), (other, second) in combinations(enumerate(texts), 2):
        if similarity(first, second) >= 0.7:
            (across if one < half <= other else within).add(str(other))
    assert len(within | across) > 10
    names = [f for f in report.findings if f.check == "near_duplicate"]
    assert {row.id for f in names for row in f.rows} == within
    assert found.get("near_leak", set()) == across


def test_case_and_white_space_make_no_difference():
    assert pieces("Three  BOXES\nof nails") == pieces("three boxes of nails")


def test_short_texts_have_one_piece():
    assert pieces("abc") == {"abc"}
    assert pieces("") == {""}
    assert jaccard(frozenset({"abc"}), frozenset({"abd"})) == 0


def test_the_similarity_is_shared_pieces_over_all_pieces():
    one, other = "five boxes of copper nails", "five boxes of copper wire"
    expected = similarity(one, other)
    assert jaccard(frozenset(pieces(one)), frozenset(pieces(other))) == expected


def test_a_crowd_of_near_copies_is_found_to_its_last_row(audited):
    base = "please bring forty-two boxes of galvanised nails to the back door of the harbour office"
    rows = [Example(str(n), f"{base} {n}", {"product": "nails"}) for n in range(5 * CROWD)]
    (finding,) = audited({"train": rows}).findings
    assert (finding.check, finding.count) == ("near_duplicate", len(rows) - 1)


def test_the_similarity_asked_for_is_the_one_that_counts(audited):
    base = "please bring forty-two boxes of galvanised nails to the back door"
    texts = [base, f"{base} of the office today"]
    rows = [Example(str(n), text, {"product": "nails"}) for n, text in enumerate(texts)]
    between = similarity(*texts)
    for limit, count in ((between - 0.01, 1), (between + 0.01, 0)):
        settings = AuditSettings(near_similarity=limit)
        assert len(audited({"train": rows}, settings=settings).findings) == count
