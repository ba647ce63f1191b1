"""The public names of the engine, each with its home: the one list of them, which the package reads at import."""

from .learner_checks import check_learner as check_learner
from .problem import Problem as Problem
from .problem import Tasks as Tasks
from .problem import adapt as adapt
from .problem import init_state as init_state
from .problem import make_step as make_step
from .problem import meta_gradient as meta_gradient
from .problem import meta_loss as meta_loss
from .problem import pad_tasks as pad_tasks
from .problem import predict as predict
from .updater_checks import check_updater as check_updater
from .updaters.amortised import amortised as amortised
from .updaters.contract import Updater as Updater
from .updaters.contract import stateless as stateless
from .updaters.gradient import gradient_descent as gradient_descent
from .updaters.implicit import imaml as imaml
from .updaters.learned import learned_rule as learned_rule
from .updaters.meta_sgd import meta_sgd as meta_sgd
from .updaters.momentum import momentum as momentum
from .updaters.optax_rules import optax_rule as optax_rule
from .updaters.rates import Rates as Rates
from .updaters.ridge import ridge as ridge
from .user import masked_mean as masked_mean
