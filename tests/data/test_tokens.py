import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exp.config.schema import OutputFormat
from exp.data import tokens
from exp.data.render import Renderer
from exp.data.tokens import tokenise
from exp.model.tokenizer import BYTE_TEMPLATE, byte_chat_format
from exp.records import Example

ROWS = [
    Example("a", "tres cajas", {"n": 3}),
    Example("b", "", {}),
    Example("c", "sin respuesta"),
    Example("d", "ñ" * 50, {"n": [1, 2], "m": "<|end|>"}),
]


def renderer(instruction="Write JSON.", template=BYTE_TEMPLATE):
    chat = byte_chat_format()
    chat = type(chat)(chat.tokenizer, template, chat.bos_token, chat.eos_token)
    return Renderer(chat, instruction, OutputFormat.json, None)


@pytest.fixture
def rendered_rows(monkeypatch):
    """The ids of all rows that were rendered, in order."""
    seen = []
    render = Renderer.render

    def counting(self, examples):
        seen.extend(example.id for example in examples)
        return render(self, examples)

    monkeypatch.setattr(Renderer, "render", counting)
    return seen


@pytest.mark.parametrize("chunk", [1, 3, 2000])
def test_a_store_gives_what_rendering_gives(chunk, monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK_ROWS", chunk)
    store = tokenise(ROWS, "key", renderer())
    assert [store[row] for row in range(len(store))] == renderer().render(ROWS)
    assert list(store.example_ids) == ["a", "b", "c", "d"]


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8")), st.integers()), min_size=1, max_size=8
    )
)
def test_lengths_are_those_of_the_rendered_rows(rows):
    examples = [Example(str(i), text, {"n": n}) for i, (text, n) in enumerate(rows)]
    store = tokenise(examples, repr(rows), renderer())
    expected = renderer().render(examples)
    assert store.lengths.tolist() == [len(r.prompt_ids) + len(r.completion_ids) for r in expected]
    assert store.completion_lengths.tolist() == [len(r.completion_ids) for r in expected]


def test_known_rows_are_not_tokenised_again(rendered_rows):
    first = tokenise(ROWS, "key", renderer())
    second = tokenise(ROWS, "key", renderer())
    assert rendered_rows == ["a", "b", "c", "d"]
    assert np.array_equal(first.ids, second.ids)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("other", {}),
        ("key", {"instruction": "Another."}),
        ("key", {"template": BYTE_TEMPLATE.replace("<|end|>", "<|end|>\n")}),
    ],
)
def test_other_rows_or_another_rendering_are_tokenised_anew(rendered_rows, key, change):
    tokenise(ROWS, "key", renderer())
    store = tokenise(ROWS, key, renderer(**change))
    assert rendered_rows == ["a", "b", "c", "d"] * 2
    assert store[0] == renderer(**change).render(ROWS[:1])[0]


def test_other_code_tokenises_anew(rendered_rows, monkeypatch):
    tokenise(ROWS, "key", renderer())
    monkeypatch.setattr(tokens, "code_digest", lambda modules: f"another version of {modules}")
    tokenise(ROWS, "key", renderer())
    assert rendered_rows == ["a", "b", "c", "d"] * 2


def test_a_failure_while_tokenising_leaves_nothing_behind(rendered_rows):
    bad = [*ROWS, Example("e", "x", "no object")]
    for _ in range(2):
        with pytest.raises(Exception, match="json task needs an object"):
            tokenise(bad, "key", renderer())
    assert rendered_rows == ["a", "b", "c", "d", "e"] * 2


def test_the_ids_of_a_store_lie_on_disk():
    store = tokenise(ROWS, "key", renderer())
    assert isinstance(store.ids, np.memmap)
    assert not store.ids.flags.writeable
