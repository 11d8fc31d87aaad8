"""A recipe's sections for models that answer token by token: causal, text-to-text, token classification."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.config.base import NoTechnique, Section, Weight
from pipelines.config.by_budget import check_by_budget, check_parts
from pipelines.config.classification import ChosenPruning, StudentLayers, Vocabulary
from pipelines.config.data import TaggedData, TargetData, TextData
from pipelines.config.exploring import TaggerBudget, TokenSearch, WriterBudget, WriterSearch
from pipelines.config.quantizing import BlockwiseForm, DynamicForm, FloatForm, MixedForm
from pipelines.config.remote import ApiTeacher
from pipelines.config.task import Task, TextToTextTask
from pipelines.config.teachers import FreshModel, FreshTeacher, ReadyTeacher, Sha256, Size, TrustedCode, TunedTeacher
from pipelines.config.training import Training

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "uld"]


class TopKSignals(Section):
    """The teacher's likeliest classes at each prediction."""

    kind: Literal["top_k"] = Field(description="The k likeliest, and the mass of the rest.")
    k: int = Field(ge=1, le=255, description="Classes stored a prediction; more than there are is all of them.")


class SampledSignals(Section):
    """Draws from the teacher's distribution at each prediction."""

    kind: Literal["sampled"] = Field(
        description="Draws: an unbiased estimate of the whole distribution's cross-entropy."
    )
    k: int = Field(ge=1, le=255, description="Draws a prediction.")


class TeacherTexts(Section):
    """Texts that the teacher writes for the student to learn from (sequence-level distillation; Kim & Rush 2016)."""

    rows: int = Field(ge=1, description="Training rows that it continues or answers.")
    prompt_tokens: int = Field(ge=1, description="Tokens of a row that it is given (text-generation).")
    max_new_tokens: int = Field(ge=1, description="Tokens that it writes at most.")
    temperature: float = Field(ge=0, le=10, description="0: the likeliest token each time.")
    replace: bool = Field(description="true: they stand in for the training rows; false: the student learns from both.")


class TokenLabel(Section):
    """What the teacher's one pass over the training text stores."""

    batch_size: int = Field(ge=1, le=4096, description="Examples a forward pass.")
    signals: TopKSignals | SampledSignals = Field(discriminator="kind", description="What is stored a prediction.")
    texts: TeacherTexts | None = Field(description="Texts that the teacher writes (not of taggers); null: none.")


class FreshStudent(Section):
    """A student of fresh weights: the teacher's architecture and tokenizer, other sizes."""

    kind: Literal["random"] = Field(description="Fresh weights, the teacher's architecture and tokenizer.")
    sizes: dict[str, Size] = Field(description="Keys of the config that differ from the teacher's.")


class ScratchStudent(FreshModel):
    """A student of fresh weights that shares nothing with its teacher."""

    place: ClassVar[str] = "distill.student"
    kind: Literal["scratch"] = Field(description="Fresh weights, an architecture and a tokenizer of its own.")


class OtherStudent(Section):
    """A smaller pretrained model."""

    kind: Literal["pretrained"] = Field(description="A smaller pretrained model, with its own tokenizer.")
    source: str = Field(min_length=1, description="As teach.source.")
    sha256: Sha256 = Field(description="As teach.sha256.")
    trust_remote_code: TrustedCode | None = Field(description="As teach.trust_remote_code.")


class ElasticTokens(Section):
    """One student that holds many: every shape named here is a part of it and shares its weights (Cai et al. 2020, Yu & Huang 2019)."""

    kind: Literal["elastic"] = Field(description="Cut from the teacher, trained so that its parts work alone.")
    layers: list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]] = Field(
        min_length=1,
        description="Teacher layers of each depth, the whole first; every other depth is a part of the whole.",
    )
    intermediate_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        description="FFN widths, widest first; empty: the teacher's alone."
    )
    num_attention_heads: list[Annotated[int, Field(ge=1)]] = Field(
        description="Heads, most first, whole KV groups each; empty: the teacher's alone."
    )
    vocabulary: Vocabulary | None = Field(
        description="Which tokens leave the vocabulary of every part, after recovery; null keeps all."
    )
    importance: Literal["taylor", "magnitude"] = Field(
        description="What puts columns and heads in order, the most important first: as prune.importance."
    )
    calibration_rows: int = Field(ge=1, description="Examples over which importance is measured.")
    whole_epochs: int = Field(
        ge=0, le=1000, description="Passes in which the whole learns alone, before its units are put in order."
    )
    random_slices: int = Field(
        ge=0, le=16, description="Parts drawn for each batch, beside the whole and the smallest (the sandwich rule)."
    )
    in_place: Weight = Field(description="Weight of the KL from a part to the whole's own answer, beside the losses.")

    @model_validator(mode="after")
    def _parts_of_the_whole(self) -> ElasticTokens:
        check_parts(self.layers, self.intermediate_sizes, self.num_attention_heads)
        return self


