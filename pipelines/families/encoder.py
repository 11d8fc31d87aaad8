"""Encoder classifiers: BERT, RoBERTa, DistilBERT, MobileBERT, DeBERTa, ModernBERT with a sequence-classification head.

Plain transformers has no BERT with fewer heads than its hidden width asks for. So pruned heads are gone from the modules that
train and export, and stand as zero rows and columns in the saved folder: the same function, loadable by everybody.
`config.pruned_heads` {layer: [heads]} says which.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.bundle import LINEAGE, Bundle, read_json, read_lineage, require_files
from pipelines.config import StudentLayers, StudentPretrained, StudentRandom, StudentStatic
from pipelines.errors import ModelError
from pipelines.families.anatomy import anatomy_named, anatomy_of, part, replace_part
from pipelines.families.base import LayerUnits, Outputs, TokenIds
from pipelines.families.loading import READY, check_labels, few, load_model, load_tokenizer, save_bundle
from pipelines.families.static import static_student
from pipelines.families.widths import PER_LAYER, with_layers
from pipelines.techniques.narrowing import narrow_in, narrow_out, widen_in, widen_out
from pipelines.techniques.tracing import traceable

#: An exported batch must keep its mask, and its size free: two texts of different length.
EXPORT_TEXTS = ("an example text of a few words for the export", "short")


class EncoderClassifier:
    """One label a text. See families/base.py for what each method promises."""

    def load(self, folder: Path) -> Bundle:
        require_files(folder, "config.json", "model.safetensors", "tokenizer.json", LINEAGE)
        bundle = Bundle(_load_model(folder), load_tokenizer(folder), read_lineage(folder))
        _strip_heads(bundle.model)
        return bundle

    def load_ready(self, folder: Path, labels: Sequence[str]) -> Bundle:
        require_files(folder, "config.json", "model.safetensors", "tokenizer.json")
        model = _load_model(folder, remedy=READY)
        theirs = [model.config.id2label[index] for index in range(model.config.num_labels)]
        check_labels(folder, theirs, labels)
        _reorder_labels(model, [theirs.index(label) for label in labels])
        return Bundle(model, load_tokenizer(folder), {})

    def load_pretrained(self, folder: Path, labels: Sequence[str]) -> Bundle:
        require_files(folder, "config.json", "model.safetensors", "tokenizer.json")
        names = dict(enumerate(labels))
        places = {label: index for index, label in names.items()}
        model = _load_model(folder, fresh_head=True, num_labels=len(labels), id2label=names, label2id=places)
        return Bundle(model, load_tokenizer(folder), {})

    def save(self, bundle: Bundle, out: Path) -> None:
        save_bundle(Bundle(_with_zero_heads(bundle.model), bundle.tokenizer, bundle.lineage), out)

    def student(self, teacher: Bundle, choice: StudentLayers | StudentRandom | StudentStatic) -> Bundle:
        depth = len(_layers(teacher.model))
        mapped: list[int] = []
        if isinstance(choice, StudentStatic):
            special = self.encode(teacher.tokenizer, [""], teacher.tokenizer.model_max_length)[0]
            model = static_student(teacher, special, choice)
        elif isinstance(choice, StudentRandom):
            model = _fresh(teacher.model, choice.num_hidden_layers)
            mapped = _spread(choice.num_hidden_layers, depth)
        else:
            if max(choice.layers) >= depth:
                raise ModelError(f"distill.student.layers {choice.layers}: the teacher has layers 0 to {depth - 1}")
            model = copy.deepcopy(teacher.model)
            self.drop_layers(model, choice.layers)
            mapped = list(choice.layers)
        model.config.teacher_layers = mapped
        return Bundle(model, teacher.tokenizer, teacher.lineage)

    def adopt(self, teacher: Bundle, choice: StudentPretrained, folder: Path) -> Bundle:
        labels = [teacher.model.config.id2label[index] for index in range(teacher.model.config.num_labels)]
        bundle = self.load_pretrained(folder, labels)
        bundle.model.config.teacher_layers = _spread(len(_layers(bundle.model)), len(_layers(teacher.model)))
        bundle.tokenizer.model_max_length = teacher.tokenizer.model_max_length
        return Bundle(bundle.model, bundle.tokenizer, teacher.lineage)

    def encode(self, tokenizer: Any, texts: Sequence[str], max_length: int) -> list[TokenIds]:
        if not texts:
            return []
        rows: list[TokenIds] = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
        return rows

    def collate(self, tokenizer: Any, rows: Sequence[TokenIds]) -> dict[str, Tensor]:
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def forward(
        self, model: Any, inputs: dict[str, Tensor], hidden: Sequence[int] = (), relations: bool = False
    ) -> Outputs:
        with _captured_relations(model, relations) as captured:
            answer = model(**inputs, output_hidden_states=bool(hidden))
        states = {layer: answer.hidden_states[layer + 1] for layer in hidden}
        return Outputs(answer.logits, states, tuple(captured), inputs["attention_mask"].bool())

    def teacher_layers(self, model: Any) -> list[int | None]:
        layers: list[int | None] = list(model.config.teacher_layers)
        return layers

    def depth(self, model: Any) -> int:
        return len(_layers(model))

    def units(self, model: Any) -> list[LayerUnits]:
        anatomy = anatomy_of(model)
        if anatomy.ffn_up is None or anatomy.ffn_down is None or anatomy.attention_out is None:
            raise ModelError(
                f"architecture {model.config.model_type!r}: FFN width and heads cannot be pruned ({anatomy.why_uncut}); "
                "set prune.intermediate_size and prune.num_attention_heads to null, or distill.student's lists of sizes to []"
            )
        _require_own_heads(model)
        size = model.config.hidden_size // model.config.num_attention_heads
        return [
            LayerUnits(
                ffn_up=(part(layer, anatomy.ffn_up),),
                ffn_down=part(layer, anatomy.ffn_down),
                queries=part(layer, str(anatomy.queries)),
                keys=part(layer, str(anatomy.keys)),
                values=part(layer, str(anatomy.values)),
                attention_out=part(layer, anatomy.attention_out),
                head_size=size,
            )
            for layer in _layers(model)
        ]

    def drop_layers(self, model: Any, keep: Sequence[int]) -> None:
        anatomy = anatomy_of(model)
        layers = _layers(model)
        kept = [layers[index] for index in keep]
        if anatomy.only_later is not None:
            replace_part(kept[0], anatomy.only_later, nn.Identity())
        replace_part(model.base_model, anatomy.layers, nn.ModuleList(kept))
        _set_layers(model.config, keep)
        if getattr(model.config, "teacher_layers", None):
            model.config.teacher_layers = [model.config.teacher_layers[index] for index in keep]
        pruned = _pruned_heads(model)
        if pruned:
            model.config.pruned_heads = {str(new): pruned[old] for new, old in enumerate(keep) if old in pruned}

    def narrowed(self, model: Any, pruned_heads: dict[int, list[int]]) -> None:
        anatomy = anatomy_of(model)
        setattr(model.config, anatomy.width_name, self.units(model)[0].ffn_down.in_features)
        before = _pruned_heads(model)
        for index, heads in pruned_heads.items():
            gone = set(before.get(index, ()))
            present = [head for head in range(model.config.num_attention_heads) if head not in gone]
            before[index] = sorted(gone | {present[head] for head in heads})
        model.config.pruned_heads = {str(index): heads for index, heads in before.items() if heads}
        _refresh_head_counts(model)

    def trim_positions(self, model: Any, max_length: int) -> None:
        """Drop position embeddings that no text of max_length tokens reaches."""
        anatomy = anatomy_of(model)
        if anatomy.positions is None:
            return
        old = part(model.base_model, anatomy.positions)
        rows = min(max_length + anatomy.position_offset, old.num_embeddings)
        new = nn.Embedding(rows, old.embedding_dim, padding_idx=old.padding_idx)
        new.weight.data.copy_(old.weight.data[:rows])
        replace_part(model.base_model, anatomy.positions, new)
        model.config.max_position_embeddings = rows
        embeddings = model.base_model.embeddings
        for name in ("position_ids", "token_type_ids"):
            buffer = getattr(embeddings, name, None)
            if buffer is not None:
                embeddings.register_buffer(name, buffer[:, :rows].clone(), persistent=False)

    def calibrate(self, model: Any, temperature: float, biases: Tensor) -> None:
        for path in anatomy_of(model).head:
            head = part(model, path)
            head.weight.data.div_(temperature)
            head.bias.data.div_(temperature).add_(biases)

    def export_module(self, model: Any) -> nn.Module:
        return _LogitsOnly(model) if anatomy_of(model).takes_additive_mask else _OwnMasks(model)

    def export_texts(self) -> Sequence[str]:
        return EXPORT_TEXTS


class _LogitsOnly(nn.Module):  # type: ignore[misc]
    """A classifier of one segment, with the plainest graph: additive mask, unfused attention, no token types to feed."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.model.set_attn_implementation("eager")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        floor = torch.finfo(torch.float32).min
        mask = (1.0 - attention_mask.to(torch.float32))[:, None, None, :] * floor
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=mask).logits
        return logits


