"""Fine-tune small causal language models with LoRA on text -> structured output."""

__version__ = "0.1.0"
