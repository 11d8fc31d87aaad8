"""Where rows come from, how they are cut, and what they must satisfy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config.base import Action, Fraction, Section, holds_secret


class GivenSplits(Section):
    """The source is a folder that already holds its splits."""

    kind: Literal["given"] = Field(description="The splits are files in the source folder.")
    train: str = Field(
        description="File of training rows, relative to the source folder; with `*` in its name every file that it matches (`2026-*.csv`, `**/*.jsonl`)."
    )
    validation: str | Fraction = Field(
        description="File of validation rows, as `train`, or the fraction to cut from train."
    )
    test: str = Field(description="File of test rows, as `train`.")


class MadeSplits(Section):
    """The factory cuts the splits: seeded, stratified, near-duplicates kept together."""

    kind: Literal["made"] = Field(description="The factory cuts the splits.")
    file: str | None = Field(
        description="File in the source folder, with `*` in its name every file that it matches; null where the source is itself a file."
    )
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


class TextChecks(Section):
    """What `validate` checks of any text; each finding either fails the stage or quarantines the row."""

    empty_text: Action = Field(description="Text missing or only white space.")
    long_text: LongText = Field(description="Text longer than a bound.")
    duplicates: Action = Field(description="The same row twice in one split; quarantine keeps the first.")
    leakage_exact: Action = Field(
        description="A training text that also stands in validation or test, or a validation text in test; quarantine never drops from test."
    )
    leakage_near: NearDuplicates | None = Field(
        description="As leakage_exact, for texts that almost stand there; null turns it off."
    )
    encoding_damage: Action = Field(description="Replacement characters, control characters, or UTF-8 read as Latin-1.")
    language: Language | None = Field(description="Language check; null turns it off.")


class TargetChecks(TextChecks):
    """What is checked where each text has an answer."""

    missing_target: Action = Field(description="Answer missing or only white space.")


class TagChecks(TextChecks):
    """What is checked where each word has a tag."""

    misaligned_tags: Action = Field(description="Not one tag for each word.")


class Checks(TextChecks):
    """What is checked where each text has a label."""

    missing_label: Action = Field(description="Label missing, NaN or only white space.")
    label_set: LabelSet = Field(description="Label outside the set; or, in validation and test, unknown to train.")
    class_count: ClassCount = Field(description="Class with too few training rows.")
    conflicting_labels: Action = Field(
        description="The same text under two labels; quarantine drops every one of them."
    )


class TextData(Section):
    """Where the rows come from, how they are cut, and what they must satisfy."""

    source: str = Field(
        min_length=1,
        description="File or folder of the project, http(s):// or s3:// address, or a `*.hub.json` pointer (repo, revision, file). CSV, JSONL or Parquet; text without labels also as .txt, a text a line.",
    )
    text_column: str = Field(min_length=1, description="Column that holds the text.")
    splits: GivenSplits | MadeSplits = Field(
        discriminator="kind", description="Given by files, or made by the factory."
    )
    checks: TextChecks = Field(description="What is checked, and what a finding does.")

    @field_validator("source")
    @classmethod
    def _no_secret(cls, source: str) -> str:
        """The source stands in params.yaml, dvc.lock, logs and the published record."""
        if holds_secret(source):
            raise ValueError(
                "holds a password, a token or a signature; it would stand in records and logs: fetch the file and give its path"
            )
        return source

    @property
    def second_column(self) -> str | None:
        """The column that holds what the model is to answer, where there is one."""
        return None

    @property
    def unlabelled_file(self) -> str | None:
        """The file of unlabelled text, where there is one."""
        return None

    @model_validator(mode="after")
    def _two_columns(self) -> TextData:
        if self.text_column == self.second_column:
            raise ValueError(f"text_column and the other column are both {self.text_column!r}: name two columns")
        return self

    @model_validator(mode="after")
    def _something_to_train_on(self) -> TextData:
        splits = self.splits
        if isinstance(splits, MadeSplits) and splits.validation + splits.test >= 1:
            raise ValueError(
                "data.splits.validation + data.splits.test must be below 1: nothing would be left for train"
            )
        if isinstance(splits, MadeSplits) and self.unlabelled_file is not None and splits.file is None:
            raise ValueError(
                "data.unlabelled names a file in the source folder, so data.splits.file must name the labelled one"
            )
        return self


class Data(TextData):
    """Labelled text."""

    label_column: str = Field(min_length=1, description="Column that holds the label.")
    unlabelled: str | None = Field(
        description="File of unlabelled text (one text a row or line) in the source folder; the student learns from it too."
    )
    checks: Checks = Field(description="What is checked, and what a finding does.")

    @property
    def second_column(self) -> str | None:
        return self.label_column

    @property
    def unlabelled_file(self) -> str | None:
        return self.unlabelled


class TargetData(TextData):
    """Texts with answers."""

    target_column: str = Field(min_length=1, description="Column that holds the answer.")
    checks: TargetChecks = Field(description="What is checked, and what a finding does.")

    @property
    def second_column(self) -> str | None:
        return self.target_column


class TaggedData(TextData):
    """Words with tags: two columns of equally many words and tags, JSON lists or separated by spaces."""

    tags_column: str = Field(min_length=1, description="Column that holds a BIO tag for each word.")
    checks: TagChecks = Field(description="What is checked, and what a finding does.")

    @property
    def second_column(self) -> str | None:
        return self.tags_column