class _OwnMasks(nn.Module):  # type: ignore[misc]
    """A classifier that makes its masks itself, of attention_mask [B, T]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = traceable(model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def _load_model(folder: Path, *, fresh_head: bool = False, **changes: Any) -> Any:
    """Load a classifier whose every tensor stands in the folder; with fresh_head, all but the head's."""
    anatomy_named(str(read_json(folder / "config.json").get("model_type")))
    return load_model(folder, "AutoModelForSequenceClassification", fresh_head=fresh_head, **changes)


def _layers(model: Any) -> Any:
    return part(model.base_model, anatomy_of(model).layers)


def _set_layers(config: Any, keep: Sequence[int]) -> None:
    """The config of a stack of these layers, its lists with one entry a layer too."""
    changed = with_layers(config, "num_hidden_layers", keep)
    setattr(config, anatomy_named(config.model_type).depth_name, len(keep))
    for name in PER_LAYER:
        if isinstance(getattr(config, name, None), list):
            setattr(config, name, getattr(changed, name))


def _spread(student: int, teacher: int) -> list[int]:
    """Teacher layers at even distances, the last one last (Sanh et al. 2019 take every second)."""
    return [round((index + 1) * teacher / student) - 1 for index in range(student)]


def _fresh(model: Any, depth: int) -> Any:
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(model.config)
    _set_layers(config, [index % len(_layers(model)) for index in range(depth)])
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()


