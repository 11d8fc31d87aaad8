"""A recipe's sections for text classifiers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.config.base import NoTechnique, Section, Weight
from pipelines.config.by_budget import check_by_budget, check_parts
from pipelines.config.data import Data
from pipelines.config.exploring import Budget, Search
from pipelines.config.levers import Levers, Trial
from pipelines.config.quantizing import BlockwiseForm, DynamicForm, FloatForm, MixedForm, StaticForm
from pipelines.config.task import Task
from pipelines.config.training import Training


class StudentTraining(Training):
    """The loop's settings of a student that learns from a classifier's signals."""

    vocabulary_folds: int | None = Field(
        ge=2,
        le=100,
        description="The vocabulary is dealt into so many folds and each batch read without one of them, drawn anew (as often as any, without none): words then come in pieces too, and so will those that training text lacks (Provilkov et al. 2020, Hiraoka 2022). null: texts are read as the tokenizer cuts them.",
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
    def of_logits(self) -> Losses:
        """These without what reads a token's states."""
        return self.model_copy(update={"hidden_mse": 0.0, "hidden_cosine": 0.0, "relation": 0.0})

    @property
    def wants_hidden(self) -> bool:
        """Whether hidden states of the teacher are read."""
        return self.hidden_mse + self.hidden_cosine > 0


class Teach(Section):
    """The teacher: where it comes from, and its fine-tuning."""

    source: str = Field(
        min_length=1,
        description="`package:NAME/FOLDER` of an installed package, `hub:ORG/NAME@REVISION`, `registry:URL#NAME@VERSION`, or a local folder.",
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
    levers: Levers = Field(description="Synthetic texts that the teacher labels too.")
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


class StudentStatic(Section):
    """A student without layers: the mean of its tokens' vectors, one hidden layer, the head. Microseconds, and blind to the order of words."""

    kind: Literal["static"] = Field(description="No layers: token vectors begun from the teacher's answers, averaged.")
    hidden_size: int = Field(ge=1, le=4096, description="Numbers a token, and width of the hidden layer.")


class Vocabulary(Section):
    """Which tokens stay. Special tokens, single characters and byte fallbacks always do."""

    min_count: int = Field(ge=1, description="Tokens seen at least this often in training and unlabelled text stay.")
    keep_first: int = Field(
        ge=0,
        description="Tokens with a lower id stay whatever their count: pretrained vocabularies put frequent tokens first.",
    )


class PartWithoutLayers(Section):
    """What an elastic student's layers cannot give by slicing: a student of kind `static` beside it, a part like any other to the search."""

    hidden_size: int = Field(ge=1, le=4096, description="As of a static student.")
    training: StudentTraining = Field(
        description="The loop's settings of this part, which learns from the logits alone."
    )


class StudentElastic(Section):
    """One student that holds many: every shape named here is a part of it and shares its weights (Cai et al. 2020, Yu & Huang 2019)."""

    kind: Literal["elastic"] = Field(description="Cut from the teacher, trained so that its parts work alone.")
    layers: list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]] = Field(
        min_length=1,
        description="Teacher layers of each depth, the whole first; every other depth is a part of the whole.",
    )
    intermediate_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        description="FFN widths, widest first; empty where the architecture's cannot be cut."
    )
    num_attention_heads: list[Annotated[int, Field(ge=1)]] = Field(
        description="Heads, most first; empty where the architecture's cannot be cut."
    )
    vocabularies: list[Vocabulary] = Field(min_length=1, description="Which tokens stay, the largest vocabulary first.")
    importance: Literal["taylor", "activation"] = Field(
        description="What puts columns and heads in order, the most important first: as prune.importance."
    )
    calibration_rows: int = Field(ge=1, description="Training texts over which importance is measured.")
    whole_epochs: int = Field(
        ge=0, le=1000, description="Passes in which the whole learns alone, before its units are put in order."
    )
    random_slices: int = Field(
        ge=0, le=16, description="Parts drawn for each batch, beside the whole and the smallest (the sandwich rule)."
    )
    in_place: Weight = Field(description="Weight of the KL from a part to the whole's own answer, beside the losses.")

    without_layers: PartWithoutLayers | None = Field(
        description="A part of no layers, the smallest and fastest of all; null: none."
    )

    @model_validator(mode="after")
    def _parts_of_the_whole(self) -> StudentElastic:
        check_parts(self.layers, self.intermediate_sizes, self.num_attention_heads)
        if bool(self.intermediate_sizes) != bool(self.num_attention_heads):
            raise ValueError("intermediate_sizes and num_attention_heads: name both (one size is enough), or neither")
        return self


