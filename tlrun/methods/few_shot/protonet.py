"""Prototypical networks: the nearest class mean in a learned space.

    c_k = mean of f(x_i) over the support of class k
    p(k | x) ∝ exp(−‖f(x) − c_k‖²)          squared, not plain, Euclidean distance
    min over f: E_episodes [ −log p(y | x) ] over the queries

Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017. Omniglot, 4 x
conv3x3-64, trained 60-way: 98.8 / 99.7 % in 5-way 1-shot / 5-shot; ours in
`conf/experiment/omniglot/protonet.yaml`. Batch norm: statistics of the episode in training, running
ones afterwards, so a prediction does not depend on the other queries.
x: (E way (shot + query), C, H, W), episode after episode (tlrun/data/problems/episodes.py).
"""

from __future__ import annotations

from torch import Tensor

from tlrun.config.ranges import Positive
from tlrun.losses.distances import squared_distances
from tlrun.methods.few_shot.episodic import FewShot, class_means
from tlrun.models.net import Net


class ProtoNet(FewShot):
    """scale: factor on the squared distances (1 = the paper's)."""

    joint = True

    def __init__(self, scale: Positive = 1.0) -> None:
        self.scale = scale

    def classify(self, net: Net, query: Tensor, support: Tensor, y: Tensor) -> Tensor:
        middle = support.mean(1, keepdim=True)  # moves no distance, and saves digits of the means
        means = class_means(support - middle, y)
        return -self.scale * squared_distances(query - middle, means)

    def prototypes(self, net: Net, support: Tensor, y: Tensor) -> Tensor:
        return class_means(support, y)

    def prototype_scores(self, net: Net, query: Tensor, prototypes: Tensor) -> Tensor:
        middle = prototypes.mean(1, keepdim=True)
        return -self.scale * squared_distances(query - middle, prototypes - middle)
