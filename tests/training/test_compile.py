import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exp.config.schema import Compile, Layout, LossOn
from exp.data.batch import collate
from exp.model.forward import prepare_for_layout
from exp.model.lora import adapter_weights
from exp.training.compile import compiled, eagerly
from exp.training.loss import batch_loss

Build = Callable[..., Any]

BACKEND = "inductor" if shutil.which("g++") else "aot_eager"


def compiled_modules(model: nn.Module) -> list[str]:
    return [type(m).__name__ for m in model.modules() if m._compiled_call_impl is not None]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Compile.off, []),
        (Compile.layers, ["LlamaDecoderLayer"] * 2),
        (Compile.full, ["LlamaModel"]),
    ],
)
def test_what_is_compiled_is_undone_and_names_stay(
    training: Build, how: Compile, expected: list[str]
) -> None:
    model = training().model
    names = list(adapter_weights(model))
    with compiled(model.get_base_model(), how, backend="eager"):
        assert compiled_modules(model) == expected
        assert list(adapter_weights(model)) == names
    assert compiled_modules(model) == []


def test_validation_runs_eagerly() -> None:
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(1)
        return graph.forward

    layer = nn.Linear(2, 2)
    layer.compile(backend=backend)
    assert eagerly(lambda: {"sum": float(layer(torch.ones(1, 2)).sum().detach())})()
    assert calls == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", Layout, ids=lambda layout: layout.name)
@pytest.mark.parametrize("how", [Compile.layers, Compile.full], ids=lambda how: how.name)
def test_compiled_gradients_equal_eager_ones_without_compiling_per_batch(
    training: Build,
    how: Compile,
    layout: Layout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    run = training(layout=layout, micro_batch_size=3)
    model, base = run.model.train(), run.model.get_base_model()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)  # at zero it would hide what lora_A gets
    prepare_for_layout(base, layout)
    graphs: list[int] = []

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        for number in range(run.data.plan.num_steps):
            for part in run.data.plan.step(number).micro_batches:
                rows = [run.store[row] for row in part]
                batch = collate(rows, [""] * len(part), layout, LossOn.completion)
                loss = batch_loss(base, batch)
                loss.backward()
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}

    expected = gradients()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    graphs.clear()
    with compiled(base, how, BACKEND):
        found = gradients()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) <= 1e-5, name
    assert graphs[0] > 0
    assert graphs[-1] == graphs[3]  # an epoch has four steps; later ones bring no new shapes