class Distill(Section):
    """The student and how it learns from the stored signals."""

    student: StudentLayers | StudentPretrained | StudentRandom | StudentStatic | StudentElastic = Field(
        discriminator="kind", description="Where the student's weights come from."
    )
    losses: Losses = Field(description="What the student minimises.")
    training: StudentTraining = Field(description="The loop's settings.")
    trial: Trial | None = Field(
        description="How the gain of each lever (unlabelled text, label.levers) is measured; null: all of them are used, unmeasured."
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
    recovery: StudentTraining = Field(description="The loop's settings in recovery.")


class ChosenPruning(Section):
    """The cheapest point of the front that holds the budget: cut from the elastic student, recovered alone."""

    technique: Literal["chosen"] = Field(description="Take the point that recipe's `budget` asks for.")
    attempts: int = Field(
        ge=1, le=20, description="Parts that are recovered at most, the cheapest first, until one holds the margin."
    )
    hope: float = Field(
        ge=0, le=100, description="Points of accuracy by which a part may miss the margin before recovery."
    )
    bootstrap_samples: int = Field(ge=100, description="Resamples of the paired bootstrap that holds the margin.")
    losses: Losses = Field(description="What recovery minimises.")
    recovery: StudentTraining = Field(description="The loop's settings in recovery.")


Calibrate = Literal["none", "temperature", "biases"]


class Export(Section):
    """The ONNX export that every quantization starts from."""

    parity: float = Field(
        gt=0,
        le=0.1,
        description="Largest allowed difference of logits, exported fp32 against torch, padded and unpadded.",
    )
    calibrate: Calibrate = Field(
        description="What is fitted on validation and folded into the head, at no cost: a temperature, which changes no answer (Guo et al. 2017), or "
        "with it a bias a class (Alexandari et al. 2020), where cross-validation finds that to help: then a class is answered nearer to as often as validation data has it."
    )


class NoQuantization(Export, FloatForm):
    """float32 ONNX."""


class DynamicInt8(Export, DynamicForm):
    """Weights int8, activations quantized at run time."""


class StaticInt8(Export, StaticForm):
    """Weights and activations int8 with scales fixed on calibration text."""


class Blockwise(Export, BlockwiseForm):
    """Weights of 4 or 8 bits in blocks, activations float."""


class Mixed(Export, MixedForm):
    """Weights of 4 bits in blocks, of 8 where 4 cost the answer most."""


class ChosenQuantization(Export):
    """As the chosen point of the front was measured."""

    technique: Literal["chosen"] = Field(description="The quantization of the point that `prune` has chosen.")


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
        gt=0,
        le=100,
        description="Non-inferiority margin in points: the 95 % bound of the paired loss must stay below. The teacher is held as it was taught, without quantize.calibrate.",
    )
    max_bytes: int = Field(ge=1, description="Largest download in bytes.")
    min_size_ratio: float = Field(gt=0, description="Teacher's bytes over the model's.")
    min_latency_ratio: float = Field(gt=0, description="Teacher's p50 (torch eager, batch 1) over the model's.")
    max_calibration_error: float = Field(gt=0, le=1, description="Largest expected calibration error.")


