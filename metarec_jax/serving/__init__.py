"""From a trained run to recommendations.

`metarec_jax.serving.recommender` adapts to users and ranks the catalogue; `metarec_jax.serving.titles` finds the items
that people name.
"""
