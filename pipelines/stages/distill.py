"""Stage `distill`: a smaller student learns from the stored signals."""

from __future__ import annotations

from pathlib import Path

from pipelines.bundle import Bundle, extend_lineage
from pipelines.config import Distill, FreshStudent, OtherStudent, StudentPretrained, Task, TokenDistill, TokenLabel
from pipelines.curves import write_curve
from pipelines.data.clean import CleanData, load_clean
from pipelines.families import family_of, sequence_family_of
from pipelines.families.loading import save_bundle
from pipelines.families.sequences import SequenceFamily
from pipelines.labelling import read_labels
from pipelines.reproducible import fix_randomness
from pipelines.signals import read_signals
from pipelines.sources import fetch_pretrained
from pipelines.stages import Output
from pipelines.techniques.across_tokenizers import vocabularies_agree
from pipelines.techniques.distilling import learn, lesson_from
from pipelines.techniques.slicing import first_layers
from pipelines.techniques.token_learning import TRUE_CLASSES, TokenLesson, learn_tokens
from pipelines.techniques.training import EpochRecord

#: The same student without a teacher, inside the student's folder.
CONTROL = "control"
