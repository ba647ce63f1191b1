"""What the ratings of other users say of items, before a user has said anything: a belief about every item.

sources   what is known of an item itself, as rows of numbers: its text, its details, how often it was rated
kernel    how the tastes of users covary over items, learned from the training users' ratings
beliefs   the same for every item as a few numbers, new items included
folds     beliefs for training users, from which their own ratings are left out
"""
