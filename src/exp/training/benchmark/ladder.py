"""The rungs of the ladder: from training as most tools do it to what this project does."""

from dataclasses import dataclass

from exp.config.schema import Compile, Layout


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to compute the same optimizer steps; each differs from the one before in one thing.

    Attributes:
        name: Its key in files.
        title: What it adds, for tables and plots.
        full_logits: Logits of every token, by the model's own forward and loss.
        length_aware: Examples of like length share a micro-batch.
        layout: How examples share a forward.
        fused: Our forwards of LoRA layers, norms and gated MLPs in place of PEFT's and
            transformers'.
        packed_weights: Frozen weights laid out for the processor once; CPU and bf16 only.
        whole_layers: Each decoder layer as one function, where its architecture was read; over
            packed weights only.
        compile: What torch.compile gets.
    """

    name: str
    title: str
    full_logits: bool = False
    length_aware: bool = True
    layout: Layout = Layout.padded
    fused: bool = False
    packed_weights: bool = False
    whole_layers: bool = False
    compile: Compile = Compile.off


LADDER = (
    Rung("padded", "padded, all logits", full_logits=True, length_aware=False),
    Rung("length_aware", "+ length-aware batches", full_logits=True),
    Rung("label_rows", "+ logits of label rows only"),
    Rung("packed", "+ packed", layout=Layout.packed),
    Rung("shared_prefix", "+ shared prefix", layout=Layout.shared_prefix),
    Rung("fused", "+ fused LoRA, norms, MLPs", layout=Layout.shared_prefix, fused=True),
    Rung(
        "packed_weights",
        "+ packed weights",
        layout=Layout.shared_prefix,
        fused=True,
        packed_weights=True,
    ),
    Rung(
        "whole_layers",
        "+ layers as one function",
        layout=Layout.shared_prefix,
        fused=True,
        packed_weights=True,
        whole_layers=True,
    ),
    Rung(
        "compile",
        "compiled layers instead",
        layout=Layout.shared_prefix,
        fused=True,
        packed_weights=True,
        compile=Compile.layers,
    ),
)
