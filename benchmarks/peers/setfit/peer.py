"""SetFit: a contrastively tuned sentence encoder with a logistic head, distilled into three of its layers by SetFit's own trainer."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.peers.served import Job

NAME = "setfit-distilled"
LAYERS = (0, 2, 5)
BATCH = 16
#: Pairs seen are this often the training texts, and steps at most so many: minutes of two cores, and more than its documentation's 500 steps.
TEACHER_PASSES, TEACHER_STEPS = 2, 1200
STUDENT_PASSES, STUDENT_STEPS = 5, 3000
#: SetFit's own default for a whole encoder; layers that have lost their neighbours move further.
TEACHER_RATE, STUDENT_RATE = 2e-5, 1e-4


def build(job: Job) -> dict[str, float]:
    """Tune the teacher on pairs of training texts, distil it, save the student."""
    import torch
    from datasets import Dataset
    from setfit import DistillationTrainer, SetFitModel, Trainer

    torch.set_num_threads(job.threads)
    start = time.perf_counter()
    texts, labels = job.rows("train")
    teacher = SetFitModel.from_pretrained(job.body)
    teacher.model_body.max_seq_length = job.max_length
    tuning = _arguments(job, len(texts) * TEACHER_PASSES, TEACHER_STEPS, TEACHER_RATE)
    Trainer(model=teacher, args=tuning, train_dataset=Dataset.from_dict({"text": texts, "label": labels})).train()
    student = SetFitModel(model_body=_shallow(teacher.model_body), model_head=copy.deepcopy(teacher.model_head))
    distilling = _arguments(job, len(texts) * STUDENT_PASSES, STUDENT_STEPS, STUDENT_RATE)
    DistillationTrainer(
        teacher_model=teacher, student_model=student, args=distilling, train_dataset=Dataset.from_dict({"text": texts})
    ).train()
    student.save_pretrained(Path(job.out) / NAME)
    return {NAME: time.perf_counter() - start}


def _arguments(job: Job, pairs: int, most: int, rate: float) -> Any:
    from setfit import TrainingArguments

    return TrainingArguments(
        output_dir=str(Path(job.out).parent / "checkpoints"),
        batch_size=BATCH,
        max_steps=min(most, pairs // BATCH),
        body_learning_rate=rate,
        seed=job.seed,
        save_strategy="no",
        report_to="none",
    )


def _shallow(body: Any) -> Any:
    import torch

    small = copy.deepcopy(body)
    encoder = small[0].auto_model
    encoder.encoder.layer = torch.nn.ModuleList(encoder.encoder.layer[at] for at in LAYERS)
    encoder.config.num_hidden_layers = len(LAYERS)
    return small


def load(folder: Path, job: Job) -> Any:
    """Class probabilities in torch, as SetFit's users call it."""
    import torch
    from setfit import SetFitModel

    torch.set_num_threads(job.threads)
    model = SetFitModel.from_pretrained(folder)

    def answer(texts: list[str]) -> Any:
        return model.predict_proba(texts, as_numpy=True, show_progress_bar=False)

    return answer
