"""Last.fm: numbers of plays of artists, in three published data sets.

HetRec 2011 (user_artists.dat and artists.dat), 360K (usersha1-artmbid-artname-plays.tsv) and 1K
(userid-timestamp-artid-artname-traid-traname.tsv, a log of plays).

Layouts: https://grouplens.org/datasets/hetrec-2011/ and http://ocelma.net/MusicRecommendationDataset/. An artist of
360K and 1K is its name, since many have no MusicBrainz id.
"""

from __future__ import annotations

from metarec_jax.core.scale import Kind
from metarec_jax.core.types import Interactions
from metarec_jax.data.repeats import Rule
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.published import Form, Published
from metarec_jax.data.sources.published import read as read_published
from metarec_jax.data.sources.source import register_layout

_360K = "usersha1-artmbid-artname-plays.tsv"
_1K = "userid-timestamp-artid-artname-traid-traname.tsv"

DATA = Published(
    interactions=(
        Form(
            ("user_artists.dat",),
            {"user": "userID", "item": "artistID", "rating": "weight"},
            separator="\t",
            numeric=True,
        ),
        Form(
            (_360K,),
            {"user": "user", "item": "artist-name", "rating": "plays"},
            separator="\t",
            header=("user", "artist-mbid", "artist-name", "plays"),
        ),
        Form(
            (_1K,),
            {"user": "userid", "item": "artist-name", "time": "timestamp"},
            separator="\t",
            header=("userid", "timestamp", "artist-mbid", "artist-name", "track-mbid", "track-name"),
        ),
    ),
    items=(Form(("artists.dat",), {"item": "id", "title": "name"}, separator="\t"),),
    repeats="sum",
    citation=(
        "Iván Cantador, Peter Brusilovsky and Tsvi Kuflik. 2011. HetRec 2011. RecSys (user_artists.dat); Òscar Celma. "
        "2010. Music Recommendation and Discovery in the Long Tail. Springer (360K, 1K). Data of https://www.last.fm"
    ),
)


@register_layout(
    "lastfm",
    title="Last.fm",
    marks=("user_artists.dat", _360K, _1K),
    options=("kind", "repeats"),
    licence="non-commercial use, by permission of Last.fm (http://ocelma.net/MusicRecommendationDataset/, "
    "https://grouplens.org/datasets/hetrec-2011/)",
)
def read(folder: Folder, *, source: str, kind: Kind, repeats: Rule) -> Interactions:
    """Read Last.fm.

    Args:
        folder: the files.
        source: value of `Interactions.source`.
        kind: "rating" for numbers of plays, or "click" to make every artist that was played a click.
        repeats: rule of rows of the same user and artist; "auto" adds their plays.

    Returns:
        The data set.
    """
    return read_published(DATA, folder, source, kind, repeats)
