"""What holds for every test: no network, no one's settings, one thread, seeded numbers."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from exp.config.schema import Accelerator, Attention, Compile, Precision
from exp.data import tasks
from exp.hardware.resolver import ResolvedHardware
from exp.records import Example

# Libraries read these when they are imported, and child processes inherit them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_MODE="offline",
    MPLBACKEND="agg",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)
for name in ("EXP_CONF_DIR", "EXP_FULL_ERROR", "HYDRA_FULL_ERROR", "WANDB_API_KEY"):
    os.environ.pop(name, None)


# `make test-thorough` tries the same properties on hypothesis' usual number of examples.
settings.register_profile("brief", max_examples=25)
settings.load_profile("brief")


@pytest.fixture(autouse=True)
def own_cache_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an empty cache folder, so that none sees what another, or a person, left."""
    with tempfile.TemporaryDirectory(prefix="exp-cache-") as folder:
        monkeypatch.setenv("EXP_CACHE_DIR", folder)
        yield


@pytest.fixture(autouse=True)
def seeded_torch() -> None:
    """Seed torch; pytest-randomly seeds the rest. Tests that do not need torch do not import it."""
    if "torch" in sys.modules:
        # Not torch.manual_seed: without a GPU that takes milliseconds, to remember a stack.
        sys.modules["torch"].default_generator.manual_seed(0)


@pytest.fixture(scope="session")
def orders() -> Callable[[str], list[Example]]:
    """Give the rows of a split of orders_es."""

    def read(split: str) -> list[Example]:
        file = Path(tasks.__path__[0]) / "orders_es" / f"{split}.jsonl"
        rows = map(json.loads, file.read_text("utf-8").splitlines())
        return [Example(row["id"], row["input"], row["output"]) for row in rows]

    return read


@pytest.fixture(scope="session")
def under_hash_seeds() -> Callable[..., list[str]]:
    """Give what code prints in two processes in which sets of strings are in another order."""

    def run(code: str, read: str = "") -> list[str]:
        return [
            subprocess.run(
                [sys.executable, "-c", code],
                input=read,
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        ]

    return run


@pytest.fixture(scope="session")
def translation_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Save a MarianMT model of one random layer with a tokenizer of whole words, once per seed."""
    words = "please send kindly now today thanks we need some of the good nails screws pins 20"
    folders: dict[int, Path] = {}

    def save(seed: int) -> Path:
        if seed in folders:
            return folders[seed]
        import torch
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

        folder = folders[seed] = tmp_path_factory.mktemp(f"translator-{seed}")
        vocab = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words.split()])}
        tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ).save_pretrained(folder)
        sides = {
            f"{side}_{size}": number
            for side in ("encoder", "decoder")
            for size, number in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = MarianMTModel(
                MarianConfig(
                    vocab_size=len(vocab),
                    decoder_vocab_size=len(vocab),
                    d_model=16,
                    max_position_embeddings=48,
                    pad_token_id=0,
                    eos_token_id=1,
                    decoder_start_token_id=0,
                    forced_eos_token_id=1,
                    init_std=0.7,
                    tie_word_embeddings=False,
                    **sides,
                )
            )
        # Left to chance, hardly a translation would come to an end.
        model.final_logits_bias[0, 1] = 6.0
        model.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def plain_flash_attn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Put a plain `flash_attn_varlen_func` where the kernel would be; return it.

    One sequence after the other, with a mask that is written out. As the kernel does, it takes
    softmax in fp32 (or fp64), and rounds weights and outputs to the type of its operands.
    """
    import torch
    import transformers.modeling_utils  # noqa: F401 - it looks for the true one, once

    def flash_attn_varlen_func(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        softcap: float = 0.0,
        deterministic: bool = False,
    ) -> torch.Tensor:
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert softmax_scale is not None
        assert q.dtype == k.dtype == v.dtype
        assert v.shape == k.shape
        query_ends, key_ends = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        assert (query_ends[0], query_ends[-1]) == (0, len(q))
        assert (key_ends[0], key_ends[-1]) == (0, len(k))
        group, wide = q.shape[1] // k.shape[1], torch.promote_types(q.dtype, torch.float32)
        outputs = []
        bounds = zip(pairwise(query_ends), pairwise(key_ends), strict=True)
        for (first, last), (first_key, last_key) in bounds:
            queries, keys = last - first, last_key - first_key
            assert 0 < queries <= max_seqlen_q
            assert 0 < keys <= max_seqlen_k
            own_keys, own_values = (
                each[first_key:last_key].repeat_interleave(group, 1).to(wide) for each in (k, v)
            )
            scores = torch.einsum("ihd,jhd->hij", q[first:last].to(wide), own_keys) * softmax_scale
            if softcap:
                scores = softcap * torch.tanh(scores / softcap)
            if causal:
                # Query i sees key j up to i + keys - queries: the last one sees them all.
                seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
                scores = scores.masked_fill(~seen, float("-inf"))
            weights = torch.nn.functional.dropout(scores.softmax(-1).to(q.dtype), dropout_p)
            outputs.append(torch.einsum("hij,jhd->ihd", weights.to(wide), own_values))
        return torch.cat(outputs).to(q.dtype)

    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return flash_attn_varlen_func


@pytest.fixture(scope="session")
def cpu_hardware() -> ResolvedHardware:
    """A machine without a GPU, in fp32; others are made of it with `replace`."""
    return ResolvedHardware(
        name="cpu",
        accelerator=Accelerator.cpu,
        devices=1,
        device_name="CPU",
        memory_gib=1.0,
        precision=Precision.fp32,
        attention=Attention.sdpa,
        tf32=False,
        fused_optimizer=True,
        compile=Compile.off,
        quantization="none",
        num_workers=0,
        prefetch_batches=2,
        cpu_threads=1,
        reasons=(),
        warnings=(),
    )
