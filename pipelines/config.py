"""The schema of params.yaml: every field, its type, its range and the sentence that explains it. No defaults.

A recipe is one block of `models:`; each stage reads the sections that its signature names (see pipelines/__main__.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.errors import RecipeError

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,127}"

Action = Literal["fail", "quarantine"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1000)]


class Section(BaseModel):
    """A block of the recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(Section):
    """What the model is for, and what every stage shares."""

    type: Literal["text-classification"] = Field(description="Task; decides the model family (families/).")
    seed: int = Field(
        ge=0, lt=2**31, description="Seed of every random choice: splits, order of batches, fresh weights."
    )
    max_length: int = Field(ge=8, le=512, description="Longest text in tokens; what is longer is cut at this length.")
    threads: int = Field(
        ge=1,
        le=64,
        description="CPU threads for training and labelling. Part of the record: it changes the order of sums.",
    )


# --- data -------------------------------------------------------------------------------------------------------------


class GivenSplits(Section):
    """The source is a folder that already holds its splits."""

    kind: Literal["given"] = Field(description="The splits are files in the source folder.")
    train: str = Field(description="File of training rows, relative to the source folder.")
    validation: str | Fraction = Field(description="File of validation rows, or the fraction to cut from train.")
    test: str = Field(description="File of test rows, relative to the source folder.")


class MadeSplits(Section):
    """The factory cuts the splits: seeded, stratified, near-duplicates kept together."""

    kind: Literal["made"] = Field(description="The factory cuts the splits from one file.")
    file: str | None = Field(description="File in the source folder; null where the source is itself a file.")
    validation: Fraction = Field(description="Fraction of the rows for validation.")
    test: Fraction = Field(description="Fraction of the rows for test.")


class LongText(Section):
    """Bound on the length of a text."""

    action: Action = Field(description="What to do with a longer text.")
    max_chars: int = Field(ge=1, description="Longest text in characters.")


class LabelSet(Section):
    """The labels that may occur."""

    action: Action = Field(description="What to do with a row whose label is not allowed, or whose label train lacks.")
    allowed: list[str] | None = Field(description="The complete label set; null: whatever train holds.")


class ClassCount(Section):
    """Bound on the number of rows of a class."""

    action: Action = Field(description="What to do with the rows of a smaller class.")
    min_rows: int = Field(ge=2, description="Fewest training rows a class needs.")


class NearDuplicates(Section):
    """Texts of one split that almost stand in another; test rows are never dropped for it."""

    action: Action = Field(
        description="What to do with a training row that almost stands in validation or test, or a validation row in test."
    )
    similarity: Fraction = Field(
        description="Jaccard similarity of character 4-grams from which two texts are near-duplicates."
    )


class Language(Section):
    """The language that the texts should be in."""

    action: Action = Field(description="What to do with a text in another language.")
    expected: str = Field(pattern="^[a-z]{2}$", description="ISO 639-1 code.")
    confidence: Fraction = Field(description="How sure the detector must be of another language before a row counts.")


class Checks(Section):
    """What `validate` checks; each finding either fails the stage or quarantines the row."""

    empty_text: Action = Field(description="Text missing or only white space.")
    long_text: LongText = Field(description="Text longer than a bound.")
    missing_label: Action = Field(description="Label missing, NaN or only white space.")
    label_set: LabelSet = Field(description="Label outside the set; or, in validation and test, unknown to train.")
    class_count: ClassCount = Field(description="Class with too few training rows.")
    duplicates: Action = Field(description="The same text and label twice in one split; quarantine keeps the first.")
    conflicting_labels: Action = Field(
        description="The same text under two labels; quarantine drops every one of them."
    )
    leakage_exact: Action = Field(
        description="A training text that also stands in validation or test, or a validation text in test; quarantine never drops from test."
    )
    leakage_near: NearDuplicates = Field(description="As leakage_exact, for texts that almost stand there.")
    encoding_damage: Action = Field(description="Replacement characters, control characters, or UTF-8 read as Latin-1.")
    language: Language | None = Field(description="Language check; null turns it off.")


