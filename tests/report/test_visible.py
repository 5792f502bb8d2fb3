import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exp.report.visible import shorten, visible


@given(st.text(st.characters(exclude_categories=())), st.booleans())
def test_nothing_that_commands_a_terminal_is_left(text: str, keep_lines: bool) -> None:
    shown = visible(text, keep_lines)
    kept = "\n\t" if keep_lines else ""
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in kept]
    assert shown.encode("utf-8").decode() == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "␛[31mred"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x9b31m", "\ufffd31m"),
        ("a\r\nb\tc", "a ⏎ b c"),
        ("\u202eevil\u2069", "\ufffdevil\ufffd"),
        ("\x7f\x00", "␡␀"),
        ("ordinary: ñ é 漢 🙂", "ordinary: ñ é 漢 🙂"),
    ],
)
def test_control_characters_are_shown_by_their_pictures(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_lines_can_be_kept() -> None:
    assert visible("a\n\tb\r\nc", keep_lines=True) == "a\n\tb\nc"


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("a" * 1500, 100) == "a" * 100 + "… (+1,400 characters)"
