"""vLLM's worker on a CPU, into which verl loads new weights
(``rollout.engine_kwargs.vllm.worker_extension_cls``).
"""

from __future__ import annotations

import vllm._custom_ops as ops
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

# oneDNN packs the weights into a form of its own, into which new ones could not be loaded.
ops._supports_onednn = False


class WorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension, unchanged."""
