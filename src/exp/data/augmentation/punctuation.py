"""Marks between words, never inside a number or a value."""

import re
from random import Random

from exp.data.augmentation.draw import draw_places
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.words import join

_EN_DASH, _EM_DASH = "\u2013", "\u2014"
_BULLET = re.compile(rf"(?m)^([ \t]*)[-*•·{_EN_DASH}]([ \t]+)")
_BULLETS = ("-", "*", "•", _EN_DASH)
_DASH = re.compile(rf"(?<=\s)[-{_EN_DASH}{_EM_DASH}](?=\s)")
_ENDS = re.compile(r"[.!]+(?=\s*$)")


def punctuation(passage: Passage, rng: Random, strength: float) -> str:
    """Change bullets and dashes, drop or add marks at the end, drop opening marks and commas."""
    gaps = list(passage.gaps)
    last = len(gaps) - 1
    bullet, dash = rng.choice(_BULLETS), rng.choice(("-", _EN_DASH))
    places = [
        i for i in range(last + 1) if i not in passage.joints and (gaps[i].strip() or i == last)
    ]
    changes_lists = rng.random() < strength
    for i in draw_places(places, rng, strength):
        if i == last:
            gaps[i] = _end(gaps[i], passage, rng)
        elif not _BULLET.search(gaps[i]):
            gaps[i] = _vary(gaps[i], _beside_number(passage, i), rng)
    if changes_lists:
        for i in places:
            # The first gap begins a line, too; in the others a bullet stands behind a line break.
            if i == 0 or "\n" in gaps[i]:
                gaps[i] = _rebullet(gaps[i], bullet, first=i == 0)
            else:
                gaps[i] = _DASH.sub(dash, gaps[i])
    return join([word.text for word in passage.words], gaps)


def _rebullet(gap: str, bullet: str, first: bool) -> str:
    if first:
        return _BULLET.sub(rf"\g<1>{bullet}\g<2>", gap)
    head, line_break, tail = gap.partition("\n")
    return head + line_break + _BULLET.sub(rf"\g<1>{bullet}\g<2>", tail)


def _beside_number(passage: Passage, i: int) -> bool:
    return i - 1 in passage.numeral_words or i in passage.numeral_words


def _vary(gap: str, beside_number: bool, rng: Random) -> str:
    plain = gap.replace("¿", "").replace("¡", "")
    if plain != gap:
        return plain
    if beside_number:
        return gap
    if gap == ", ":
        return rng.choice((" ", "; ", ", "))
    if gap == "; ":
        return ", "
    if gap == ". ":
        return rng.choice(("! ", "... ", ". "))
    if gap[:1] in ("!", "?") and gap.strip() in ("!", "?"):
        return gap.replace("!", rng.choice(("!!", "."))).replace("?", "??")
    return gap


def _end(gap: str, passage: Passage, rng: Random) -> str:
    """Write another final mark; none is taken from an abbreviation, which may be a unit."""
    marks = gap.strip()
    if marks == "":
        return rng.choice((".", "!")) + gap
    if not _ENDS.match(gap) or not passage.words or len(passage.words[-1].text) <= 3:
        return gap
    return _ENDS.sub(rng.choice(("", "!", "!!")), gap)
