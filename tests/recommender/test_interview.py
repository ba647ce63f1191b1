"""An interview as a conversation."""

import pytest

from metarec_jax.recommender.interview import converse
from metarec_jax.recommender.recommender import Rated


class Person:
    """Gives the answers of a list, and keeps what was asked and said."""

    def __init__(self, *answers):
        self.answers, self.asked, self.said = list(answers), [], []

    def read(self, prompt):
        self.asked.append(prompt)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)


def talk(recommender, person, wanted=2, rated=()):
    return converse(recommender, wanted, person.read, person.said.append, list(rated))


def test_answers_are_counted_and_unknown_items_are_not(believer):
    person = Person("5\n", "\n", "2\n", "4\n")
    told = talk(believer, person)
    assert [rating for _, rating in told.rated] == [5, 2]
    assert len(told.unknown) == 1
    assert len(person.asked) == len(set(person.asked)) == 3
    assert person.answers == ["4\n"]
    again = believer.adapt(told.rated)
    assert believer.recommend(told.state, 5) == believer.recommend(again, 5)


def test_a_wrong_answer_is_explained_and_asked_for_again(believer):
    person = Person("7", "many", "3", "1")
    told = talk(believer, person)
    assert [rating for _, rating in told.rated] == [3, 1]
    assert person.asked[0] == person.asked[1] == person.asked[2]
    assert "ratings lie between 1 and 5" in person.said[1]
    assert "id:" not in person.said[1]
    assert person.said[2] == "'many' is not a number"


@pytest.mark.parametrize("last", ["q", None])
def test_an_interview_can_be_stopped(believer, last):
    person = Person("4", *([last] if last else []))
    told = talk(believer, person, wanted=9)
    assert len(told.rated) == 1
    assert len(person.asked) == 2


def test_known_ratings_are_not_asked_for(believer):
    first = believer.interview(believer.adapt(), 1)[0]
    person = Person("4")
    told = talk(believer, person, wanted=1, rated=[Rated(f"id:{first.id}", 2)])
    assert [rating for _, rating in told.rated] == [2, 4]
    assert first.title not in person.asked[0]
