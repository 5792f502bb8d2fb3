"""The argument names of PEFT's LoraConfig and Lightning's Trainer, read without importing them.

Importing either takes seconds and torch; the names stand in their source.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path


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
