"""What is frozen in a phase is computed once for each image (`trainer.features`).

Below the lowest stage that trains an image that is not augmented always gives the same activations.
They are kept for the length of a phase, and streams and evaluations read them in place of images.
Batches, their order and all draws are the same; an activation may differ in its last digits from
that of another batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.activation_files import ActivationFiles, digest
from tlrun.data.pipeline.activations import Activations
from tlrun.data.problems.pair import Data
from tlrun.engine.precision import autocast
from tlrun.engine.setup import TrainingSetup
from tlrun.methods.base import Method, Phase, Term
from tlrun.models.prefix import WHOLE, Entry, find_entry, frozen_state, prefix, trial_input

log = logging.getLogger(__name__)


@contextmanager
def frozen_kept(setup: TrainingSetup, phase: Phase, total: int) -> Iterator[None]:
    """Inside, the net begins behind what is frozen where the data have its activations.

    The net is in the mode in which the phase trains it, with all its weights. total: steps.
    """
    entry = _entry(setup, phase)
    if entry is not None:
        setup.net.entry = entry
        setup.data.activations = _admitted(setup, phase, total, entry)
    try:
        yield
    finally:
        setup.net.entry, setup.data.activations = None, None


def _entry(setup: TrainingSetup, phase: Phase) -> Entry | None:
    if setup.cfg["trainer"]["features"] != "auto":
        return None
    users: list[Method | Term] = [setup.method, *(setup.terms.values() if phase.terms else ())]
    if any(needs_images(user, phase) for user in users):
        return None
    with autocast(setup.precision, setup.device):
        return find_entry(setup.net, setup.net.select(setup.method.taps))


def needs_images(user: Method | Term, phase: Phase) -> bool:
    """Whether a method or term does more with the images of a phase than give them to the net."""
    declared = user.needs_images
    return phase.name in declared if isinstance(declared, tuple) else declared


def _admitted(setup: TrainingSetup, phase: Phase, total: int, entry: Entry) -> Activations:
    """All sets of the phase that there is memory for; said in one line."""
    trainer = setup.cfg["trainer"]
    kept = Activations(
        lambda x: prefix(setup.net, entry, x),
        setup.data.preprocess,
        setup.device,
        batch_size=setup.evaluator.batch_size,
        bytes_each=entry.bytes_each,
        limit=float(trainer["features_gb"]) * 1e9,
        shows_bar=setup.process.first,
        files=_files(setup, entry),
    )
    sets = {**_streams(setup.data, phase, total * int(trainer["batch_size"])), **_judged(setup)}
    left_out = kept.admit(sets)
    if setup.process.first:
        augmented = [name for name in phase.streams if not is_plain(setup.data, phase, name)]
        _say(phase, entry, kept, {name: sets[name] for name in left_out}, augmented)
    return kept


def _files(setup: TrainingSetup, entry: Entry) -> ActivationFiles | None:
    """Named by the weights of the frozen part and by what it makes of a trial input, which tells
    apart nets that differ in their code or the machine's arithmetic alone."""
    limit = float(setup.cfg["trainer"]["features_cache_gb"]) * 1e9
    if not limit:
        return None
    state = frozen_state(setup.net, entry)
    with autocast(setup.precision, setup.device):
        made = prefix(setup.net, entry, trial_input(setup.net))
    told = repr((entry, setup.data.preprocess.spec(), torch.__version__, torch.get_num_threads()))
    return ActivationFiles(digest(told, *state.values(), made), limit)


def _say(
    phase: Phase,
    entry: Entry,
    kept: Activations,
    left_out: dict[str, ImageSet],
    augmented: list[str],
) -> None:
    held = "the backbone" if entry.stage == WHOLE else f"all up to {entry.stage}"
    what = f"phase {phase.name}: {held} is frozen"
    if kept.admitted:
        count = sum(len(one.examples) for one in kept.admitted)
        log.info(
            "%s and computed once for each of %s images (%.1f MB)",
            what,
            f"{count:,}",
            kept.nbytes / 1e6,
        )
    if left_out:
        log.info(
            "%s, but activations of %s do not fit into trainer.features_gb=%g: %.1f GB",
            what,
            ", ".join(left_out),
            kept.limit / 1e9,
            kept.bytes_each * sum(map(len, left_out.values())) / 1e9,
        )
    if augmented:
        log.info(
            "phase %s: augmented images are run in every step (%s); data.augment.%s=null has each "
            "of them run once",
            phase.name,
            ", ".join(augmented),
            augmented[0],
        )


def is_plain(data: Data, phase: Phase, stream: str) -> bool:
    """Whether a stream shows its images always alike: no augmentation, in no view."""
    views = ("weak", *phase.views.get(stream, ()))
    return not any(data.view(stream, view) for view in views)


def _streams(data: Data, phase: Phase, images: int) -> dict[str, ImageSet]:
    """Those that show an image more than once. images: that each draws in the phase."""
    sets = {name: data.stream_set(name) for name in phase.streams if is_plain(data, phase, name)}
    return {name: examples for name, examples in sets.items() if is_worth_it(examples, images)}


def is_worth_it(examples: ImageSet, images: int) -> bool:
    """Whether a stream that draws so many images of a set shows one of them again."""
    return len(examples) <= images


def _judged(setup: TrainingSetup) -> dict[str, ImageSet]:
    """The sets that evaluations look at."""
    roles = [f"{domain}_{split}" for domain in setup.data.domains for split in ("val", "test")]
    if not setup.evaluator.target_test:
        roles.remove("target_test")
    sets = {role: setup.data.role(role) for role in roles}
    return {role: examples for role, examples in sets.items() if examples is not None}
