"""Turn examples into token ids: one function for training and for inference.

The chat template is rendered once, around a placeholder; what stands before the placeholder (the
instruction among it) and what stands behind it are tokenised once. An example's input and output
are tokenised by themselves and joined as ids. So the training prompt is the inference prompt by
construction, all prompts of a task begin with the same ids, and text from the data that looks like
a control token is plain text to the model.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from exp.config.schema import Notation, OutputFormat
from exp.data.notation import open_writing
from exp.errors import ModelError
from exp.records import Example, Rendered

PLACEHOLDER = "\ue000input\ue000"
ANSWER = "\ue000answer\ue000"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What a model's files say about its text: tokenizer, template, special tokens.

    `template` is the Jinja source of the chat template, None for a base model without one.
    """

    tokenizer: Tokenizer
    template: str | None
    bos_token: str | None
    eos_token: str


class Renderer:
    """Renders the examples of one task for one model.

    Attributes:
        head_ids: Token ids that every prompt begins with: template, instruction.
        tail_ids: Token ids between an input and its completion.
        end_id: The end-of-turn token: the last label of every completion.
        stop_ids: Tokens that end a generated completion; `end_id` is among them.
        bos_id: The token that opens a text; None where the model has none.
        writing: How outputs become the text of completions, and back.
        digest: Changes with anything that changes the ids of an example.
    """

    def __init__(
        self,
        chat: ChatFormat,
        instruction: str,
        output_format: OutputFormat,
        schema: dict[str, Any] | None,
        notation: Notation = Notation.json,
    ) -> None:
        self._tokenizer = chat.tokenizer
        written = chat.tokenizer.to_str()
        self._plain = Tokenizer.from_str(written)
        self._plain.encode_special_tokens = True
        self.writing = open_writing(notation, output_format, schema)
        before, behind, end_of_turn = _frame(chat, instruction)
        self.head_ids = tuple(self._encode_template(before))
        self.tail_ids = tuple(self._encode_template(behind))
        end_id = self._tokenizer.token_to_id(end_of_turn)
        eos_id = self._tokenizer.token_to_id(chat.eos_token)
        if end_id is None:
            raise ModelError(
                f"The end-of-turn token {end_of_turn!r} is not in the model's vocabulary.",
                where="chat template and tokenizer",
                fix="use a model whose tokenizer.json and chat template belong together",
            )
        self.end_id: int = end_id
        self.stop_ids = tuple(sorted({end_id} | ({eos_id} if eos_id is not None else set())))
        bos_id = chat.tokenizer.token_to_id(chat.bos_token) if chat.bos_token else None
        self.bos_id: int | None = bos_id
        self._drop_double_bos(bos_id)
        self.digest = self._digest(written, output_format, schema, notation)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    def render(self, examples: Sequence[Example]) -> list[Rendered]:
        """Render examples; those without an output get an empty completion."""
        prompts = self.render_prompts([example.input for example in examples])
        with_output = [example for example in examples if example.output is not None]
        texts = [self.writing.write(example.output) for example in with_output]
        encoded = iter(self._plain.encode_batch_fast(texts, add_special_tokens=False))
        return [
            Rendered(
                prompt,
                () if example.output is None else (*next(encoded).ids, self.end_id),
            )
            for example, prompt in zip(examples, prompts, strict=True)
        ]

    def render_prompts(self, inputs: Sequence[str]) -> list[tuple[int, ...]]:
        """Render prompts alone, for generation."""
        encoded = self._plain.encode_batch_fast(list(inputs), add_special_tokens=False)
        return [(*self.head_ids, *row.ids, *self.tail_ids) for row in encoded]

    def read_input(self, prompt: Sequence[int]) -> str:
        """Give the input that a rendered prompt has between template and template."""
        own = prompt[len(self.head_ids) : len(prompt) - len(self.tail_ids)]
        text: str = self._plain.decode(list(own), skip_special_tokens=False)
        return text

    def decode(self, token_ids: Sequence[int]) -> str:
        """Turn the ids of a completion into the task's text, without special tokens."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return self.writing.read(text)

    def _encode_template(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _drop_double_bos(self, bos_id: int | None) -> None:
        if bos_id is not None and self.head_ids[:2] == (bos_id, bos_id):
            self.head_ids = self.head_ids[1:]

    def _digest(
        self,
        tokenizer: str,
        output_format: OutputFormat,
        schema: dict[str, Any] | None,
        notation: Notation,
    ) -> str:
        preimage = {
            "tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest(),
            "head": self.head_ids,
            "tail": self.tail_ids,
            "end": self.end_id,
            "output_format": output_format.name,
            "schema": schema,
            "notation": notation.name,
        }
        return hashlib.sha256(json.dumps(preimage, sort_keys=True).encode()).hexdigest()


def _frame(chat: ChatFormat, instruction: str) -> tuple[str, str, str]:
    """Return what stands before the input, what stands behind it, and the end-of-turn token.

    The instruction is the system turn where the template has one; else it opens the user's turn.
    """
    if chat.template is None:
        opening = f"{instruction}\n\n" if instruction else ""
        return (chat.bos_token or "") + opening, "\n\n", chat.eos_token
    user = {"role": "user", "content": PLACEHOLDER}
    turns = [[user]]
    if instruction:
        both = {"role": "user", "content": f"{instruction}\n\n{PLACEHOLDER}"}
        turns = [[{"role": "system", "content": instruction}, user], [both]]
    for messages in turns:
        try:
            prompt = _render_template(chat, messages, add_generation_prompt=True)
            end_of_turn = _end_of_turn(chat, messages)
        except TemplateError:
            continue
        before, found, behind = prompt.partition(PLACEHOLDER)
        if found and PLACEHOLDER not in behind and instruction.strip() in before:
            return before, behind, end_of_turn
    raise ModelError(
        "The model's chat template does not show the input exactly once, behind the instruction.",
        where="chat template",
        fix="choose another model, or give its folder a chat_template.jinja that does",
    )


def _end_of_turn(chat: ChatFormat, messages: list[dict[str, str]]) -> str:
    """Find the control token that the template writes behind an answer."""
    answered = [*messages, {"role": "assistant", "content": ANSWER}]
    _, found, behind = _render_template(chat, answered, add_generation_prompt=False).partition(
        ANSWER
    )
    special = {token.content for token in chat.tokenizer.get_added_tokens_decoder().values()}
    opening = behind.lstrip()
    matches = [token for token in special if found and opening.startswith(token)]
    return max(matches, key=len) if matches else chat.eos_token


class _Generation(Extension):
    """{% generation %} marks what the assistant says, for transformers; it prints nothing."""

    tags = {"generation"}  # noqa: RUF012, jinja2 declares it so

    def parse(self, parser: Parser) -> Node | list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _render_template(
    chat: ChatFormat, messages: list[dict[str, str]], add_generation_prompt: bool
) -> str:
    """Render like transformers' apply_chat_template; a test compares the two."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    # Templates come with model files: they run sandboxed, as in transformers.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, indent=options.get("indent")
    )
    environment.globals["raise_exception"] = raise_exception
    # A date in the prompt would make today's prompts differ from the ones trained on.
    environment.globals["strftime_now"] = lambda form: "26 Jul 2024"
    assert chat.template is not None
    text: str = environment.from_string(chat.template).render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=add_generation_prompt,
        bos_token=chat.bos_token or "",
        eos_token=chat.eos_token,
        enable_thinking=False,
    )
    return text
