"""Pretraining of the encoder on the words of items and on what users did: `metarec pretrain`.

config       every choice, as frozen dataclasses
held_out     what pretraining never sees, and the mark in a folder of what it has seen
behaviour    users as text, and which items a user likes
passages     texts in batches of few shapes, with the word that each token belongs to
masking      whole words hidden at random
mlm          the loss on hidden words (BERT's own objective)
contrastive  the loss that draws together what one user likes
sources      what each step reads, by number
step         gradients of the losses, and what becomes of them
judging      perplexity and contrastive loss on what was held out
experiment     from a config to all of these
loop         the training, which can be stopped and resumed
launch       from a config and a folder to an encoder
report       what is shown of it
"""
