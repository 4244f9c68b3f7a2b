"""The type and range of every recipe key, and whether it may change between attempts of one run.

recipes/base.yaml has each key's default and meaning. Import this module only where a recipe is
checked, because pydantic takes long to import.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from trainer.alarms.alarms import Kind
from trainer.recipe.keys import mirrors
from trainer.recipe.values import (
    Asking,
    Command,
    Folder,
    KindOfGpu,
    Name,
    Plain,
    Share,
    TwoShares,
    not_finite,
)

MUTABLE = "mutable"
T = TypeVar("T")
Mutable = Annotated[T, MUTABLE]
"""Marks a key, or all keys of a section, that may change between attempts of one run."""

WANTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "string_too_short": "a path (. is this folder)",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "value_error": "{error}",
}
"""pydantic's error type -> what the key must be; other types keep pydantic's message."""


class Section(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Model(Section):
    path: Folder
    revision: str | None
    license: Mutable[str | None]
    init: dict[str, Any] | None
    context: PositiveInt | None
    init_seed: NonNegativeInt
    tokenizer: Literal["model", "qwen3", "trained"]


class Arithmetic(Section):
    problems: PositiveInt
    digits: PositiveInt
    seed: int


class Synth(Section):
    seeds: str
    seed_rows: PositiveInt
    examples: PositiveInt
    problems: PositiveInt
    per_request: PositiveInt
    backend: Literal["anthropic", "local"]
    model: str
    temperature: NonNegativeFloat
    max_tokens: PositiveInt
    usd_per_million_input: Mutable[NonNegativeFloat]
    usd_per_million_output: Mutable[NonNegativeFloat]
    max_usd: Mutable[PositiveFloat | None]


class Data(Section):
    # Where the dataset is may change: its manifest says which one it is.
    name: Mutable[Name]
    dir: Mutable[Folder]
    source: str
    hub_config: str | None
    revision: str | None
    split: str
    license: Mutable[str | None]
    columns: dict[str, str | None] | None
    clean: Literal[None, "gsm8k"]
    verifier: str
    trace_choice: Literal["first", "shortest", "longest", "random"]
    question_types: list[str] | None
    max_bad_records: NonNegativeInt
    arithmetic: Arithmetic
    max_chars: PositiveInt
    max_length: PositiveInt
    min_think_tokens: NonNegativeInt
    decontaminate: list[str]
    engine: Mutable[Literal["local", "ray"]]
    processes: Mutable[PositiveInt | None]
    train_rows: PositiveInt | None
    spare_share: Annotated[NonNegativeFloat, Field(lt=1)]
    test_rows: NonNegativeInt
    seed: NonNegativeInt
    answer_style: Literal["boxed", "answer_is"]
    prompt: Asking
    system: Plain | None
    filters: Literal["standard", "synthetic"]
    synth: Synth


class Train(Section):
    epochs: PositiveInt
    batch_size: PositiveInt
    max_steps: PositiveInt | None
    lr: PositiveFloat
    warmup_ratio: Share
    min_lr_ratio: Share
    warmup_steps: PositiveInt | None
    weight_decay: NonNegativeFloat
    betas: TwoShares
    clip_grad: PositiveFloat
    lora_rank: PositiveInt | None
    lora_alpha: PositiveInt
    seed: NonNegativeInt
    max_tokens_per_gpu: Mutable[PositiveInt]
    sequence_parallel: Mutable[PositiveInt]
    precision: Literal["bf16", "fp32"]
    deterministic: bool
    attention: Literal["auto", "flash_attn", "varlen", "sdpa"]
    checkpointing: Mutable[Literal["none", "selective", "full"]]
    prefetch: Mutable[bool]
    compile: bool
    fused_optimizer: bool
    liger: bool
    validate_every: Mutable[PositiveInt | None]
    save_every: Mutable[PositiveInt | None]
    keep_last: Mutable[PositiveInt]
    keep_every: Mutable[PositiveInt | None]
    keep_best: Mutable[NonNegativeInt]
    hang_minutes: Mutable[PositiveFloat]
    profile_steps: Mutable[str | None]
    loggers: Mutable[list[Literal["tensorboard", "wandb"]]]
    on_alarm: Mutable[Command | None]
    stop_on_alarm: Mutable[bool | list[Kind]]
    ranks: Mutable[PositiveInt]


class Cluster(Section):
    gpu: KindOfGpu
    gpu_memory_gib: PositiveFloat | None
    gpu_peak_tflops: PositiveFloat | None
    nodes: PositiveInt
    gpus_per_node: PositiveInt
    network_gbits: PositiveInt
    usd_per_gpu_hour: NonNegativeFloat | None


class Eval(Section):
    benchmarks: str
    sets: list[str]
    limit: PositiveInt | None
    rollouts: PositiveInt | None
    temperature: NonNegativeFloat | None
    top_p: Annotated[PositiveFloat, Field(le=1)]
    max_tokens: PositiveInt
    seed: int
    dtype: Literal["auto", "float32", "bfloat16", "nf4"]
    protocol: str | None
    prompt: Asking | None
    system: Plain | None
    prefill: Plain
    extractor: Literal[None, "boxed", "answer_is", "gsm8k_synth"]
    engines: PositiveInt | None
    tensor_parallel: PositiveInt
    concurrency: PositiveInt | None


class Export(Section):
    merge_base: Literal["nf4", "bf16"]


class Run(Section):
    name: Name
    root: Folder
    authors: Mutable[list[str]]


class VerlEngine(Section):
    strategy: Literal["fsdp2"]
    offload_policy: Mutable[bool]


class Verl(Section):
    """The keys of verl that we check; verl checks the others."""

    engine: VerlEngine


class Recipe(Section):
    name: Name
    device: Mutable[Literal["cuda", "cpu"]]
    model: Model
    data: Data
    train: Train
    cluster: Mutable[Cluster]
    eval: Mutable[Eval]
    export: Mutable[Export]
    run: Run
    reference: Mutable[dict[str, Any] | None]
    verl: Verl


def faults(values: Any) -> list[str]:
    """Checks the type and range of every value of a resolved configuration; returns for each wrong
    one its key, what it must be and what it is.
    """
    wrong: dict[str, tuple[str, Any]] = {}
    try:
        Recipe.model_validate(values)
    except ValidationError as e:
        wrong = {_name(error["loc"]): (_wanted(error), error["input"]) for error in e.errors()}
    for key in ("data.name", "run.name"):  # taken from ``name``, unless it is set
        if key in wrong and wrong[key] == wrong.get("name"):
            del wrong[key]
    for place, value in not_finite(values):
        if (key := _name(place)) not in wrong and key not in mirrors():
            wrong[key] = "a finite number", value
    return [f"{key} must be {wanted}, not {value!r}" for key, (wanted, value) in wrong.items()]


def recipe_keys(
    model: type[BaseModel] = Recipe, prefix: str = "", mutable: bool = False
) -> Iterator[tuple[str, bool]]:
    """Yields (dotted name, whether it is mutable) of every key; a free-form mapping is one key."""
    for name, field in model.model_fields.items():
        kind, own = field.annotation, mutable or MUTABLE in field.metadata
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from recipe_keys(kind, f"{prefix}{name}.", own)
        else:
            yield f"{prefix}{name}", own


def _name(place: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).removeprefix(".")


def _wanted(error: Any) -> str:
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        choices = context["expected"].replace(" or ", ", ").replace("'", "")
        return "one of " + choices.replace("None", "null")
    if error["type"] == "greater_than" and context["gt"] == 0:
        return "positive"
    words = WANTED.get(error["type"])
    return words.format(**context) if words else error["msg"].removeprefix("Input should be ")
