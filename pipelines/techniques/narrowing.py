"""Slices of linear layers: rows or columns kept, and put back with zeros."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def narrow_out(layer: nn.Linear, rows: Sequence[int]) -> nn.Linear:
    """Keep these outputs: weight [len(rows), in]."""
    new = nn.Linear(layer.in_features, len(rows), bias=layer.bias is not None)
    index = torch.as_tensor(rows, dtype=torch.long)
    new.weight.data.copy_(layer.weight.data[index])
    if layer.bias is not None:
        new.bias.data.copy_(layer.bias.data[index])
    return new


def narrow_in(layer: nn.Linear, columns: Sequence[int]) -> nn.Linear:
    """Keep these inputs: weight [out, len(columns)]."""
    new = nn.Linear(len(columns), layer.out_features, bias=layer.bias is not None)
    new.weight.data.copy_(layer.weight.data[:, torch.as_tensor(columns, dtype=torch.long)])
    if layer.bias is not None:
        new.bias.data.copy_(layer.bias.data)
    return new


def widen_out(layer: nn.Linear, rows: Sequence[int], width: int) -> nn.Linear:
    """The inverse of narrow_out, zeros elsewhere: weight [width, in]."""
    new = nn.Linear(layer.in_features, width, bias=layer.bias is not None)
    index = torch.as_tensor(rows, dtype=torch.long)
    new.weight.data.zero_()
    new.weight.data[index] = layer.weight.data
    if layer.bias is not None:
        new.bias.data.zero_()
        new.bias.data[index] = layer.bias.data
    return new


def widen_in(layer: nn.Linear, columns: Sequence[int], width: int) -> nn.Linear:
    """The inverse of narrow_in, zeros elsewhere: weight [out, width]."""
    new = nn.Linear(width, layer.out_features, bias=layer.bias is not None)
    new.weight.data.zero_()
    new.weight.data[:, torch.as_tensor(columns, dtype=torch.long)] = layer.weight.data
    if layer.bias is not None:
        new.bias.data.copy_(layer.bias.data)
    return new
