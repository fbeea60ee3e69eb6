"""source_and_target: the source's loss alone, and the target for terms to look at."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import small
from tlrun.losses.class_confusion import class_confusion_loss
from tlrun.methods.base import Phase, Progress
from tlrun.methods.discrepancy.source_and_target import SourceAndTarget
from tlrun.methods.terms.mcc import MCC


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_the_loss_is_that_of_the_source_and_mcc_sees_the_target(mode):
    batch, method = small.batch(), SourceAndTarget()
    method.batch_norm = mode
    net = small.built(method, small.net(dropout=0.0))
    (update,) = method.step(net, batch, Phase(), Progress(0, 10))
    source, target = (update.outputs[name].logits for name in ("source", "target"))
    torch.testing.assert_close(
        update.losses["classification"], cross_entropy(source, batch["source"].y)
    )
    term = MCC(weight=2.0).loss(update, net)["mcc"]
    torch.testing.assert_close(term, 2 * class_confusion_loss(target, 2.5))
