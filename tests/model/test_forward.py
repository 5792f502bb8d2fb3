"""Every layout against a plain loop: one example at a time, PEFT's own forward, torch's loss."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from exp.config.schema import Layout, LoraConfig, LossOn
from exp.data import batch as batch_module
from exp.data.batch import Batch, collate
from exp.model import attention, forward
from exp.model.base import body_of, head_of, logits_of
from exp.model.forward import (
    LayoutChoice,
    choose_layout,
    enable_checkpointing,
    prepare_for_layout,
)
from exp.model.lora import attach_lora
from exp.records import Rendered
from exp.training.loss import batch_loss

VOCABULARY = 61
ARCHITECTURES = (
    *("llama", "gemma3"),
    *(
        pytest.param(name, marks=pytest.mark.thorough)
        for name in ("qwen2", "qwen3", "mistral", "gemma2", "granite")
    ),
)
STREAMS = (Layout.shared_prefix, Layout.packed)

Gradients = dict[str, Tensor]
Tiny = Callable[..., PreTrainedModel]


def ragged_examples(prefix: int = 20) -> list[Rendered]:
    """Prompts with a common start, of lengths that differ, one of them nothing but that start."""
    random = torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCABULARY, (count,), generator=random).tolist())

    shared = ids(prefix)
    own, completions = (0, 7, 4, 12, 3), (3, 1, 9, 2, 6)
    return [Rendered(shared + ids(o), ids(c)) for o, c in zip(own, completions, strict=True)]


EXAMPLES = ragged_examples()


@cache
def starting_adapter(names_and_shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Gradients:
    random = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=random) * 0.1 for name, shape in names_and_shapes}


def set_adapter(model: torch.nn.Module) -> None:
    """Give all adapters of one shape the same numbers; lora_B of zero would hide lora_A."""
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    start = starting_adapter(tuple((n, tuple(p.shape)) for n, p in trainable.items()))
    for name, parameter in trainable.items():
        if "lora_" in name:
            parameter.data.copy_(start[name])


def gradients_of(model: torch.nn.Module) -> Gradients:
    return {
        n: p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None
    }


def reference(
    base: PreTrainedModel, examples: Sequence[Rendered], loss: LossOn, **peft: Any
) -> tuple[Tensor, Gradients]:
    """Sum the loss one unpadded example at a time, with nothing of this project."""
    config = PeftLoraConfig(r=4, lora_alpha=32, target_modules="all-linear", **peft)
    model = get_peft_model(base, config)
    set_adapter(model)
    total = torch.zeros(())
    for row in examples:
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        logits = model(input_ids=ids).logits[0]
        first = len(row.prompt_ids) if loss is LossOn.completion else 1
        total = total + functional.cross_entropy(
            logits[first - 1 : -1], ids[0, first:], reduction="sum"
        )
    total.backward()
    return total.detach(), gradients_of(model)


def computed(
    base: PreTrainedModel,
    examples: Sequence[Rendered],
    layout: Layout,
    loss: LossOn,
    checkpointing: bool = False,
    **peft: Any,
) -> tuple[Tensor, Gradients]:
    """The same by way of this project's batch, attention, adapter and loss."""
    model = attach_lora(
        base, LoraConfig(r=4, alpha=32, target_modules=["all-linear"], peft=peft), seed=0
    )
    set_adapter(model)
    prepare_for_layout(base, layout)
    if checkpointing:
        enable_checkpointing(base)
    model.train()
    batch = collate(examples, [str(i) for i in range(len(examples))], layout, loss)
    total = batch_loss(base, batch)
    total.backward()
    return total.detach(), gradients_of(model)


def assert_equal(
    found: tuple[Tensor, Gradients], expected: tuple[Tensor, Gradients], relative: float = 1e-5
) -> None:
    """Compare losses, and each gradient as a whole: its error's norm against its own."""
    loss_error = float((found[0] - expected[0]).abs() / expected[0].abs())
    assert loss_error <= relative
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        error = float((found[1][name] - gradient).norm() / gradient.norm())
        assert error <= relative, f"{name}: {error:.1e}"


_references: dict[tuple[str, LossOn], tuple[Tensor, Gradients]] = {}


def stored_reference(tiny: Tiny, name: str, loss: LossOn) -> tuple[Tensor, Gradients]:
    if (name, loss) not in _references:
        _references[name, loss] = reference(tiny(name), EXAMPLES, loss)
    return _references[name, loss]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("loss", LossOn, ids=lambda loss: loss.name)
