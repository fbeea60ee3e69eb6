"""Few-shot learning: episodes on some classes teach a net to tell apart others."""

import pytest

from helpers.effects import figure, steps, summary_of

WORDS = (
    "data=digits_episodes",
    "method=protonet",
    "data.tests=[[5,1],[5,5]]",
    "data.query=5",
    "data.val_episodes=20",
    "data.test_episodes=100",
)
ONE, FIVE = (f"few_shot/5way_{shot}shot/accuracy" for shot in (1, 5))


@pytest.fixture(scope="module")
def summaries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few_shot")
    return {n: summary_of(folder / str(n), *WORDS, "seed=2", *steps(n)) for n in (1, 60)}


def test_new_classes_are_told_apart_by_one_image_of_each(summaries):
    """5 way, seeds 0 to 3: 69, 66, 76, 74 % after 60 steps, 60, 62, 66, 66 % after one."""
    assert figure(summaries[60], ONE) > 0.2 + 0.3  # chance is 0.2
    assert figure(summaries[60], ONE) > figure(summaries[1], ONE) + 0.03


def test_five_images_say_more_than_one(summaries):
    """81, 81, 88 and 86 % beside these 69, 66, 76 and 74 %."""
    assert figure(summaries[60], FIVE) > figure(summaries[60], ONE) + 0.05