class Data(Section):
    """Where the rows come from, how they are cut, and what they must satisfy."""

    source: str = Field(
        min_length=1,
        description="File or folder of the project, http(s):// or s3:// address, or a `*.hub.json` pointer (repo, revision, file). CSV, JSONL or Parquet.",
    )
    text_column: str = Field(min_length=1, description="Column that holds the text.")
    label_column: str = Field(min_length=1, description="Column that holds the label.")
    splits: GivenSplits | MadeSplits = Field(
        discriminator="kind", description="Given by files, or made by the factory."
    )
    unlabelled: str | None = Field(
        description="File of unlabelled text (one text a row or line) in the source folder; the student learns from it too."
    )
    checks: Checks = Field(description="What is checked, and what a finding does.")

    @model_validator(mode="after")
    def _two_columns(self) -> Data:
        if self.text_column == self.label_column:
            raise ValueError(f"text_column and label_column are both {self.text_column!r}: name two columns")
        return self


# --- training ---------------------------------------------------------------------------------------------------------


class Training(Section):
    """The one training loop's settings."""

    epochs: int = Field(ge=1, le=1000, description="Most passes over the training text.")
    batch_size: int = Field(ge=1, le=4096, description="Texts a step.")
    learning_rate: float = Field(gt=0, lt=1, description="Peak of the schedule (linear warm-up, then cosine to zero).")
    warmup_ratio: float = Field(ge=0, lt=1, description="Share of the steps that warm up.")
    weight_decay: float = Field(ge=0, lt=1, description="AdamW decay of matrices; vectors and embeddings are spared.")
    max_grad_norm: float = Field(gt=0, description="Gradient norm above which gradients are scaled down.")
    patience: int = Field(
        ge=1, description="Epochs without a better validation loss before training stops; the best epoch is kept."
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        description="Arithmetic of the forward pass. auto: bf16 where the processor has bf16 instructions, else fp32."
    )


class Losses(Section):
    """Weights of the distillation losses; zero turns one off."""

    kl: Weight = Field(description="Forward KL of softened probabilities (Hinton et al. 2015).")
    reverse_kl: Weight = Field(description="Reverse KL (mode seeking; Gu et al. 2024).")
    cross_entropy: Weight = Field(description="Cross-entropy with the true label; unlabelled text has none.")
    hidden_mse: Weight = Field(description="Mean squared error of hidden states of matched layers (Jiao et al. 2020).")
    hidden_cosine: Weight = Field(description="One minus cosine of hidden states of matched layers (Sanh et al. 2019).")
    relation: Weight = Field(
        description="MiniLM relations of queries, keys and values of the last layer (Wang et al. 2021)."
    )
    temperature: float = Field(gt=0, le=100, description="Softens both sides of the KL losses.")

    @model_validator(mode="after")
    def _something_to_learn(self) -> Losses:
        if self.kl + self.reverse_kl + self.cross_entropy <= 0:
            raise ValueError(
                "at least one of kl, reverse_kl and cross_entropy must be above 0: nothing else reaches the classifier"
            )
        return self

    @property
    def wants_hidden(self) -> bool:
        """Whether hidden states of the teacher are read."""
        return self.hidden_mse + self.hidden_cosine > 0


class Teach(Section):
    """The teacher: where it comes from, and its fine-tuning."""

    source: str = Field(
        min_length=1,
        description="`package:NAME/FOLDER` of an installed package, `hub:ORG/NAME@REVISION`, or a local folder.",
    )
    sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="Digest of the source's model.safetensors; anything else is refused."
    )
    mode: Literal["finetune", "ready"] = Field(
        description="`finetune` on the task, or `ready`: the source already is a classifier of these labels."
    )
    label_smoothing: float = Field(ge=0, lt=1, description="Smoothing of the true labels while fine-tuning.")
    training: Training = Field(description="Fine-tuning; read in mode `finetune` only.")


class Label(Section):
    """What the teacher's one pass over the training text stores."""

    batch_size: int = Field(ge=1, le=4096, description="Texts a forward pass.")
    hidden_layers: list[Annotated[int, Field(ge=0)]] = Field(
        description="Teacher layers (0 is the first) whose output is stored, float16, a vector a token."
    )
    synthetic_copies: int = Field(
        ge=0,
        le=100,
        description="Synthetic variations of each training text that the teacher labels too (cut-mix, dropped words, typos); 0 makes none.",
    )
    relations: bool = Field(
        description="Store queries, keys and values of the teacher's last layer, for the relation loss."
    )


