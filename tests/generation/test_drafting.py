from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exp.generation.drafting import (
    COPY,
    LONGEST_DRAFT,
    Draft,
    Drafter,
    Odds,
    choose_lengths,
    narrow,
)
from exp.generation.template import count_continuations

OPEN, CLOSE, END = 1, 2, 3


def falling(chances):
    odds, chance = [], 1.0
    for one in chances:
        chance *= one
        odds.append(chance)
    return Draft(tuple(range(len(odds))), ((COPY, 1),) * len(odds), tuple(odds))


def rate(drafts, lengths, forward_tokens):
    produced = len(drafts) + sum(
        sum(draft.odds[:length]) for draft, length in zip(drafts, lengths, strict=True)
    )
    return produced / (forward_tokens + len(drafts) + sum(lengths))


drafts_strategy = st.lists(
    st.lists(st.floats(0.01, 1.0), max_size=4).map(falling), min_size=1, max_size=3
)


@settings(deadline=None)
@given(drafts_strategy, st.floats(0.0, 40.0))
def test_the_chosen_lengths_produce_most_tokens_per_time(drafts, forward_tokens):
    chosen = rate(drafts, choose_lengths(drafts, forward_tokens), forward_tokens)
    every = product(*(range(len(draft) + 1) for draft in drafts))
    best = max(rate(drafts, lengths, forward_tokens) for lengths in every)
    assert chosen == pytest.approx(best)


def test_wrong_drafts_are_free_where_a_forward_costs_much():
    drafts = [falling([0.3, 0.3])]
    assert choose_lengths(drafts, 500.0) == [2]
    assert choose_lengths(drafts, 1.0) == [0]


def test_tokens_that_the_tokenizer_does_not_know_are_drafted_like_others():
    drafter = Drafter(folded=(0, 1, 2))
    book = drafter.copybook((1, 7, 2, 1))
    assert drafter.propose(book, [1, 7], limit=1).tokens == (2,)
    assert drafter.propose(book, [9], limit=1).tokens == ()


def test_a_draft_goes_on_as_the_input_does():
    drafter = Drafter()
    book = drafter.copybook((10, 11, 12, 13, 14))
    assert drafter.propose(book, [99, 11, 12], limit=9).tokens == (13, 14)


def test_the_longest_match_in_the_input_wins():
    drafter = Drafter()
    book = drafter.copybook((5, 20, 6, 5, 21, 4, 5, 22))
    assert drafter.propose(book, [4, 5], limit=1).tokens == (22,)


def test_tokens_of_the_same_text_match_whatever_the_space_before_them():
    folded = list(range(30))
    folded[20] = 10
    drafter = Drafter(folded=folded)
    book = drafter.copybook((20, 11))
    assert drafter.propose(book, [10], limit=3).tokens == (11,)
    assert not Drafter().propose(Drafter().copybook((20, 11)), [10], limit=3).tokens


def test_a_template_writes_what_all_completions_begin_with():
    template = count_continuations([(OPEN, 10 + row, CLOSE, END) for row in range(8)])
    drafter = Drafter(template)
    draft = drafter.propose(drafter.copybook(()), [], limit=9)
    assert draft.tokens[0] == OPEN
    assert drafter.propose(drafter.copybook(()), [OPEN, 12], limit=9).tokens == ()


def test_of_several_values_the_one_in_the_input_is_proposed():
    completions = [(OPEN, 10, END)] * 6 + [(OPEN, 11, END)] * 3
    drafter = Drafter(count_continuations(completions))
    tokens = drafter.propose(drafter.copybook((40, 11, 41)), [OPEN], limit=2).tokens
    assert tokens == (11, END)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 30))
def test_drafts_keep_to_their_limit_and_never_get_likelier(produced, limit):
    drafter = Drafter(count_continuations([(0, 1, 2, 3, 4, 5) * 4] * 4))
    draft = drafter.propose(drafter.copybook((0, 1, 2, 3)), produced, limit)
    assert len(draft) <= min(limit, LONGEST_DRAFT)
    assert list(draft.odds) == sorted(draft.odds, reverse=True)
    assert all(0 < chance <= 1 for chance in draft.odds)


def test_a_source_that_is_always_wrong_is_trusted_less_and_one_that_is_right_more():
    odds = Odds()
    before = odds.of((COPY, 2))
    for _ in range(20):
        odds.count((COPY, 2), right=False)
        odds.count((COPY, 1), right=True)
    assert odds.of((COPY, 2)) < 0.3 * before
    assert odds.of((COPY, 1)) > 0.85


def test_tokens_behind_a_wrong_one_are_not_judged():
    drafter = Drafter()
    drafter.judge(Draft((1, 2, 3), ((COPY, 1), (COPY, 2), (COPY, 3)), (0.9, 0.8, 0.7)), [1, 9, 3])
    assert drafter.odds.tried == {(COPY, 1): 1, (COPY, 2): 1}
    assert drafter.odds.right == {(COPY, 1): 1, (COPY, 2): 0}


def test_a_fresh_drafter_has_judged_nothing():
    drafter = Drafter()
    drafter.odds.count((COPY, 1), right=True)
    assert drafter.fresh().odds.tried == {}


@pytest.mark.thorough
@settings(deadline=None)
@given(st.lists(st.integers(0, 16), max_size=12))
def test_narrow_drafts_leave_at_most_half_padding_and_are_cut_no_further(lengths):
    cut = narrow(lengths)
    widest = max(cut, default=0)
    assert cut == [min(length, widest) for length in lengths]

    def fits(widest):
        return len(lengths) * (widest + 1) <= 2 * sum(min(one, widest) + 1 for one in lengths)

    assert fits(widest)
    assert not any(fits(wider) for wider in range(widest + 1, max(lengths, default=0) + 1))
