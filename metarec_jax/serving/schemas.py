"""Requests and answers of the HTTP API: every field with its limits, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_BODY_BYTES = 256 * 1024
MAX_HISTORY = 1000
"""Ratings of a history, and ids in a list of ids that goes with one."""
MAX_LIST = 100
"""Items of a recommended list."""
MAX_SCORED = 200
"""Items that one request can score."""
MAX_TEXT = 4000
"""Characters of an item's text."""

Id = Annotated[str, Field(min_length=1, description="The id of an item.", examples=["50"])]
"""Without a limit of its own, as ids of a catalogue have none; the body has one."""
_CONTROL = r"\x00-\x1f\x7f-\x9f"
NewId = Annotated[
    str, Field(max_length=200, pattern=rf"^([^\s{_CONTROL}]([^{_CONTROL}]*[^\s{_CONTROL}])?)?$", examples=["bees-1999"])
]
"""The id of an item that is added: no control characters, and no whitespace at either end, which is not visible."""
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Sealed = Annotated[str, Field(min_length=1, max_length=200_000, pattern=r"^[A-Za-z0-9_-]+$")]
Token = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]


class RequestModel(BaseModel):
    """A request or a part of one; fields that are not declared are refused."""

    model_config = ConfigDict(extra="forbid")


class Rating(RequestModel):
    """An item and its rating (clicks: 1 or 0)."""

    item: Id
    rating: Number


class Filter(RequestModel):
    """Conditions that every item of a list meets."""

    details: dict[str, list[str]] = Field(
        {},
        max_length=8,
        description="Name of a detail -> words or whole values, of which an item has at least one.",
        examples=[{"genres": ["War"]}],
    )
    between: dict[str, tuple[Number, Number]] = Field(
        {}, max_length=8, description="Name of a numeric detail -> its minimum and maximum.", examples=[{}]
    )
    exclude: list[Id] = Field([], max_length=MAX_HISTORY, description="Items that are left out.")


class UserFields(RequestModel):
    """The user of a request: a state, a user token, or a history; with none of these, a user without ratings."""

    state: Sealed | None = Field(None, description="From /adapt.")
    user: Token | None = Field(None, description="From POST /users: the user whose history the service stores.")
    history: list[Rating] = Field([], max_length=MAX_HISTORY, description="Items and ratings, oldest first.")
    profile: str = Field("", max_length=1000, description="The user's text, for a run that reads profiles.")

    @model_validator(mode="after")
    def _one(self) -> Any:
        if self.state is not None and self.user is not None:
            raise ValueError("a state and a user are given: leave out one of them")
        if self.profile and (self.state is not None or self.user is not None):
            raise ValueError("a profile is part of the state or user: give it to the request that makes these")
        return self


class AdaptRequest(UserFields):
    """Adapt to a history; with a state or a user, the history is added to the ratings that these have."""

    forget: list[Id] = Field([], max_length=MAX_HISTORY, description="Items whose ratings are removed.")


class AdaptResponse(BaseModel):
    """The state of a user to whom the models have adapted."""

    state: str = Field(description="For later requests, unchanged. Only this service can make one.")
    rated: int = Field(description="Number of ratings in the history.")
    notes: list[str] = Field(description="Remarks on how the history was read.")


class RecommendRequest(UserFields):
    """Recommend a list of items."""

    k: int = Field(10, ge=1, le=MAX_LIST, description="Number of items.")
    exclude_seen: bool = Field(True, description="Whether to leave out the items of the history.")
    filters: Filter = Filter()
    log: bool = Field(True, description="Whether the list is shown to a user, and so counted as impressions.")


class Item(BaseModel):
    """An item of the catalogue."""

    id: str
    title: str
    text: str
    details: dict[str, str]
    ratings: int = Field(description="Number of ratings by training users.")
    new: bool = Field(description="Whether it was added while serving.")
    picture: bool = Field(description="Whether GET /picture has a small copy of its picture.")


class Card(Item):
    """An item of a list."""

    place: int = Field(description="Rank in the list; 1 is the first.")
    score: float = Field(description="Expected rating, or probability of a click.")
    deviation: float | None = Field(description="Standard deviation of the predicted rating; null: not known.")
    arm: str = Field(description="The model that chose it.")


class RecommendResponse(BaseModel):
    """A list, highest score first."""

    list_id: str | None = Field(description="The list's id, for /feedback; null if the list is not logged.")
    arm: str = Field(description='The model that chose the items; "both" if two models did.')
    items: list[Card]
    notes: list[str]


class ScoreRequest(UserFields):
    """Predict the user's ratings of items of the catalogue and of items that are given by a text."""

    items: list[Id] = Field([], max_length=MAX_SCORED)
    texts: list[Text] = Field([], max_length=8)


class Score(BaseModel):
    """The predicted rating of an item or a text."""

    item: str | None
    text: str | None
    score: float
    deviation: float | None