class TokenLosses(Section):
    """What a student minimises a prediction: weight x divergence from the teacher + cross-entropy with the true class."""

    divergence: Divergence = Field(
        description="Forward or reverse KL, generalized JSD (Agarwal et al. 2024), skew KL either way (Ko et al. 2024): of one tokenizer; universal logit distillation (Boizard et al. 2024): across tokenizers too."
    )
    weight: Weight = Field(
        description="Weight of the divergence; 0: from texts alone, the data's and those of label.texts."
    )
    mixture: float = Field(
        gt=0, lt=1, description="JSD's beta; the skew divergences' alpha. The others do not read it."
    )
    temperature: float = Field(gt=0, le=100, description="Softens both sides of the divergence.")
    cross_entropy: Weight = Field(description="Weight of the cross-entropy with the true class.")
    chunk_rows: int = Field(
        ge=1, description="Predictions whose logits are in memory at once; the backward pass computes them again."
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> TokenLosses:
        if self.weight + self.cross_entropy <= 0:
            raise ValueError("weight and cross_entropy are both 0: the student would learn nothing")
        return self


class OnPolicy(Section):
    """Batches of texts that the student writes and the teacher scores (Agarwal et al. 2024)."""

    share: float = Field(gt=0, le=1, description="Share of the batches.")
    prompt_tokens: int = Field(
        ge=1, description="Tokens of a training row that the student is given (text-generation)."
    )
    max_new_tokens: int = Field(ge=1, description="Tokens that it writes.")
    temperature: float = Field(gt=0, le=10, description="Of its sampling.")


class TokenDistill(Section):
    """The student and how it learns."""

    student: StudentLayers | FreshStudent | ScratchStudent | OtherStudent | ElasticTokens = Field(
        discriminator="kind", description="Where the student's weights come from."
    )
    losses: TokenLosses = Field(description="What the student minimises.")
    on_policy: OnPolicy | None = Field(
        description="Learning from its own texts (not of taggers); null: from the stored signals alone."
    )
    control: bool = Field(
        description="Train the same student on the data alone too, without a teacher, and report it beside the distilled one."
    )
    training: Training = Field(description="The loop's settings.")


class PairDistill(TokenDistill):
    """The same of two stacks, which have no elastic student."""

    student: StudentLayers | FreshStudent | ScratchStudent | OtherStudent = Field(
        discriminator="kind", description="Where the student's weights come from."
    )


class ShapePruning(Section):
    """Structured pruning of whatever widths the architecture's config can express, with recovery on the signals."""

    technique: Literal["structured"] = Field(description="Remove whole units: tokens, layers, columns, heads, experts.")
    importance: Literal["taylor", "magnitude"] = Field(
        description="taylor: |weight x gradient| of a unit on training text; magnitude: |weight|."
    )
    calibration_rows: int = Field(ge=1, description="Examples over which importance is measured.")
    steps: int = Field(ge=1, le=20, description="Cuts on the way to the target; each is followed by a recovery.")
    num_hidden_layers: int | None = Field(ge=1, description="Layers to keep; null keeps all.")
    intermediate_size: int | None = Field(ge=1, description="FFN width to keep in every layer; null keeps it.")
    num_attention_heads: int | None = Field(ge=1, description="Heads to keep in every layer; null keeps all.")
    hidden_size: int | None = Field(ge=1, description="Residual width to keep; null keeps it.")
    num_experts: int | None = Field(ge=1, description="Experts to keep in every layer; null keeps all.")
    vocabulary: Vocabulary | None = Field(description="Which tokens leave the vocabulary; null keeps all.")
    losses: TokenLosses = Field(description="What recovery minimises.")
    step_epochs: int = Field(
        ge=1, description="Epochs of recovery after each cut but the last; the last has recovery.epochs."
    )
    recovery: Training = Field(description="The loop's settings in recovery.")


class ChosenShape(Section):
    """The cheapest point of the front that holds the budget: cut from the elastic student, recovered alone."""

    technique: Literal["chosen"] = Field(description="Take the point that recipe's `budget` asks for.")
    attempts: int = Field(
        ge=1, le=20, description="Parts that are recovered at most, the cheapest first, until one holds the margin."
    )
    hope: float = Field(
        ge=0,
        le=100,
        description="By how much a part may miss the budget's loss before recovery, in its unit.",
    )
    bootstrap_samples: int = Field(ge=100, description="Resamples of the paired bootstrap that holds the margin.")
    losses: TokenLosses = Field(description="What recovery minimises.")
    recovery: Training = Field(description="The loop's settings in recovery.")


#: The cut that a budget chooses, whatever the task.
AnyChosenPruning = ChosenPruning | ChosenShape


class ExactExport(Section):
    """The ONNX export that every quantization starts from."""

    parity: float = Field(
        gt=0,
        le=0.1,
        description="Largest allowed difference of logits, exported fp32 against torch, padded and unpadded; greedy tokens must be the same.",
    )


class FloatTokens(ExactExport, FloatForm):
    """float32 ONNX."""


class Int8Tokens(ExactExport, DynamicForm):
    """Weights int8, activations quantized at run time."""


class BlockwiseTokens(ExactExport, BlockwiseForm):
    """Weights of 4 or 8 bits in blocks, activations float."""


class MixedTokens(ExactExport, MixedForm):
    """Weights of 4 bits in blocks, of 8 where 4 cost the answer most."""


class ChosenTokens(ExactExport):
    """As the chosen point of the front was measured."""

    technique: Literal["chosen"] = Field(description="The quantization of the point that `prune` has chosen.")


class TokenEvaluate(Section):
    """How teacher and exported model are measured, side by side."""

    threads: int = Field(ge=1, le=64, description="Threads of both sides while timing.")
    rows: int = Field(ge=1, description="Test rows that are answered or continued; all are scored.")
    prompt_tokens: int = Field(ge=1, description="Tokens of a row that a continuation starts from (text-generation).")
    new_tokens: int = Field(ge=1, description="Tokens written a row, and timed.")
    latency_rounds: int = Field(ge=3, description="Timed generations a side, in alternating order.")
    bootstrap_samples: int = Field(ge=100, description="Resamples of the paired bootstrap.")


class MetricBound(Section):
    """A bound on one number of metrics.json."""

    metric: str = Field(pattern=r"^[\w-]+(\.[\w-]+)+$", description="Its path: `model.bits_per_byte`.")
    at_most: float | None = Field(description="Largest value allowed; null: none.")
    at_least: float | None = Field(description="Smallest value allowed; null: none.")

    @model_validator(mode="after")
    def _some_bound(self) -> MetricBound:
        if self.at_most is None and self.at_least is None:
            raise ValueError(f"{self.metric}: at_most and at_least are both null: nothing is bounded")
        return self


class MetricGate(Section):
    """What the finished model must hold before anything is published."""

    bounds: list[MetricBound] = Field(min_length=1, description="Each must hold.")


class SequenceRecipe(Section):
    """A model that answers token by token."""

    task: Task = Field(description="What the model is for, and what every stage shares.")
    data: TextData = Field(description="Where the rows come from and what they must satisfy.")
    teach: FreshTeacher | TunedTeacher | ReadyTeacher | ApiTeacher = Field(
        discriminator="mode", description="The teacher."
    )
    label: TokenLabel = Field(description="The signals that the teacher leaves.")
    distill: TokenDistill = Field(description="The student.")
    explore: NoTechnique | TokenSearch = Field(
        discriminator="technique", description="What the shapes of an elastic student cost and reach."
    )
    budget: TaggerBudget | WriterBudget | None = Field(
        description="What the model may cost; null: its shape stands in the recipe."
    )
    prune: NoTechnique | ShapePruning | ChosenShape = Field(
        discriminator="technique", description="Structured pruning, or the cut that the budget chooses."
    )
    quantize: FloatTokens | Int8Tokens | BlockwiseTokens | MixedTokens | ChosenTokens = Field(
        discriminator="technique", description="Export and quantization."
    )
    evaluate: TokenEvaluate = Field(description="How the result is measured.")
    gate: MetricGate = Field(description="What the result must hold.")

    @model_validator(mode="after")
    def _draws_serve_forward_kl(self) -> SequenceRecipe:
        for stage, losses in self.losses():
            if (
                isinstance(self.label.signals, SampledSignals)
                and losses.weight > 0
                and losses.divergence != "forward_kl"
            ):
                raise ValueError(
                    f"{stage}.losses.divergence is {losses.divergence}, but draws (label.signals.kind: sampled) serve "
                    "forward_kl alone; store top_k, or use forward_kl"
                )
        return self

    @model_validator(mode="after")
    def _a_budget_needs_a_front(self) -> SequenceRecipe:
        check_by_budget(
            elastic=isinstance(self.distill.student, ElasticTokens),
            search=isinstance(self.explore, TokenSearch),
            budget=self.budget is not None,
            prune=isinstance(self.prune, ChosenShape),
            quantize=isinstance(self.quantize, ChosenTokens),
        )
        return self

    @model_validator(mode="after")
    def _the_gate_is_no_tighter_than_the_budget(self) -> SequenceRecipe:
        """Of bytes, which a point has for certain; else one would be chosen, recovered and looked at on test data, only to be refused."""
        if self.budget is None or (self.budget.max_bytes is None and self.budget.cheapest == "bytes"):
            return self  # the choice is the smallest there is
        wanted = self.budget.max_bytes
        for bound in self.gate.bounds:
            held = bound.at_most if bound.metric == "model.bytes" else None
            if held is not None and (wanted is None or wanted > held):
                raise ValueError(
                    f"budget.max_bytes is {'null' if wanted is None else f'{wanted:g}'}, and gate.bounds refuses a model.bytes above {held:g}: "
                    "the choice must not be one that is refused; lower the budget's, or raise the gate's"
                )
        return self

    @model_validator(mode="after")
    def _an_elastic_student_learns_from_what_is_stored(self) -> SequenceRecipe:
        """Its parts are taught by the whole; texts of its own, and a twin without a teacher, are not built for it."""
        if isinstance(self.distill.student, ElasticTokens):
            for name, there in (("on_policy", self.distill.on_policy is not None), ("control", self.distill.control)):
                if there:
                    raise ValueError(
                        f"distill.{name} is of a student of one shape; set it to {'null' if name == 'on_policy' else 'false'} beside an elastic one"
                    )
            for stage, losses in self.losses():
                if losses.divergence == "uld":
                    raise ValueError(
                        f"{stage}.losses.divergence is uld, of two tokenizers; an elastic student has its teacher's: use another"
                    )
        return self

    def losses(self) -> list[tuple[str, TokenLosses]]:
        """What is minimised, by the stage that does."""
        pruning = [("prune", self.prune.losses)] if isinstance(self.prune, ShapePruning | ChosenShape) else []
        return [("distill", self.distill.losses), *pruning]


class TextGenerationRecipe(SequenceRecipe):
    """A causal language model."""

    explore: NoTechnique | WriterSearch = Field(
        discriminator="technique", description="What the shapes of an elastic student cost and reach."
    )
    budget: WriterBudget | None = Field(description="What the model may cost; null: its shape stands in the recipe.")

    @model_validator(mode="after")
    def _continuations_fit(self) -> TextGenerationRecipe:
        wanted = self.evaluate.prompt_tokens + self.evaluate.new_tokens
        if wanted > self.task.max_length:
            raise ValueError(
                f"evaluate.prompt_tokens + evaluate.new_tokens is {wanted}, beyond task.max_length {self.task.max_length}"
            )
        return self

    @model_validator(mode="after")
    def _timed_texts_fit(self) -> TextGenerationRecipe:
        if isinstance(self.explore, WriterSearch):
            wanted = self.explore.prompt_tokens + self.explore.new_tokens
            if wanted > self.task.max_length:
                raise ValueError(
                    f"explore.prompt_tokens + explore.new_tokens is {wanted}, beyond task.max_length {self.task.max_length}"
                )
        return self


class TextToTextRecipe(SequenceRecipe):
    """An encoder-decoder that answers a text with a text."""

    task: TextToTextTask = Field(description="What the model is for, and what every stage shares.")
    data: TargetData = Field(description="Where the rows come from and what they must satisfy.")
    distill: PairDistill = Field(description="The student.")
    explore: NoTechnique = Field(description="Nothing yet: there are no elastic students with two stacks.")
    budget: None = Field(description="Nothing yet, as explore.")
    prune: NoTechnique | ShapePruning = Field(discriminator="technique", description="Structured pruning.")
    quantize: FloatTokens | Int8Tokens | BlockwiseTokens = Field(
        discriminator="technique", description="Export and quantization."
    )


class TokenClassificationRecipe(SequenceRecipe):
    """An encoder that tags words."""

    data: TaggedData = Field(description="Where the rows come from and what they must satisfy.")
    budget: TaggerBudget | None = Field(description="What the model may cost; null: its shape stands in the recipe.")

    @model_validator(mode="after")
    def _tags_are_no_texts(self) -> TokenClassificationRecipe:
        if isinstance(self.teach, ApiTeacher):
            raise ValueError("teach.mode is api, whose answers are texts; tags need one of scratch, finetune, ready")
        if self.label.texts is not None:
            raise ValueError("label.texts: a tagger writes no texts to learn from; set it to null")
        if self.distill.on_policy is not None:
            raise ValueError("distill.on_policy: a tagger writes no texts of its own; set it to null")
        for stage, losses in self.losses():
            if losses.divergence == "uld":
                raise ValueError(
                    f"{stage}.losses.divergence is uld, which knows no names of classes; tags have them, use another"
                )
        return self
