"""What goes in and out over HTTP: every field with its limits, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_BODY = 256 * 1024
"""Bytes of a request."""
MOST_HISTORY = 1000
MOST_LIST = 100
MOST_ITEMS = 200
MOST_TEXT = 4000

Id = Annotated[str, Field(min_length=1, max_length=200, description="The id of an item.", examples=["50"])]
_CONTROL = r"\x00-\x1f\x7f-\x9f"
NewId = Annotated[
    str, Field(max_length=200, pattern=rf"^([^\s{_CONTROL}]([^{_CONTROL}]*[^\s{_CONTROL}])?)?$", examples=["bees-1999"])
]
"""Of an item that is added: no control characters, and no blanks around it, which people would not see."""
Text = Annotated[str, Field(max_length=MOST_TEXT)]
Sealed = Annotated[str, Field(min_length=1, max_length=200_000, pattern=r"^[A-Za-z0-9_-]+$")]
Token = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]


class Asked(BaseModel):
    """A request, of which every field is known."""

    model_config = ConfigDict(extra="forbid")


class Rating(Asked):
    """An item and its rating (clicks: 1 or 0)."""

    item: Id
    rating: Number


class Filter(Asked):
    """What a list is narrowed to; an item must pass all of it."""

    details: dict[Annotated[str, Field(max_length=100)], list[Annotated[str, Field(max_length=200)]]] = Field(
        {},
        max_length=8,
        description="A detail's name -> words, of which an item has one.",
        examples=[{"genres": ["War"]}],
    )
    between: dict[Annotated[str, Field(max_length=100)], tuple[Number, Number]] = Field(
        {}, max_length=8, description="A detail that is a number -> the least and the greatest.", examples=[{}]
    )
    exclude: list[Id] = Field([], max_length=MOST_HISTORY, description="Items that are left out.")


class Whose(Asked):
    """Whose request it is: a state, a user, or a history; with none of these, somebody of whom nothing is known."""

    state: Sealed | None = Field(None, description="From /adapt.")
    user: Token | None = Field(None, description="From POST /users: the history that is kept for this user.")
    history: list[Rating] = Field([], max_length=MOST_HISTORY, description="Items and ratings, oldest first.")
    profile: str = Field("", max_length=1000, description="The user's text, for a run that reads one.")

    @model_validator(mode="after")
    def _one(self) -> Any:
        if self.state is not None and self.user is not None:
            raise ValueError("give a state or a user, not both")
        if self.profile and (self.state is not None or self.user is not None):
            raise ValueError("a profile is given once, where the state or user is made")
        return self


class AdaptRequest(Whose):
    """Adapts to a history; with a state or a user, the history is what is new, and comes on top."""

    forget: list[Id] = Field([], max_length=MOST_HISTORY, description="Items whose ratings are taken back.")


class AdaptResponse(BaseModel):
    """A user that the models have adapted to."""

    state: str = Field(description="To be handed back as it is. Nobody but this service can make one.")
    rated: int = Field(description="Ratings in the history.")
    notes: list[str] = Field(description="What there is to say about how the history was read.")


class RecommendRequest(Whose):
    """Asks for a list."""

    k: int = Field(10, ge=1, le=MOST_LIST)
    exclude_seen: bool = Field(True, description="Whether to leave out the items of the history.")
    filters: Filter = Filter()
    log: bool = Field(True, description="Whether the list is shown to somebody, and so counted as impressions.")


class Item(BaseModel):
    """An item of the catalogue."""

    id: str
    title: str
    text: str
    details: dict[str, str]
    ratings: int = Field(description="Training users who rated it.")
    new: bool = Field(description="Whether it was added while serving.")


class Card(Item):
    """An item in a list."""

    place: int
    score: float = Field(description="Expected rating, or chance of a click.")
    deviation: float | None = Field(description="Standard deviation of the rating, as the model sees it.")
    arm: str = Field(description="Which model chose it.")


class RecommendResponse(BaseModel):
    """A list, best first."""

    list_id: str | None = Field(description="Its name, for /feedback; null where it was not to be logged.")
    arm: str
    items: list[Card]
    notes: list[str]


class ScoreRequest(Whose):
    """Asks what the user would give some items, or items that are only described."""

    items: list[Id] = Field([], max_length=MOST_ITEMS)
    texts: list[Text] = Field([], max_length=8)


class Score(BaseModel):
    """What a user would give something."""

    item: str | None
    text: str | None
    score: float
    deviation: float | None


class ScoreResponse(BaseModel):
    """Scores, in the order that was asked."""

    scores: list[Score]


class ExplainRequest(Whose):
    """Asks why items have their scores."""

    items: list[Id] = Field(min_length=1, max_length=16)
    words: bool = Field(False, description="Whether to weigh also the words of the items' texts (slower).")
    arm: str | None = Field(
        None,
        max_length=20,
        description="Whose scores: of the model that chose the items, as cards say; null: the first.",
    )


class Reason(BaseModel):
    """What a rating of the history adds to a score."""

    id: str
    title: str
    rating: float
    influence: float = Field(description="In units of the score; below 0 where the rating lowers it.")


class Word(BaseModel):
    """What a word of a text adds to a score, to first order."""

    text: str
    influence: float


class Explanation(BaseModel):
    """Why an item has its score."""

    item: str
    title: str
    arm: str = Field(description="Which model's score it is.")
    score: float
    sentence: str = Field(description='"because you rated ..."; "" where there is no reason to name.')
    because: list[Reason] = Field(description="Those that the sentence names.")
    influences: list[Reason] = Field(description="All, from what raises the score most to what lowers it most.")
    words: list[Word] | None


class ExplainResponse(BaseModel):
    """Explanations, in the order that was asked."""

    explanations: list[Explanation]


class InterviewRequest(Whose):
    """Asks what to ask the user; for a run with beliefs about items."""

    k: int = Field(1, ge=1, le=20)
    skip: list[Id] = Field([], max_length=MOST_HISTORY, description="Items that the user does not know.")
    among: list[Id] = Field(
        [], max_length=MOST_HISTORY, description="Items that the user is known to know: no others are asked about."
    )


class Question(Item):
    """An item to ask about."""

    known: float = Field(description="Training users who rated it, as a share of those of the item rated most.")
    gain: float = Field(description="By how much an answer should lower the variance of a rating.")


class InterviewResponse(BaseModel):
    """Questions, the most telling first."""

    questions: list[Question]


class SimilarResponse(BaseModel):
    """Items that are like one, most alike first."""

    item: Item
    similar: list[dict[str, Any]] = Field(description="Items, each with its cosine.")


class ItemsResponse(BaseModel):
    """Items that were found."""

    items: list[Item]


class ItemRequest(Asked):
    """A new item, from its text alone."""

    text: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]
    id: NewId = Field("", description='"" makes one up. No control characters, and no blanks around it.')
    title: str = Field("", max_length=300, description='"" is the beginning of the text.')
    details: dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=500)]] = Field(
        {}, max_length=16, description="What else is known of it, by names that the catalogue has.", examples=[{}]
    )


class UserRequest(Asked):
    """A new user, whose history is kept here."""

    profile: str = Field("", max_length=1000)
    history: list[Rating] = Field([], max_length=MOST_HISTORY)


class UserResponse(BaseModel):
    """A user; whoever has this token can speak for the user, and nobody else can."""

    user: str


class PublicUser(BaseModel):
    """A user of a public data set, to try things as."""

    id: str
    profile: str
    ratings: int


class UsersResponse(BaseModel):
    """Users of the data set; none where it is not a public one."""

    users: list[PublicUser]


class PublicHistory(BaseModel):
    """What a user of a public data set has rated."""

    id: str
    profile: str
    history: list[dict[str, Any]] = Field(description="Items with title and rating, oldest first.")


class FeedbackRequest(Asked):
    """What a user did: with an item of a list, or (ratings only) with any item."""

    list_id: Token | None = Field(None, description="From /recommend.")
    user: Token | None = Field(None, description="From POST /users.")
    item: Id
    kind: Literal["click", "purchase", "rating", "forget"]
    rating: Number | None = Field(None, description='Of kind "rating".')

    @model_validator(mode="after")
    def _whose(self) -> Any:
        if self.list_id is None and self.user is None:
            raise ValueError("say with `list_id` where the item was shown, or with `user` who it was")
        if (self.kind == "rating") != (self.rating is not None):
            raise ValueError('a rating belongs to the kind "rating", and to no other')
        return self


class FeedbackResponse(BaseModel):
    """It is on disk."""

    kept: Literal[True] = True


class Problem(BaseModel):
    """What is wrong with a request."""

    loc: list[str | int] = Field(description="Where: body, query or path, and the way to the field.")
    msg: str
    type: str


class Problems(BaseModel):
    """Everything that is wrong with a request."""

    detail: list[Problem]
