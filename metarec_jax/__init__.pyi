"""The public names, each with its home: the one list of them, which the package reads at import."""

from .config.json_io import to_json as to_json
from .config.run import PRESETS as PRESETS
from .config.run import Config as Config
from .config.run import from_json as from_json
from .config.run import preset as preset
from .core.errors import MetarecError as MetarecError
from .core.types import Interactions as Interactions
from .core.types import Items as Items
from .core.types import Users as Users
from .data import load as load
from .recommender.attribution import Explanation as Explanation
from .recommender.recommender import Rated as Rated
from .recommender.recommender import Recommendation as Recommendation
from .recommender.recommender import Recommender as Recommender
from .recommender.recommender import UserState as UserState
from .train.build import build as build
from .train.experiment import Experiment as Experiment
from .train.loop import Fitted as Fitted
from .train.run_folder import Run as Run
from .train.run_folder import open_run as open_run
from .train.start import fit as fit
from .train.start import meta_train as meta_train
from .train.start import resume as resume
from .train.start import start as start

__version__: str
