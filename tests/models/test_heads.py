import pytest
import torch
from torch import nn

from helpers import half
from tlrun.models.heads import BoxHead, Classifier, CosineHead, DomainHead

torch.set_num_threads(1)


def test_classifier_has_the_papers_layers_as_stages():
    head = Classifier(768, 10)
    assert head.stage_names == ["fc1", "fc2", "out"]
    assert [tuple(p.shape) for p in head.parameters() if p.ndim == 2] == [
        (100, 768),
        (100, 100),
        (10, 100),
    ]
    assert head(torch.randn(4, 768)).shape == (4, 10)


def test_classifier_without_hidden_layers_is_linear():
    head = Classifier(5, 3, hidden=())
    x = torch.randn(4, 5)
    torch.testing.assert_close(head(x), x @ head.out.weight.T + head.out.bias)
    assert head.stage_names == ["out"]


def test_batch_norm_and_dropout_go_into_the_hidden_layers():
    head = Classifier(5, 3, hidden=(8,), batch_norm=True, dropout=0.5)
    assert [type(m) for m in head.fc1] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]


def test_domain_head_gives_one_logit_for_each_example():
    assert DomainHead(768)(torch.randn(4, 768)).shape == (4,)
    head = DomainHead(16, hidden=7, layers=2)
    assert head.stage_names == ["fc1", "fc2", "out"]
    assert head(torch.randn(1, 16)).shape == (1,)


@pytest.mark.parametrize(
    "head",
    [Classifier(20, 3), BoxHead(20), CosineHead(20, 3, 30.0)],
    ids=lambda h: type(h).__name__,
)
def test_class_scores_and_boxes_are_made_in_fp32_under_autocast(head):
    features = (50 * torch.randn(9, 20)).bfloat16()
    exact = head(features.float())
    with half.autocast():
        found = head(features)
        assert DomainHead(20)(features).dtype == torch.bfloat16  # a game, not a score
    assert torch.equal(found, exact)
