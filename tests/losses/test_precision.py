"""Every loss of bf16 numbers under autocast is that of fp32 without it; fp64 stays fp64."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import Tensor, nn

import tlrun.losses
from helpers import half
from tlrun.losses.adversarial import RandomisedMultilinear
from tlrun.losses.distances import squared_distances

torch.manual_seed(0)
NOT_OF_NUMBERS = {"reverse_gradient", "reversal_strength"}  # the identity; a function of time
MASKS = {"confident", "domain_accuracy"}  # shares of what passes: fp32 whatever comes in
A, B = torch.randn(12, 6).bfloat16(), (3 * torch.randn(12, 6)).bfloat16()
ONE, OTHER = A[:, 0], B[:, 0]  # a logit each
SURE = (40 * torch.randn(12, 6)).bfloat16()  # 1 − p rounds to 0
LABELS, UNKNOWN = torch.arange(12) % 6, torch.arange(12) % 7 - 1
IMAGES = torch.randn(12, 6)  # what a net is given is never bf16
BOXES = torch.rand(12, 4).bfloat16()
P = A.float().softmax(1).bfloat16()
LINEAR = nn.Linear(6, 6, bias=False)
VAT = {"xi": 1.0, "iterations": 1}


def exact_linear(x: Tensor) -> Tensor:
    """What `forward` of VAT is no part of: a net, which autocast is for."""
    with torch.autocast("cpu", enabled=False):
        return nn.functional.linear(x, LINEAR.weight.to(x.dtype))


CALLS = {
    "domain_loss": (ONE, OTHER),
    "fooling_loss": (ONE,),
    "domain_accuracy": (ONE, OTHER),
    "entropy_weights": (SURE,),
    "multilinear": (A, P),
    "RandomisedMultilinear": (A, P),
    "centroid_labels": (A, P),
    "nearest": (A, P),
    "class_confusion_loss": (SURE,),
    "classification_loss": (SURE, LABELS, 0.1),
    "confident": (SURE, 0.9),
    "squared_consistency": (A, SURE, 0.5),
    "pseudo_label_consistency": (A, SURE, 0.5),
    "class_balance_loss": (SURE,),
    "divergence_from": (SURE, A),
    "nt_xent": (A, B, 0.01),
    "class_contrast": (A, B, B, LABELS[:, None] == LABELS, 0.01),
    "covariance": (100 + A,),
    "coral_loss": (A, B),
    "mean_loss": (A, B),
    "discrepancy": (A, SURE),
    "unlikelihood": (SURE, LABELS),
    "margin_disparity": (A, SURE, B, SURE, 4.0),
    "moment_distance": ([A, B], B[:8]),
    "squared_distances": (100 + A, 100 + B),
    "entropy_loss": (SURE,),
    "information_loss": (SURE,),
    "diversity_loss": (SURE,),
    "stepwise_norm_loss": (A,),
    "hard_norm_loss": (A,),
    "mmd_loss": (A, B),
    "joint_mmd_loss": ([A, P], [B, P.flip(0)]),
    "nuclear_norm_loss": (SURE,),
    "unknown_boundary_loss": (SURE,),
    "label_costs": (LABELS, SURE),
    "optimal_coupling": (A @ B.T,),
    "parts_of_classes": (LABELS, P[0]),
    "squared_singular_values": (A,),
    "known_class_loss": (SURE, UNKNOWN),
    "box_loss": (BOXES, BOXES.flip(0)),
    "vat_loss": (exact_linear, IMAGES, A),
    "adversarial_direction": (exact_linear, IMAGES, A),
    "divergence": (SURE, A),
}
OPTIONS = {"vat_loss": VAT | {"radius": 3.5}, "adversarial_direction": VAT}


def public() -> dict[str, object]:
    """Functions and modules of tlrun/losses by name."""
    found: dict[str, object] = {}
    for info in pkgutil.iter_modules(tlrun.losses.__path__, "tlrun.losses."):
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            own = getattr(thing, "__module__", None) == info.name and not name.startswith("_")
            if own and (inspect.isfunction(thing) or inspect.isclass(thing)):
                found[name] = thing
    return found


def test_every_function_of_the_package_is_here():
    assert public().keys() == CALLS.keys() | NOT_OF_NUMBERS


def value_of(name: str, change) -> Tensor:
    def changed(value):
        if isinstance(value, list):
            return [changed(item) for item in value]
        floating = isinstance(value, Tensor) and value.is_floating_point()
        if value is IMAGES and change is Tensor.bfloat16:
            return value
        return change(value) if floating else value

    torch.manual_seed(0)
    function = public()[name]
    if function is RandomisedMultilinear:
        function = RandomisedMultilinear(6, 6, 20)
    return function(*map(changed, CALLS[name]), **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", CALLS)
def test_bf16_inputs_under_autocast_and_fp64(name):
    exact = value_of(name, Tensor.float)
    with half.autocast():
        found = value_of(name, Tensor.bfloat16)
        double = value_of(name, Tensor.double)
    assert found.dtype == exact.dtype
    assert found.isfinite().all()
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-6)
    if exact.is_floating_point() and name not in MASKS:
        assert double.dtype == torch.float64
    if name not in ("vat_loss", "adversarial_direction"):  # whose start is drawn in the type of x
        torch.testing.assert_close(double.to(exact), exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("autocast", [False, True])
def test_squared_distances_far_from_the_origin(offset, autocast):
    """To fp32 rounding of the distances themselves: uncentred, up to 55 of 126 were lost."""
    a, b = (offset + torch.randn(3, n, 64) for n in (40, 7))
    wanted = ((a.double()[:, :, None] - b.double()[:, None]) ** 2).sum(3)
    with half.autocast(autocast):
        found = squared_distances(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=0)
