"""The HTTP service (docs/serving.md).

`server` starts it and `app` assembles it from `routes_*`, `middleware` and `errors`; `protocol` limits connections, and
`service` holds what the routes share. `engine` computes requests in batches that `batching` collects, and `added_items`
adds items to its models. `store` is the event store of `rows`, in the file of `database`; `event_log` reads it as
columns, and `analytics` computes metrics from these. `ab_test` assigns users to models and randomises lists. `simulate`
is a client.
"""
