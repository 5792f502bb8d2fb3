from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exp.errors import CheckpointError
from exp.generation.template import (
    LONGEST_CONTEXT,
    START,
    count_continuations,
    read_template,
    write_template,
)

completions_strategy = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), max_size=12)


@settings(deadline=None)
@given(completions_strategy)
def test_shares_are_those_of_a_plain_count(completions):
    template = count_continuations(completions)
    pairs = Counter()
    for tokens in ([START, *completion] for completion in completions):
        for end in range(1, len(tokens)):
            for start in range(max(0, end - LONGEST_CONTEXT), end):
                pairs[tuple(tokens[start:end]), tokens[end]] += 1
    totals = Counter()
    for (context, _), count in pairs.items():
        totals[context] += count
    assert set(template.table) == {context for context, total in totals.items() if total >= 3}
    for context, found in template.table.items():
        for token, share in found:
            assert share == pairs[context, token] / totals[context]


def test_the_longest_known_context_answers():
    template = count_continuations([(1, 2, 3)] * 5 + [(4, 2, 5)] * 5)
    assert template.continuations([START, 1, 2])[0] == (3, 1.0)
    assert template.continuations([9, 2]) == ((3, 0.5), (5, 0.5))
    assert template.continuations([9]) == ()


@settings(deadline=None)
@given(completions_strategy)
@pytest.mark.thorough
def test_a_template_is_read_as_it_was_written(tmp_path_factory, completions):
    path = tmp_path_factory.mktemp("run") / "template.safetensors"
    template = count_continuations(completions)
    write_template(path, template)
    assert read_template(path) == template
    assert read_template(path).digest == template.digest


def test_the_digest_changes_with_the_completions():
    digests = {count_continuations([(1, 2, token)] * 5).digest for token in range(5)}
    assert len(digests) == 5


@pytest.mark.parametrize("damage", [b"", b"{}", bytes(200)])
def test_a_damaged_template_is_a_clear_error(tmp_path, damage):
    path = tmp_path / "template.safetensors"
    path.write_bytes(damage)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_template(path)
