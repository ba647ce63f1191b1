"""Item factors: a latent factor model of ratings, fitted to the training users, as the prior of new users.

item_features     standardised features of an item: text, details, vectors, popularity
em                covariance of users' tastes over items, fitted by expectation maximisation
item_factors      mean, residual variance and factors of every item, new items included
user_prior        prior mean of a user's taste, from the items that the user rated and from the profile
cross_fitting     item factors for each training user, fitted without that user's ratings
update            posterior of a new item's mean and factors given its first ratings
"""