def _reorder_labels(model: Any, order: list[int]) -> None:
    """Permute the head so that label i is what stood at order[i]."""
    names = [model.config.id2label[index] for index in order]
    for path in anatomy_of(model).head:
        head = part(model, path)
        head.weight.data = head.weight.data[order].clone()
        head.bias.data = head.bias.data[order].clone()
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}


@contextmanager
def _captured_relations(model: Any, wanted: bool) -> Iterator[list[Tensor]]:
    """Queries, keys and values of the last layer, caught as they are computed."""
    captured: list[Tensor] = []
    if not wanted:
        yield captured
        return
    anatomy, last = anatomy_of(model), _layers(model)[-1]

    def catch(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if len(captured) < 3:  # DeBERTa's projections read its table of positions afterwards
            captured.extend(output.chunk(3, dim=-1) if anatomy.fused else [output])

    paths = (anatomy.fused,) if anatomy.fused else (anatomy.queries, anatomy.keys, anatomy.values)
    handles = [part(last, str(path)).register_forward_hook(catch) for path in paths]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


# --- heads: absent in memory, zero on disk ------------------------------------------------------------------------------


def _require_own_heads(model: Any) -> None:
    """Raise ModelError where heads have more matrices than queries, keys and values."""
    anatomy = anatomy_of(model)
    attention = part(_layers(model)[0], str(anatomy.attention))
    present = {name for name in anatomy.beside_heads if hasattr(attention, name)}
    if present:
        raise ModelError(
            f"architecture {model.config.model_type!r}: heads cannot be pruned (this checkpoint has {few(present)} beside its keys "
            "and queries: share_att_key is false); set prune.intermediate_size and prune.num_attention_heads to null"
        )


def _pruned_heads(model: Any) -> dict[int, list[int]]:
    return {int(layer): list(heads) for layer, heads in (getattr(model.config, "pruned_heads", None) or {}).items()}


def _head_columns(model: Any, layer: int) -> list[int]:
    """Columns of the full attention output that belong to the heads still present in a layer."""
    gone = set(_pruned_heads(model).get(layer, ()))
    size = model.config.hidden_size // model.config.num_attention_heads
    present = [head for head in range(model.config.num_attention_heads) if head not in gone]
    return [head * size + offset for head in present for offset in range(size)]


def _strip_heads(model: Any) -> None:
    """Take the zero heads of a loaded folder out of the modules."""
    anatomy = anatomy_of(model)
    for index in _pruned_heads(model):
        layer, columns = _layers(model)[index], _head_columns(model, index)
        for path in (anatomy.queries, anatomy.keys, anatomy.values):
            replace_part(layer, str(path), narrow_out(part(layer, str(path)), columns))
        replace_part(layer, str(anatomy.attention_out), narrow_in(part(layer, str(anatomy.attention_out)), columns))
    _refresh_head_counts(model)


def _with_zero_heads(model: Any) -> Any:
    """A copy whose attention is full width again, pruned heads as zeros."""
    if not _pruned_heads(model):
        return model
    whole, anatomy = copy.deepcopy(model), anatomy_of(model)
    for index in _pruned_heads(model):
        layer, columns = _layers(whole)[index], _head_columns(model, index)
        width = model.config.hidden_size
        for path in (anatomy.queries, anatomy.keys, anatomy.values):
            replace_part(layer, str(path), widen_out(part(layer, str(path)), columns, width))
        replace_part(
            layer, str(anatomy.attention_out), widen_in(part(layer, str(anatomy.attention_out)), columns, width)
        )
    return whole


def _refresh_head_counts(model: Any) -> None:
    """Attention modules that remember their number of heads learn the present one."""
    anatomy = anatomy_of(model)
    if anatomy.attention is None:
        return
    size = model.config.hidden_size // model.config.num_attention_heads
    for layer in _layers(model):
        attention, width = part(layer, anatomy.attention), part(layer, str(anatomy.queries)).out_features
        for name, value in (
            ("num_attention_heads", width // size),
            ("n_heads", width // size),
            ("all_head_size", width),
        ):
            if hasattr(attention, name):
                setattr(attention, name, value)
