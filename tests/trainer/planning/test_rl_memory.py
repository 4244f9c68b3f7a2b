"""Memory of GRPO: bytes against transformers' own model and torch's own tensors, and what is known
of verl on A100-40s.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.cache_utils import DynamicCache

from trainer.batching.flops import Shape
from trainer.planning import rl_memory
from trainer.planning.hardware import GPUS
from trainer.planning.memory import GIB, Setup
from trainer.planning.rl_memory import RESERVE, RlSetup
from trainer.planning.workload import KNOWN

QWEN3_4B = KNOWN["Qwen/Qwen3-4B"]
A100 = GPUS["a100-40"].memory


def hub_config(**changes: int) -> Qwen3Config:
    """Qwen3-4B's config.json."""
    values = {
        "num_hidden_layers": 36,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    }
    return Qwen3Config(**values | changes)


def setup(gpus: int = 16, tokens: int = 20_480, share: float = 0.5, **changes: object) -> RlSetup:
    step = Setup(gpus, 1, tokens, "full")
    return replace(RlSetup(step, tokens, 1, share), **changes)


def test_a_token_in_the_cache_and_the_weights_are_those_of_the_model() -> None:
    with torch.device("meta"):
        model = Qwen3ForCausalLM(hub_config()).to(torch.bfloat16)
        cache = DynamicCache(config=model.config)
        model(input_ids=torch.zeros(1, 3, dtype=torch.long), past_key_values=cache)
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert rl_memory.cache_bytes(QWEN3_4B) == held / 3 == 147_456
    assert rl_memory.rollout_weights(QWEN3_4B) == sum(p.nbytes for p in model.parameters())
    # Eight KV heads: sixteen GPUs hold one each.
    assert rl_memory.cache_bytes(QWEN3_4B, 8) == rl_memory.cache_bytes(QWEN3_4B, 16) == held / 24


def test_verls_default_share_holds_three_and_a_half_rollouts_on_an_a100_40() -> None:
    """Within a tenth of what was reckoned for verl by hand."""
    held = rl_memory.cache_tokens(QWEN3_4B, setup(share=0.5), A100)
    assert held / 21_000 == pytest.approx(3.5, rel=0.1)


@pytest.mark.parametrize(("gpus", "highest"), [(16, 0.8), (4, 0.6)])
def test_the_highest_share_beside_the_trainers_state(gpus: int, highest: float) -> None:
    """Reckoned by hand: 0.8 fits on 16 A100-40s and 0.6 on 4, a step of 0.1 more does not."""

    def fits(share: float) -> bool:
        lines = rl_memory.generation(QWEN3_4B, setup(gpus, share=share), A100)
        return sum(lines.values()) + RESERVE <= A100

    assert fits(highest) and not fits(highest + 0.1)


def test_offloading_makes_room_for_vllm_and_none_for_the_update() -> None:
    def generating(**changes: bool) -> float:
        return sum(rl_memory.generation(QWEN3_4B, setup(**changes), A100).values())

    def update(**changes: bool) -> float:
        return sum(rl_memory.training(QWEN3_4B, setup(**changes)).values())

    each = QWEN3_4B.parameters / 16
    assert generating() - generating(optimizer_offload=True) == pytest.approx(8 * each)
    assert generating() - generating(param_offload=True) == pytest.approx(4 * each)
    assert update() == update(param_offload=True, optimizer_offload=True)
    policy = replace(setup(), training=replace(setup().training, offload=True))
    kept = rl_memory.generation(QWEN3_4B, policy, A100)
    assert kept["weights"] == kept["optimizer state"] == 0
    assert sum(rl_memory.training(QWEN3_4B, policy).values()) < update() - 10 * each


class Live(TorchDispatchMode):
    """Bytes of results that live at once, as their last references go, beside ``given``."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.level = self.peak = 0
        self.seen = {given.untyped_storage()._cdata}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        if isinstance(result, torch.Tensor):
            storage = result.untyped_storage()
            if storage._cdata not in self.seen:
                size = storage.nbytes()
                self.seen.add(storage._cdata)
                self.level += size
                self.peak = max(self.peak, self.level)
                weakref.finalize(storage, self.free, storage._cdata, size)
        return result

    def free(self, data: int, size: int) -> None:
        self.seen.discard(data)
        self.level -= size


def entropy_peak(entropy: Callable[..., torch.Tensor], logits: torch.Tensor) -> int:
    with torch.no_grad(), Live(logits) as live:
        entropy(logits)
    return live.peak


def test_entropy_is_verls_own_whole_and_in_chunks() -> None:
    """The peak of verl's two functions, counted by tensor, within a tenth. CUDA's autocast runs
    softmax in float32, and so its product, as if the logits were float32; a CPU's does not.
    """
    from verl.utils import torch_functional as verl_F

    tokens, words = 6144, 512
    small = replace(QWEN3_4B, vocabulary=words)
    whole = setup(tokens=tokens, chunked_entropy=False)
    chunks = setup(tokens=tokens)
    logits = torch.randn(tokens, words, dtype=torch.bfloat16)
    eager, chunked = verl_F.entropy_from_logits, verl_F.entropy_from_logits_with_chunking
    needed = rl_memory.entropy(small, whole)
    assert entropy_peak(eager, logits.float()) == pytest.approx(needed, rel=0.1)
    assert entropy_peak(eager, logits) == pytest.approx(needed / 2, rel=0.1)
    needed = rl_memory.entropy(small, chunks)
    assert entropy_peak(chunked, logits) == pytest.approx(needed, rel=0.1)


def test_entropy_over_full_logits_takes_23_gib_and_the_logits_6() -> None:
    """For 20,480 tokens, by hand. Without autocast it is half."""
    whole = setup(chunked_entropy=False)
    assert rl_memory.logits(QWEN3_4B, whole, 20_480) == 20_480 * 151_936 * 2
    assert rl_memory.entropy(QWEN3_4B, whole) / GIB == pytest.approx(23.2, abs=0.1)
    assert rl_memory.entropy(QWEN3_4B, setup()) / GIB < 4
    scaled = setup(scaled_logits=True)
    assert rl_memory.logits(QWEN3_4B, scaled, 10) == 2 * rl_memory.logits(QWEN3_4B, whole, 10)


def test_the_trainers_peak_by_hand() -> None:
    """16 bytes per weight over the GPUs, checkpoints and logits are most of it."""
    tokens, gpus = 20_480, 4
    shape: Shape = QWEN3_4B
    state = 16 * shape.parameters / gpus
    saved = tokens * 36 * 2560 * 2
    logits = tokens * 151_936 * 2
    total = sum(rl_memory.training(shape, setup(gpus, tokens)).values())
    assert total / (state + saved + logits) == pytest.approx(1.25, abs=0.15)
