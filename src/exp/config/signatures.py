"""The argument names of PEFT's LoraConfig and Lightning's Trainer, and those that are exp's to set.

They are read without importing either, which takes seconds and torch; they stand in the source.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path

PEFT_NAMES = {
    "r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "target_modules": "lora.target_modules",
    "use_rslora": "lora.rank_stabilized",
    "use_dora": "lora.dora",
    "init_lora_weights": "lora.init",
    "base_model_name_or_path": "model.hub_id",
    "revision": "model.revision",
    "task_type": None,
    "peft_type": None,
    "peft_version": None,
    "inference_mode": None,
    "auto_mapping": None,
}
"""Fields of peft.LoraConfig that have a setting of their own here, or that only exp sets."""

TRAINER_NAMES = {
    "accelerator": "hardware.accelerator",
    "devices": "hardware.devices",
    "precision": "hardware.precision",
    "max_epochs": "training.epochs",
    "max_steps": "training.steps",
    "max_time": "training.minutes",
    "gradient_clip_val": "training.gradient_clip_norm",
    "accumulate_grad_batches": "training.batch_size",
    "log_every_n_steps": "training.log_every_steps",
    "val_check_interval": "training.validate_every",
    "check_val_every_n_epoch": "training.validate_every",
    "limit_val_batches": "training.validation_limit",
    "limit_train_batches": "training.steps",
    "limit_test_batches": "training.test_limit",
    "limit_predict_batches": None,
    "overfit_batches": "data.limit",
    "fast_dev_run": "training.steps",
    "num_sanity_val_steps": None,
    "min_epochs": None,
    "min_steps": None,
    "gradient_clip_algorithm": "training.gradient_clip_norm",
    "logger": "tracker",
    "default_root_dir": "output_dir",
    "callbacks": None,
    "plugins": None,
    "strategy": "hardware.devices",
    "enable_checkpointing": None,
    "reload_dataloaders_every_n_epochs": None,
    "use_distributed_sampler": None,
    "model_registry": None,
}
"""Arguments of lightning.Trainer that have a setting of their own here, or that only exp sets."""


@cache
def lora_config_fields() -> frozenset[str] | None:
    """The fields of peft.LoraConfig, those of its bases included; None if peft is not found."""
    own = _class("peft", "tuners/lora/config.py", "LoraConfig")
    base = _class("peft", "config.py", "PeftConfig")
    if own is None or base is None:
        return None
    mixin = _class("peft", "config.py", "PeftConfigMixin")
    return frozenset(
        line.target.id
        for node in (own, base, mixin)
        if node is not None
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    )


@cache
def trainer_arguments() -> frozenset[str] | None:
    """The arguments of lightning.Trainer; None if lightning is not found."""
    node = _class("lightning", "pytorch/trainer/trainer.py", "Trainer")
    if node is None:
        return None
    for line in node.body:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            names = [*line.args.args, *line.args.kwonlyargs]
            return frozenset(name.arg for name in names if name.arg != "self")
    return None


def _class(package: str, file: str, name: str) -> ast.ClassDef | None:
    # A top-level find_spec runs no code of the package, unlike one for a module inside it.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / file
    if not path.is_file():
        return None
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    return None
