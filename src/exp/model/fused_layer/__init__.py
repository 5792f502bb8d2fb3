"""Decoder layers that train as one function each, on a CPU and in bf16."""