class StudentLayers(Section):
    """A student cut from the teacher."""

    kind: Literal["layers"] = Field(description="Copies of chosen teacher layers, with its embeddings and head.")
    layers: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="Teacher layers to keep, in order.")


class StudentPretrained(Section):
    """A smaller pretrained model with the teacher's vocabulary or its own."""

    kind: Literal["pretrained"] = Field(description="A smaller pretrained model.")
    source: str = Field(min_length=1, description="As teach.source.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="As teach.sha256.")


class StudentRandom(Section):
    """A fresh student of the teacher's architecture, the control that shows what the teacher's weights are worth."""

    kind: Literal["random"] = Field(description="Fresh weights, teacher's architecture and tokenizer.")
    num_hidden_layers: int = Field(ge=1, description="Layers of the fresh student.")


class Distill(Section):
    """The student and how it learns from the stored signals."""

    student: StudentLayers | StudentPretrained | StudentRandom = Field(
        discriminator="kind", description="Where the student's weights come from."
    )
    losses: Losses = Field(description="What the student minimises.")
    training: Training = Field(description="The loop's settings.")


# --- making it smaller ------------------------------------------------------------------------------------------------


class NoTechnique(Section):
    """Identity: the stage copies its input."""

    technique: Literal["none"] = Field(description="Copy the input.")


class Vocabulary(Section):
    """Which tokens stay. Special tokens, single characters and byte fallbacks always do."""

    min_count: int = Field(ge=1, description="Tokens seen at least this often in training and unlabelled text stay.")
    keep_first: int = Field(
        ge=0,
        description="Tokens with a lower id stay whatever their count: pretrained vocabularies put frequent tokens first.",
    )


class StructuredPruning(Section):
    """Iterative structured pruning with recovery against the stored signals."""

    technique: Literal["structured"] = Field(description="Remove whole units: tokens, layers, FFN columns, heads.")
    importance: Literal["taylor", "activation"] = Field(
        description="Taylor: |gradient x activation| on training text; activation: mean |activation|."
    )
    calibration_rows: int = Field(ge=1, description="Training texts over which importance is measured.")
    steps: int = Field(ge=1, le=20, description="Cuts on the way to the target; each is followed by a recovery.")
    num_hidden_layers: int | None = Field(ge=1, description="Layers to keep; null keeps all.")
    intermediate_size: int | None = Field(ge=1, description="FFN width to keep in every layer; null keeps it.")
    num_attention_heads: int | None = Field(ge=1, description="Heads to keep in every layer; null keeps all.")
    vocabulary: Vocabulary | None = Field(description="Which tokens leave the vocabulary; null keeps all.")
    losses: Losses = Field(description="What recovery minimises.")
    step_epochs: int = Field(
        ge=1, description="Epochs of recovery after each cut but the last; the last has recovery.epochs."
    )
    recovery: Training = Field(description="The loop's settings in recovery.")


class Export(Section):
    """The ONNX export that every quantization starts from."""

    parity: float = Field(
        gt=0,
        le=0.1,
        description="Largest allowed difference of logits, exported fp32 against torch, padded and unpadded.",
    )
    calibrate: bool = Field(
        description="Scale the logits by a temperature fitted on validation (Guo et al. 2017), folded into the head: no cost, no label changes."
    )


class NoQuantization(Export):
    """float32 ONNX."""

    technique: Literal["none"] = Field(description="Export only.")


class DynamicInt8(Export):
    """Weights int8, activations quantized at run time."""

    technique: Literal["dynamic_int8"] = Field(description="int8 weights, scales of activations found at run time.")
    per_channel: bool = Field(description="A scale for each output column instead of each matrix.")


class StaticInt8(Export):
    """Weights and activations int8 with scales fixed on calibration text."""

    technique: Literal["static_int8"] = Field(description="int8 weights and activations, scales fixed beforehand.")
    per_channel: bool = Field(description="A scale for each output column instead of each matrix.")
    calibration_rows: int = Field(ge=1, description="Training texts that fix the scales.")


# --- measuring --------------------------------------------------------------------------------------------------------


class Evaluate(Section):
    """How teacher and exported model are measured, side by side."""

    threads: int = Field(ge=1, le=64, description="Threads of both sides while timing.")
    latency_rounds: int = Field(ge=10, description="Timed single texts a side, in alternating order.")
    throughput_seconds: float = Field(gt=0, le=600, description="Seconds of batch-32 work a side.")
    bootstrap_samples: int = Field(ge=100, description="Resamples of the paired bootstrap.")
    calibration_bins: int = Field(ge=2, le=100, description="Bins of the expected calibration error.")


class Gate(Section):
    """What the finished model must hold before anything is published."""

    max_accuracy_loss: float = Field(
        gt=0, le=100, description="Non-inferiority margin in points: the 95 % bound of the paired loss must stay below."
    )
    max_bytes: int = Field(ge=1, description="Largest download in bytes.")
    min_size_ratio: float = Field(gt=0, description="Teacher's bytes over the model's.")
    min_latency_ratio: float = Field(gt=0, description="Teacher's p50 (torch eager, batch 1) over the model's.")
    max_calibration_error: float = Field(gt=0, le=1, description="Largest expected calibration error.")


class Recipe(Section):
    """One model: one block of params.yaml."""

    task: Task = Field(description="What the model is for, and what every stage shares.")
    data: Data = Field(description="Where the rows come from and what they must satisfy.")
    teach: Teach = Field(description="The teacher.")
    label: Label = Field(description="The signals that the teacher leaves.")
    distill: Distill = Field(description="The student.")
    prune: NoTechnique | StructuredPruning = Field(discriminator="technique", description="Structured pruning.")
    quantize: NoQuantization | DynamicInt8 | StaticInt8 = Field(
        discriminator="technique", description="Export and quantization."
    )
    evaluate: Evaluate = Field(description="How the result is measured.")
    gate: Gate = Field(description="What the result must hold.")

    @model_validator(mode="after")
    def _signals_are_stored(self) -> Recipe:
        users = [("distill", self.distill.losses)]
        if isinstance(self.prune, StructuredPruning):
            users.append(("prune", self.prune.losses))
        for stage, losses in users:
            if losses.wants_hidden and not self.label.hidden_layers:
                raise ValueError(
                    f"{stage}.losses reads hidden states, but label.hidden_layers is empty: name the layers to store, or set the weights to 0"
                )
            if losses.relation > 0 and not self.label.relations:
                raise ValueError(
                    f"{stage}.losses.relation is {losses.relation}, but label.relations is false: set it to true, or the weight to 0"
                )
        return self

    @model_validator(mode="after")
    def _layers_agree(self) -> Recipe:
        student = self.distill.student
        if (
            self.distill.losses.wants_hidden
            and isinstance(student, StudentLayers)
            and not set(student.layers) & set(self.label.hidden_layers)
        ):
            raise ValueError(
                f"distill.losses reads hidden states, but label.hidden_layers {self.label.hidden_layers} holds none of distill.student.layers {student.layers}"
            )
        if isinstance(self.data.splits, MadeSplits) and self.data.splits.validation + self.data.splits.test >= 1:
            raise ValueError(
                "data.splits.validation + data.splits.test must be below 1: nothing would be left for train"
            )
        if (
            isinstance(self.data.splits, MadeSplits)
            and self.data.unlabelled is not None
            and self.data.splits.file is None
        ):
            raise ValueError(
                "data.unlabelled names a file in the source folder, so data.splits.file must name the labelled one"
            )
        return self


class Params(Section):
    """The whole of params.yaml."""

    models: dict[Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")], Recipe] = Field(description="One recipe a model.")


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises RecipeError naming every bad key, its value and what is allowed.
    """
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(
            f"{path}: no such file; run from the project's folder, or write a recipe with `python -m flows new`"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(path, item) for item in error.errors())) from error


def load_recipe(path: Path, model: str) -> Recipe:
    """The recipe of one model; RecipeError where it is missing or wrong."""
    params = load_params(path)
    if model not in params.models:
        raise RecipeError(
            f"{path}: no model {model!r} under `models`; there are: {', '.join(sorted(params.models)) or 'none'}"
        )
    return params.models[model]


def _explain(path: Path, item: Any) -> str:
    """One line for one pydantic finding: key, value, what is allowed."""
    key = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{path}: {key}: unknown key (value {item['input']!r}); remove it, or see docs/recipe.md for the keys there are"
    if item["type"] == "missing":
        return f"{path}: {key}: missing; every value stands in params.yaml, see docs/recipe.md"
    value = (
        item["input"] if isinstance(item["input"], str | int | float | bool | None) else type(item["input"]).__name__
    )
    return f"{path}: {key}: {value!r}: {message}"
