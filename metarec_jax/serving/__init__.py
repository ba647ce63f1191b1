"""From a trained run to recommendations.

`metarec_jax.recommender.recommender` adapts to users and ranks the catalogue; `metarec_jax.recommender.title_search`
finds the items that people name. In front of it stands a service (docs/serving.md): `launch` starts it, `app` has the
routes, `engine` answers many requests at once, `gather` brings them together, `store` keeps what must not be
forgotten, `arms` makes lists that something can be learned from.
"""
