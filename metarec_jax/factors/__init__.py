"""Item factors: a latent factor model of ratings, fitted to the training users, as the prior of new users.

item_features     standardised features of an item: text, details, vectors, popularity
row_batches       rows grouped by user or item into dense batches of static shape
row_products      sums of outer products of rows by owner, over tables that are sharded over devices
variational       half-sweeps of a variational factorisation of ratings: users given items, items given users
fit               its alternation, with the hyperparameters, on rows that are held out to decide when to stop
fit_cache         long fits on disk, also while they are under way
fit_state         inputs, result and state of a fit
fit_memory        memory of a fit, estimated from its sizes
click_programs    programs of a half-sweep of implicit least squares
implicit          implicit least squares of clicks and plays
item_factors      mean, residual variance and factors of every item, new items included
user_prior        prior mean of a user's taste, from the items that the user rated and from the profile
cross_fitting     item factors for each training user, fitted without that user's ratings
correction        rows that the outer loop adds to the item factors, and their sparse updates
update            posterior of a new item's mean and factors given its first ratings
"""
