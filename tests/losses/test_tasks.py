"""Losses of tasks against direct calculation, and without any label."""

import torch
from torch.nn.functional import cross_entropy

from tlrun.losses.tasks import box_loss, known_class_loss

NAN = float("nan")


def test_classes_that_are_unknown_are_left_out():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, -1, 2, 1, -1, 1])
    known = torch.tensor([0, 2, 3, 5])
    for smoothing in (0.0, 0.1):
        expected = cross_entropy(logits[known], labels[known], label_smoothing=smoothing)
        torch.testing.assert_close(known_class_loss(logits, labels, smoothing), expected)


def test_a_side_costs_a_square_then_a_line():
    truth = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [NAN, NAN, NAN, NAN]])
    boxes = torch.tensor([[0.15, 0.1, 0.5, 0.9], [0.0, 0.0, 1.0, 0.99], [0.3, 0.3, 0.6, 0.6]])
    # offs 0.05 (square), 0.4 (line) of the first box, 0.01 (square) of the second; beta 0.1
    first, second = 0.05**2 / 0.2 + (0.4 - 0.05), 0.01**2 / 0.2
    torch.testing.assert_close(box_loss(boxes, truth), torch.tensor((first + second) / 2))


def test_without_a_label_the_loss_is_a_zero_with_a_graph():
    logits = torch.randn(4, 3, requires_grad=True)
    boxes = torch.rand(4, 4, requires_grad=True)
    losses = {
        logits: known_class_loss(logits, torch.full((4,), -1)),
        boxes: box_loss(boxes, torch.full((4, 4), NAN)),
    }
    for inputs, loss in losses.items():
        loss.backward()
        assert loss == 0
        assert torch.equal(inputs.grad, torch.zeros_like(inputs))
