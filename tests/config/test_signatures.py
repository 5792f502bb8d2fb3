import subprocess
import sys

import pytest

from exp.config.fields import find
from exp.config.schema import TrainConfig
from exp.config.signatures import (
    PEFT_NAMES,
    TRAINER_NAMES,
    lora_config_fields,
    trainer_arguments,
)


def test_the_names_are_read_without_importing_the_libraries():
    code = (
        "import sys; from exp.config.signatures import *; "
        "assert lora_config_fields() and trainer_arguments(); "
        "print([m for m in ('torch', 'peft', 'lightning', 'transformers') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.slow
def test_the_names_are_those_of_the_libraries():
    import dataclasses
    import inspect

    import lightning
    import peft

    assert lora_config_fields() == {field.name for field in dataclasses.fields(peft.LoraConfig)}
    signature = inspect.signature(lightning.Trainer.__init__)
    assert trainer_arguments() == set(signature.parameters) - {"self"}


def test_what_we_set_ourselves_are_names_of_the_libraries_and_of_our_settings():
    assert set(PEFT_NAMES) <= lora_config_fields()
    assert set(TRAINER_NAMES) <= trainer_arguments()
    for own in {*PEFT_NAMES.values(), *TRAINER_NAMES.values()} - {None}:
        assert find(TrainConfig, own) is not None
