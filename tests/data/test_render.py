import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from exp.config.schema import OutputFormat
from exp.data.output import encode_output
from exp.data.render import ChatFormat, Renderer
from exp.errors import ModelError
from exp.records import Example

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TAGGED = (
    "{% if tools is not none or documents is not none %}{{ 'tools\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTROL = (
    *("<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
TEMPLATES = {"chatml": CHATML, "no_system": NO_SYSTEM, "llama3": LLAMA3, "tagged": TAGGED}
ENDS = {
    **{"chatml": "<|im_end|>", "no_system": "<end_of_turn>"},
    **{"llama3": "<|eot_id|>", "tagged": "<|im_end|>"},
}
INSTRUCTION = "Write the order as JSON."
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ue000"), max_size=20)
LOOKALIKES = st.lists(TEXTS | st.sampled_from(CONTROL), max_size=4).map("".join)


def byte_tokenizer(control=CONTROL):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return tokenizer


TOKENIZER = byte_tokenizer()


def renderer(
    template,
    instruction=INSTRUCTION,
    bos="<|bos|>",
    output_format=OutputFormat.json,
    schema=None,
    tokenizer=TOKENIZER,
):
    chat = ChatFormat(tokenizer, template, bos_token=bos, eos_token="<|eos|>")
    return Renderer(chat, instruction, output_format, schema)


def text_of(ids):
    return TOKENIZER.decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize("name", [*TEMPLATES, None])
@given(text=LOOKALIKES, product=LOOKALIKES)
@settings(max_examples=25)
def test_the_training_prompt_is_the_inference_prompt(name, text, product):
    one = renderer(TEMPLATES.get(name))
    (trained,) = one.render([Example("a", text, {"product": product})])
    (unknown,) = one.render([Example("a", text)])
    assert one.render_prompts([text]) == [trained.prompt_ids] == [unknown.prompt_ids]
    assert unknown.completion_ids == ()


@pytest.mark.parametrize("instruction", [INSTRUCTION, ""])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_what_transformers_makes_of_the_template(name, instruction):
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(),
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        chat_template=TEMPLATES[name],
    )
    text = "3 cajas de clavos\n  para mañana"
    user = {"role": "user", "content": text}
    if not instruction:
        messages = [user]
    elif name == "no_system":
        messages = [{"role": "user", "content": f"{instruction}\n\n{text}"}]
    else:
        messages = [{"role": "system", "content": instruction}, user]
    expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    (prompt,) = renderer(TEMPLATES[name], instruction).render_prompts([text])
    assert text_of(prompt) == expected
    assert list(prompt) == theirs(expected, add_special_tokens=False)["input_ids"]

    answered = [*messages, {"role": "assistant", "content": '{"a":1}'}]
    whole = theirs.apply_chat_template(answered, tokenize=False)
    (row,) = renderer(TEMPLATES[name], instruction).render([Example("a", text, {"a": 1})])
    assert whole.startswith(text_of([*row.prompt_ids, *row.completion_ids]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_turn_is_the_last_label_and_a_stop_token(name):
    one = renderer(TEMPLATES[name])
    (row,) = one.render([Example("a", "x", {"a": 1})])
    end = TOKENIZER.token_to_id(ENDS[name])
    assert one.end_id == row.completion_ids[-1] == end
    assert set(one.stop_ids) == {end, TOKENIZER.token_to_id("<|eos|>")}


@pytest.mark.parametrize("name", [*TEMPLATES, None])
@given(text=LOOKALIKES, product=LOOKALIKES)
@settings(max_examples=25)
def test_text_that_looks_like_a_control_token_is_plain_text(name, text, product):
    one = renderer(TEMPLATES.get(name), output_format=OutputFormat.text)
    (row,) = one.render([Example("a", text, product)])
    inside = row.prompt_ids[len(one.head_ids) : len(row.prompt_ids) - len(one.tail_ids)]
    control = {TOKENIZER.token_to_id(token) for token in CONTROL}
    assert control.isdisjoint([*inside, *row.completion_ids[:-1]])
    assert text_of(inside) == text
    assert one.decode(row.completion_ids) == product


def test_a_template_that_refuses_answers_is_an_error():
    refusing = "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    with pytest.raises(ModelError, match="chat template"):
        renderer(refusing + CHATML)


def test_without_a_template_the_prompt_is_plain_text():
    one = renderer(None)
    (row,) = one.render([Example("a", "x", {"a": 1})])
    assert text_of(row.prompt_ids) == f"<|bos|>{INSTRUCTION}\n\nx\n\n"
    assert text_of(row.completion_ids) == '{"a":1}<|eos|>'
    assert text_of(renderer(None, "").render_prompts(["x"])[0]) == "<|bos|>x\n\n"


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_prompt_begins_with_two_bos(name):
    head = renderer("{{ bos_token }}" + TEMPLATES[name]).head_ids
    bos = TOKENIZER.token_to_id("<|bos|>")
    assert list(head[:2]).count(bos) <= 1


def test_a_template_that_drops_the_system_turn_gets_the_instruction_in_the_users():
    template = (
        "{% for message in messages %}{% if message.role != 'system' %}<|im_start|>"
        "{{ message.role }} {{ message.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    one = renderer(template)
    assert text_of(one.render_prompts(["x"])[0]).startswith(f"<|im_start|>user {INSTRUCTION}\n\nx")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "no message at all",
        "{{ raise_exception('never') }}",
        "{{ messages.__class__.__mro__ }}",
        "{% for m in messages",
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template):
    with pytest.raises(ModelError, match="chat template does not show the input exactly once"):
        renderer(template)


def test_an_end_of_turn_that_the_tokenizer_lacks_is_refused():
    with pytest.raises(ModelError, match="not in the model's vocabulary"):
        renderer(None, tokenizer=byte_tokenizer(control=("<|bos|>",)))


def test_outputs_are_written_in_the_one_canonical_way():
    output = {"b": "ñ", "a": [1.0]}
    (row,) = renderer(CHATML).render([Example("a", "x", output)])
    written = text_of(row.completion_ids).removesuffix("<|im_end|>")
    assert written == encode_output(output, OutputFormat.json)
    assert json.loads(written) == output


def test_the_digest_changes_with_whatever_changes_the_ids():
    variants = [
        renderer(CHATML),
        renderer(CHATML, "Another instruction."),
        renderer(LLAMA3),
        renderer(CHATML, output_format=OutputFormat.text),
        renderer(CHATML, schema={"properties": {"a": {}}}),
        renderer(CHATML, tokenizer=byte_tokenizer((*CONTROL, "<|more|>"))),
    ]
    assert len({variant.digest for variant in variants}) == len(variants)
    assert renderer(CHATML).digest == renderer(CHATML).digest
