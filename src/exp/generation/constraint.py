"""Completions that obey a JSON Schema, through llguidance.

A schema becomes a grammar of compact JSON: the form that `data/output.py` writes, keys in the
schema's order, no free white space. What the grammar forces is written without asking the model.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray
from tokenizers import Tokenizer

from exp.errors import ConfigError, ModelError
from exp.generation.grounding.schema import MOST_WORDS, GroundedSchema

log = logging.getLogger(__name__)

COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}


class Constraint:
    """A schema compiled for a tokenizer; the source of one `Guide` per row.

    Args:
        schema: The JSON Schema.
        tokenizer: The model's.
        stop_ids: Tokens that end a completion.

    Raises:
        ConfigError: The schema says something that a grammar cannot.
        ModelError: llguidance does not know this kind of tokenizer.
    """

    def __init__(
        self, schema: dict[str, Any], tokenizer: Tokenizer, stop_ids: Sequence[int]
    ) -> None:
        self._schema = schema
        self._grammar = LLMatcher.grammar_from_json_schema(schema, overrides=COMPACT)  # type: ignore[arg-type]
        self._size = tokenizer.get_vocab_size()
        try:
            self._vocabulary = LLTokenizer(
                tokenizer.to_str(), n_vocab=self._size, eos_token=list(stop_ids)
            )
        except ValueError as error:
            raise ModelError(
                f"Decoding cannot be held to a schema with this model's tokenizer: {error}.",
                where="generation.constrain=schema",
                fix="generation.constrain=none, or another model",
            ) from error
        _, complaints = LLMatcher.validate_grammar_with_warnings(self._grammar, self._vocabulary)
        if complaints:
            raise ConfigError(
                "The schema says something that decoding cannot be held to: "
                + "; ".join(" ".join(line.split()) for line in complaints)
                + ".",
                where="generation.constrain=schema with task.schema",
                fix="generation.constrain=none, or task.schema=<a schema without it>",
            )
        self._start = LLMatcher(self._vocabulary, self._grammar)

    def guide(self, prompt: Sequence[int] = ()) -> "Guide":
        """Return the state of a completion that has not begun.

        Args:
            prompt: The row's; a schema that is the same for all rows does not ask for it.
        """
        return Guide(self._start.deep_copy(), self._size)

    @cached_property
    def digest(self) -> str:
        """Changes with anything that changes what is admitted or forced."""
        preimage = [self._schema, COMPACT, version("llguidance")]
        return hashlib.sha256(json.dumps(preimage).encode()).hexdigest()


class GroundedConstraint(Constraint):
    """A schema in which strings of free choice are words of the row's own input.

    Args:
        schema: As for every row; what a row may write obeys it, too.
        grounded: Makes a row's schema of its input.
        read_input: Gives the input that is in a prompt.
        tokenizer: The model's.
        stop_ids: Tokens that end a completion.

    Raises:
        ConfigError: The schema says something that a grammar cannot.
        ModelError: llguidance does not know this kind of tokenizer.
    """

    def __init__(
        self,
        schema: dict[str, Any],
        grounded: GroundedSchema,
        read_input: Callable[[Sequence[int]], str],
        tokenizer: Tokenizer,
        stop_ids: Sequence[int],
    ) -> None:
        super().__init__(schema, tokenizer, stop_ids)
        self._grounded, self._read_input = grounded, read_input

    def guide(self, prompt: Sequence[int] = ()) -> "Guide":
        """Return the state of a completion that has not begun, by the row's own schema."""
        schema = self._grounded.of(self._read_input(prompt))
        if schema is None:
            log.warning(
                "an input has more than %d words: it is held to the schema alone", MOST_WORDS
            )
            return super().guide(prompt)
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=COMPACT)  # type: ignore[arg-type]
        return Guide(LLMatcher(self._vocabulary, grammar), self._size)

    @cached_property
    def digest(self) -> str:
        """Changes with anything that changes what is admitted or forced."""
        preimage = f"{super().digest} {self._grounded.digest}"
        return hashlib.sha256(preimage.encode()).hexdigest()


class Guide:
    """What one row may write next."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self._matcher, self._size = matcher, vocabulary_size

    @property
    def complete(self) -> bool:
        """Nothing may follow but a stop token."""
        stopped: bool = self._matcher.is_stopped()
        return stopped

    def admits(self, token: int) -> bool:
        """Tell whether a token may come next; a stop token may where the value is whole."""
        # A model's vocabulary is often padded: logits without a token behind them.
        return token < self._size and bool(self._matcher.validate_tokens([token]))

    def admitted(self) -> NDArray[np.bool_]:
        """(vocabulary,) True at the tokens that may come next.

        Raises:
            ModelError: There is none, though the value is not whole. llguidance would end it there.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise self._dead_end()
        return np.unpackbits(bits, count=self._size, bitorder="little").astype(bool)

    def take(self, token: int) -> list[int]:
        """Write a token; return those that must follow it and are now written, too."""
        if not self._matcher.consume_token(token):
            raise self._dead_end()
        return self.forced()

    def forced(self) -> list[int]:
        """Write what must come next, if the state leaves no choice."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if tokens and not self._matcher.consume_tokens(tokens):
            raise self._dead_end()
        return tokens

    def _dead_end(self) -> ModelError:
        """Say that the tokenizer cannot write what must come, or that the grammar is too large."""
        reason = str(self._matcher.get_error()).strip().partition("\n")[0]
        return ModelError(
            f"A completion could not be held to the schema to its end: {reason}.",
            where="generation.constrain=schema",
            fix="generation.constrain=none",
        )
