"""The boundary of the unknown class against an explicit calculation."""

import math

import pytest
import torch

from tlrun.losses.open_set import unknown_boundary_loss

LOGITS = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_it_is_the_cross_entropy_with_the_share(share):
    each = []
    for row in LOGITS.double():
        p = float(row.softmax(0)[-1])
        each.append(-share * math.log(p) - (1 - share) * math.log(1 - p))
    assert unknown_boundary_loss(LOGITS, share).item() == pytest.approx(sum(each) / 7, rel=1e-5)


def test_it_is_least_where_the_unknown_has_just_the_share():
    known = torch.zeros(1, 3)
    at = [
        unknown_boundary_loss(torch.cat([known, torch.tensor([[math.log(3 * p / (1 - p))]])], 1))
        for p in (0.3, 0.5, 0.7)
    ]
    assert at[1] < min(at[0], at[2])


def test_large_logits_stay_finite():
    assert unknown_boundary_loss(torch.tensor([[0.0, 300.0]])).isfinite()