@pytest.mark.parametrize("layout", Layout, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_and_gradients_equal_those_of_a_plain_loop(
    tiny: Tiny, name: str, layout: Layout, loss: LossOn, checkpointing: bool
) -> None:
    base = tiny(name)
    longest = max(len(row.prompt_ids) + len(row.completion_ids) for row in EXAMPLES)
    assert choose_layout(base, layout, longest) == LayoutChoice(layout)
    found = computed(base, EXAMPLES, layout, loss, checkpointing)
    assert len(found[1]) == 2 * 2 * 7  # A and B of seven linear layers in two blocks
    assert_equal(found, stored_reference(tiny, name, loss))


@pytest.mark.parametrize("layout", STREAMS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tokens_that_fill_a_stream_up_change_nothing(
    tiny: Tiny, name: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_filling", lambda batch, model: 5)
    found = computed(tiny(name), EXAMPLES, layout, LossOn.completion)
    assert_equal(found, stored_reference(tiny, name, LossOn.completion))


@pytest.mark.parametrize(
    ("dtype", "layout", "own", "expected"),
    [
        (torch.bfloat16, Layout.packed, 7, 3),  # 29 tokens, of 32
        (torch.bfloat16, Layout.packed, 10, 0),
        (torch.bfloat16, Layout.padded, 7, 0),
        (torch.float32, Layout.packed, 7, 0),
    ],
)
def test_streams_are_filled_up_to_whole_tiles_in_bf16(
    tiny: Tiny, dtype: torch.dtype, layout: Layout, own: int, expected: int
) -> None:
    model = tiny("llama").to(dtype)
    rows = [Rendered(tuple(range(own)), (1, 2)), Rendered(tuple(range(18)), (1, 2))]
    batch = collate(rows, ("a", "b"), layout, LossOn.completion)
    assert forward._filling(batch, model) == expected
    prepare_for_layout(model, layout)
    assert forward.label_states(model, batch).isfinite().all()


@pytest.mark.parametrize("layout", Layout, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_a_trainable_head_gets_its_exact_gradient(tiny: Tiny, name: str, layout: Layout) -> None:
    changes = {"tie_word_embeddings": False}
    expected = reference(
        tiny(name, **changes), EXAMPLES, LossOn.completion, modules_to_save=["lm_head"]
    )
    found = computed(
        tiny(name, **changes), EXAMPLES, layout, LossOn.completion, modules_to_save=["lm_head"]
    )
    assert len([name for name in found[1] if "lm_head" in name]) == 1
    assert_equal(found, expected)


@pytest.mark.parametrize("layout", STREAMS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", ["gemma3", "mistral", "gemma2"])
def test_rows_as_long_as_the_sliding_window_are_exact(
    tiny: Tiny, name: str, layout: Layout
) -> None:
    examples = ragged_examples(prefix=64 - 14)
    assert max(len(row.prompt_ids) + len(row.completion_ids) for row in examples) == 64
    assert choose_layout(tiny(name), layout, 64) == LayoutChoice(layout)
    expected = reference(tiny(name), examples, LossOn.completion)
    assert_equal(computed(tiny(name), examples, layout, LossOn.completion), expected)


@pytest.mark.parametrize("name", ["gemma3", "mistral", "gemma2"])
def test_rows_longer_than_the_sliding_window_are_padded_and_exact(tiny: Tiny, name: str) -> None:
    choice = choose_layout(tiny(name), Layout.shared_prefix, 65)
    assert choice.layout is Layout.padded
    assert choice.reason is not None
    assert "window of 64" in choice.reason
    examples = ragged_examples(prefix=80)
    expected = reference(tiny(name), examples, LossOn.completion)
    assert_equal(computed(tiny(name), examples, choice.layout, LossOn.completion), expected)


def test_a_stream_beyond_the_window_would_be_seen(tiny: Tiny) -> None:
    examples = ragged_examples(prefix=80)
    expected = reference(tiny("mistral"), examples, LossOn.completion)
    found = computed(tiny("mistral"), examples, Layout.packed, LossOn.completion)
    with pytest.raises(AssertionError):
        assert_equal(found, expected)


@pytest.mark.parametrize("layout", STREAMS, ids=lambda layout: layout.name)
def test_a_mask_that_is_off_by_one_would_be_seen(
    tiny: Tiny, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        attention,
        "_visible",
        lambda length, offset, device: torch.ones(length, offset + length).tril(offset + 1).bool(),
    )
    found = computed(tiny("llama"), EXAMPLES, layout, LossOn.completion)
    with pytest.raises(AssertionError):
        assert_equal(found, stored_reference(tiny, "llama", LossOn.completion))


def lengthen_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the collator share one token more than all prompts have in common."""
    true_length = batch_module.shared_prefix_length
    monkeypatch.setattr(batch_module, "shared_prefix_length", lambda ids: true_length(ids) + 1)


def test_a_prefix_that_is_a_token_too_long_would_be_seen(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = EXAMPLES[1:]
    expected = reference(tiny("llama"), examples, LossOn.completion)
    lengthen_prefix(monkeypatch)
    found = computed(tiny("llama"), examples, Layout.shared_prefix, LossOn.completion)
    with pytest.raises(AssertionError):
        assert_equal(found, expected)


def influence(base: PreTrainedModel, batch: Batch, examples: Sequence[Rendered]) -> Tensor:
    """(examples, examples) largest slope of example i's label logits by j's own embeddings.

    The own embeddings are those behind the shared prefix.
    """
    assert batch.segments is not None
    prefix = batch.segments.prefix_length
    lengths = [len(row.prompt_ids) + len(row.completion_ids) - prefix for row in examples]
    embeddings = base.get_input_embeddings()(batch.input_ids).detach().requires_grad_()
    hidden = body_of(base)(
        inputs_embeds=embeddings,
        position_ids=batch.position_ids,
        attention_mask=None,
        use_cache=False,
        segments=batch.segments,
    ).last_hidden_state[0]
    logits = logits_of(head_of(base), hidden[batch.label_rows])
    table = torch.zeros(len(examples), len(examples))
    counts = [len(row.completion_ids) for row in examples]
    for i, rows in enumerate(logits.split(counts)):
        (slope,) = torch.autograd.grad(rows.sin().sum(), embeddings, retain_graph=True)
        for j, part in enumerate(slope[0, prefix:].split(lengths)):
            table[i, j] = part.abs().max()
    return table


@pytest.mark.parametrize("layout", STREAMS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_examples_do_not_see_each_other(tiny: Tiny, name: str, layout: Layout) -> None:
    base = tiny(name)
    prepare_for_layout(base, layout)
    batch = collate(EXAMPLES, ["a"] * len(EXAMPLES), layout, LossOn.completion)
    table = influence(base, batch, EXAMPLES)
    others = ~torch.eye(len(EXAMPLES), dtype=torch.bool)
    assert (table.diagonal() > 0).all()
    assert (table[others] == 0).all()


def test_examples_in_one_segment_would_be_seen_to_see_each_other(tiny: Tiny) -> None:
    base = tiny("llama")
    prepare_for_layout(base, Layout.packed)
    batch = collate(EXAMPLES, ["a"] * len(EXAMPLES), Layout.packed, LossOn.completion)
    tokens = batch.input_ids.shape[1]
    one_row = batch_module.Segments(0, torch.arange(tokens).unsqueeze(0), torch.arange(tokens))
    table = influence(base, batch_module.replace(batch, segments=one_row), EXAMPLES)
    assert (table.tril(-1).flatten() > 0).sum() == 10


def test_a_model_that_mixes_tokens_outside_its_attention_is_padded(tiny: Tiny) -> None:
    base = tiny("llama")

    def shift(module: torch.nn.Module, args: Any, output: Tensor) -> Tensor:
        return output + 0.5 * functional.pad(output, (0, 0, 1, -1))  # as a convolution would

    handle = base.model.layers[0].mlp.register_forward_hook(shift)
    choice = choose_layout(base, Layout.packed, 10)
    handle.remove()
    assert choice.layout is Layout.padded
    assert choice.reason is not None
    assert "hidden states" in choice.reason
    assert choose_layout(base, Layout.packed, 10) == LayoutChoice(Layout.packed)


def test_a_model_with_attention_sinks_is_padded() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "gpt_oss",
        vocab_size=61,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    base = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    choice = choose_layout(base, Layout.shared_prefix, 10)
    assert choice.layout is Layout.padded
    assert "s_aux" in (choice.reason or "")


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_choosing_a_layout_leaves_the_model_as_it_was(tiny: Tiny, name: str) -> None:
    base = tiny(name)
    before = base.config._attn_implementation
    choose_layout(base, Layout.packed, 10)
    assert base.config._attn_implementation == before


def test_checkpointing_recomputes_every_layer(tiny: Tiny) -> None:
    base = tiny("llama")
    calls: list[int] = []
    for layer in base.model.layers:
        layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    computed(base, EXAMPLES, Layout.packed, LossOn.completion, checkpointing=True)
    assert len(calls) == 2 * len(base.model.layers)


def test_checkpointing_is_not_reentrant(tiny: Tiny) -> None:
    base = tiny("llama")
    enable_checkpointing(base)
    function = base.model.layers[0]._gradient_checkpointing_func
    assert function.keywords == {"use_reentrant": False}


def test_the_check_of_a_layout_needs_no_weights(tiny: Tiny) -> None:
    base = tiny("llama").to("meta")
    assert choose_layout(base, Layout.packed, 10) == LayoutChoice(Layout.packed)


def test_layers_of_an_unknown_kind_are_padded(tiny: Tiny) -> None:
    base = tiny("llama")
    base.config.layer_types = ["linear_attention", "full_attention"]
    choice = forward.choose_layout(base, Layout.packed, 10)
    assert choice == LayoutChoice(Layout.padded, "the model has layers of kind linear_attention")
