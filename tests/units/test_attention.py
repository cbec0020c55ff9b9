"""Whole heads, and dimensions within heads, are units in every form of attention that exporters write."""

import pytest

from onnxprune.layers import find_layers
from onnxprune.model import load
from onnxprune.units import unit_groups
from onnxprune.units.families import find_families
from units.token_nets import TokenBuilder

FORMS = {  # columns of the output projection that read a unit, by its rows in one head's values
    "attention": 1,
    "fused_attention": 1,
    "torch_attention": 1,
    "runtime_attention": 1,
    "einsum_attention": 1,
    "grouped_queries": 2,
}


def attention(form, seed):
    """A network of one attention with at least two heads, and whether its batch is symbolic."""
    builder = TokenBuilder(seed)
    getattr(builder, form)()
    return load(builder.finish()).ir, builder.heads, builder.batch == "n"


def read_units(model, heads):
    """Of every family with readers: how many units, and how many columns read each."""
    families = find_families(unit_groups(model.graph, heads=heads), find_layers(model.graph))
    return {
        (family.size, family.readers[0].indices.shape[1]) for family in families.families if family.readers
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", FORMS)
def test_heads_or_their_dimensions(form, seed):
    model, (heads, size), symbolic = attention(form, seed)
    times = FORMS[form]
    whole, narrow = (heads, size * times), (size, heads * times)
    # nn.MultiheadAttention folds the heads into the batch: of a symbolic batch nobody knows where they are
    hidden = heads == 1 or (form == "torch_attention" and symbolic)
    assert (narrow if hidden else whole) in read_units(model, "whole")
    assert narrow in read_units(model, "narrow")
