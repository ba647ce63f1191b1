"""Pretraining of the encoder on items' texts and users' interactions: `metarec pretrain`.

held_out      division into data that pretraining reads and held-out data, and the mark of an encoder's pretraining data
user_text     users' histories as text, and the items that a user likes
text_batches  texts in batches of few shapes, with the word that each token belongs to
masking       random hiding of whole words
mlm           loss of masked language modelling (BERT's own objective)
contrastive   contrastive loss of items that one user likes
batches       inputs of each step, by number
step          gradients of the losses, and the update
evaluate      perplexity and contrastive loss on held-out data
build         construction of all of these from a config
program       training program, for `metarec_jax.train.loop`
start         start, resume and end of a pretraining in a run folder
"""
