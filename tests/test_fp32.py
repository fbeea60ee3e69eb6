"""`in_fp32`: outside autocast, halves widened wherever they lie, doubles and gradients kept."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from helpers import half
from tlrun.fp32 import in_fp32


@dataclass(frozen=True)
class Out:
    features: Tensor
    logits: Tensor | None = None


@in_fp32
def given(*values, **named):
    assert not torch.is_autocast_enabled("cpu")
    return values, named


def test_halves_become_fp32_wherever_they_lie_and_the_rest_is_passed_on():
    half_, single, double = (torch.ones(2, dtype=d) for d in (torch.bfloat16, None, torch.double))
    whole = {"a": [single, double], "b": (torch.arange(2), None, "word")}
    with half.autocast():
        values, named = given(half_, whole, [half_, double], Out(half_), more={"k": (half_, 1)})
        assert torch.is_autocast_enabled("cpu")
    assert values[0].dtype == torch.float32
    assert values[1] is whole
    assert [v.dtype for v in values[2]] == [torch.float32, torch.float64]
    assert values[3].features.dtype == torch.float32
    assert named["more"]["k"][0].dtype == torch.float32
    assert half_.dtype == torch.bfloat16


def test_a_product_is_that_of_fp32_and_its_gradient_that_of_the_input():
    product = in_fp32(lambda a, b: a @ b.T)
    x = torch.randn(5, 3).bfloat16().requires_grad_()
    w = torch.randn(4, 3, requires_grad=True)
    with half.autocast():
        found = product(x, w)
    assert torch.equal(found, x.float() @ w.T)
    found.sum().backward()
    assert (x.grad.dtype, w.grad.dtype) == (torch.bfloat16, torch.float32)


def test_an_error_leaves_autocast_as_it_was():
    @in_fp32
    def fails():
        raise ValueError("no")

    with half.autocast():
        with pytest.raises(ValueError, match="no"):
            fails()
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.slow
def test_it_can_be_compiled():
    layer = torch.compile(in_fp32(lambda x: x @ x.T), backend="eager", fullgraph=True)
    x = torch.randn(4, 3).bfloat16()
    with half.autocast():
        found = layer(x)
    assert torch.equal(found, x.float() @ x.float().T)