class ClassificationRecipe(Section):
    """A text classifier: one label a text."""

    task: Task = Field(description="What the model is for, and what every stage shares.")
    data: Data = Field(description="Where the rows come from and what they must satisfy.")
    teach: Teach = Field(description="The teacher.")
    label: Label = Field(description="The signals that the teacher leaves.")
    distill: Distill = Field(description="The student.")
    explore: NoTechnique | Search = Field(
        discriminator="technique", description="What the shapes of an elastic student cost and reach."
    )
    budget: Budget | None = Field(description="What the model may cost; null: its shape stands in the recipe.")
    prune: NoTechnique | StructuredPruning | ChosenPruning = Field(
        discriminator="technique", description="Structured pruning, or the cut that the budget chooses."
    )
    quantize: NoQuantization | DynamicInt8 | StaticInt8 | Blockwise | Mixed | ChosenQuantization = Field(
        discriminator="technique", description="Export and quantization."
    )
    evaluate: Evaluate = Field(description="How the result is measured.")
    gate: Gate = Field(description="What the result must hold.")

    @model_validator(mode="after")
    def _signals_are_stored(self) -> ClassificationRecipe:
        users = [("distill", self.distill.losses)]
        if isinstance(self.prune, StructuredPruning | ChosenPruning):
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
    def _a_budget_needs_a_front(self) -> ClassificationRecipe:
        check_by_budget(
            elastic=isinstance(self.distill.student, StudentElastic),
            search=isinstance(self.explore, Search),
            budget=self.budget is not None,
            prune=isinstance(self.prune, ChosenPruning),
            quantize=isinstance(self.quantize, ChosenQuantization),
        )
        return self

    @model_validator(mode="after")
    def _the_gate_is_no_tighter_than_the_budget(self) -> ClassificationRecipe:
        """Otherwise a point would be chosen, recovered and looked at on test data, only to be refused."""
        if self.budget is None:
            return self
        for name, sought in (("max_bytes", "bytes"), ("max_accuracy_loss", "accuracy_loss")):
            wanted, held = getattr(self.budget, name), getattr(self.gate, name)
            if wanted is None and self.budget.cheapest == sought:
                continue  # the choice is the best there is
            if wanted is None or wanted > held:
                raise ValueError(
                    f"budget.{name} is {'null' if wanted is None else f'{wanted:g}'}, and gate.{name} refuses more than {held:g}: "
                    f"the choice must not be one that is refused; set the budget's to {held:g} at most, or raise the gate's"
                )
        return self

    @model_validator(mode="after")
    def _layers_agree(self) -> ClassificationRecipe:
        student = self.distill.student
        if isinstance(student, StudentStatic):
            self._no_layer_is_read()
        if (
            self.distill.losses.wants_hidden
            and isinstance(student, StudentLayers)
            and not set(student.layers) & set(self.label.hidden_layers)
        ):
            raise ValueError(
                f"distill.losses reads hidden states, but label.hidden_layers {self.label.hidden_layers} holds none of distill.student.layers {student.layers}"
            )
        if isinstance(student, StudentElastic) and isinstance(self.prune, ChosenPruning):
            self._every_part_has_a_lesson(student, self.prune)
        return self

    def _every_part_has_a_lesson(self, student: StudentElastic, prune: ChosenPruning) -> None:
        """Raise ValueError where the whole, or a part in recovery, would read hidden states of which none is stored."""
        # Importance is measured at every depth, with the losses of `distill`.
        depths = student.layers if student.intermediate_sizes else student.layers[:1]
        users = [("distill", self.distill.losses, depths), ("prune", prune.losses, student.layers)]
        for stage, losses, read in users:
            without = [layers for layers in read if not set(layers) & set(self.label.hidden_layers)]
            if losses.wants_hidden and without:
                raise ValueError(
                    f"{stage}.losses reads hidden states, but label.hidden_layers {self.label.hidden_layers} holds none of "
                    f"the layers {without[0]} that distill.student.layers names: store one of them, or set the weights to 0"
                )
            if losses.relation > 0:
                raise ValueError(
                    f"{stage}.losses.relation is {losses.relation}, but an elastic student's heads are put in order of importance, and "
                    "no longer answer to the teacher's one by one: set it to 0"
                )

    def _no_layer_is_read(self) -> None:
        """Raise ValueError where a loss reads layers that a static student has not."""
        users = {"distill": self.distill.losses}
        if isinstance(self.prune, StructuredPruning):
            users["prune"] = self.prune.losses
        for stage, losses in users.items():
            if losses != losses.of_logits:
                raise ValueError(
                    f"a static student has no layers: set hidden_mse, hidden_cosine and relation of {stage}.losses to 0"
                )