class ScoreResponse(BaseModel):
    """Scores of the items, then of the texts, in the order of the request."""

    scores: list[Score]


class ExplainRequest(UserFields):
    """Explain the scores of items."""

    items: list[Id] = Field(min_length=1, max_length=16)
    words: bool = Field(False, description="Whether to attribute the score to words of the item's text too (slower).")
    arm: str | None = Field(
        None,
        max_length=20,
        description="The model to explain, as in the items of a list; null: the user's first one.",
    )


class Reason(BaseModel):
    """The contribution of a rating of the history to a score."""

    id: str
    title: str
    rating: float
    influence: float = Field(description="In units of the score; negative if the rating lowers it.")


class Word(BaseModel):
    """The contribution of a word of a text to a score, to first order."""

    text: str
    influence: float


class Explanation(BaseModel):
    """The explanation of an item's score."""

    item: str
    title: str
    arm: str = Field(description="The model whose score it is.")
    score: float
    sentence: str = Field(description='"because you rated ..."; "" if no rating is a reason.')
    because: list[Reason] = Field(description="The ratings that the sentence names.")
    influences: list[Reason] = Field(description="All ratings, from the largest influence to the smallest.")
    words: list[Word] | None


class ExplainResponse(BaseModel):
    """Explanations, in the order of the request."""

    explanations: list[Explanation]


class InterviewRequest(UserFields):
    """Choose items to ask the user about; for a run with item factors (`--factors.rank`)."""

    k: int = Field(1, ge=1, le=20, description="Number of questions.")
    skip: list[Id] = Field([], max_length=MAX_HISTORY, description="Items that the user does not know.")
    among: list[Id] = Field(
        [], max_length=MAX_HISTORY, description="Items that the user knows; if any, only these are asked about."
    )


class Question(Item):
    """An item to ask about."""

    known: float = Field(description="Number of training users who rated it, relative to the most rated item.")
    gain: float = Field(description="Expected decrease of the variance of a predicted rating.")


class InterviewResponse(BaseModel):
    """Questions, largest gain first."""

    questions: list[Question]


class SimilarResponse(BaseModel):
    """Items that are similar to an item, most similar first."""

    item: Item
    similar: list[dict[str, Any]] = Field(description="Items, each with its cosine.")


class ItemsResponse(BaseModel):
    """Items that a search found."""

    items: list[Item]


class ItemRequest(RequestModel):
    """Add an item that is given by a text."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    id: NewId = Field("", description='"" makes a new one. No control characters, and no whitespace at either end.')
    title: str = Field("", max_length=300, description='"" is the beginning of the text.')
    details: dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=500)]] = Field(
        {}, max_length=16, description="Values of details that the catalogue has, by name.", examples=[{}]
    )


class UserRequest(RequestModel):
    """Add a user whose history the service stores."""

    profile: str = Field("", max_length=1000)
    history: list[Rating] = Field([], max_length=MAX_HISTORY)


class UserResponse(BaseModel):
    """The token of a user: a request that has it acts for this user."""

    user: str


class PublicUser(BaseModel):
    """A user of a public data set."""

    id: str
    profile: str
    ratings: int


class UsersResponse(BaseModel):
    """Test users of the run's data set; none if it is not a public one."""

    users: list[PublicUser]


class PublicHistory(BaseModel):
    """The ratings of a user of a public data set."""

    id: str
    profile: str
    history: list[dict[str, Any]] = Field(description="Items, each with its rating, oldest first.")


class FeedbackRequest(RequestModel):
    """An action of a user: with an item of a list, or (ratings only) with any item."""

    list_id: Token | None = Field(None, description="From /recommend.")
    user: Token | None = Field(None, description="From POST /users.")
    item: Id
    kind: Literal["click", "purchase", "rating", "forget"]
    rating: Number | None = Field(None, description='Of kind "rating".')

    @model_validator(mode="after")
    def _whose(self) -> Any:
        if self.list_id is None and self.user is None:
            raise ValueError("neither `list_id` nor `user` is given: name the list, or the user")
        if (self.kind == "rating") != (self.rating is not None):
            raise ValueError('`rating` is given with the kind "rating", and with no other kind')
        return self


class FeedbackResponse(BaseModel):
    """The action is on disk."""

    kept: Literal[True] = True


class Problem(BaseModel):
    """A reason why a request is refused."""

    loc: list[str | int] = Field(
        description="body, query, path, header or service, and the names and indices that lead to the field."
    )
    msg: str
    type: str


class Problems(BaseModel):
    """All reasons why a request is refused."""

    detail: list[Problem]


class Health(BaseModel):
    """Whether the service is up, and what is wrong with it."""

    status: Literal["ok", "degraded"]
    problems: list[Problem] = Field([], description="What keeps it from answering some requests.")
