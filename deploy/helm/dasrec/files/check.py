"""What `helm test` runs: a small fit, alone and on the cluster, must give the same factors."""

import sys

import fsspec
import numpy as np

import dasrec
from dasrec.cluster import connect
from dasrec.datasets import simulate_log

root, name, *clusters = sys.argv[1:]
place = f"{root}/.{name}"
simulate_log("/tmp/log.csv", 20_000, n_users=300, n_items=200, rng=0)
events = dasrec.read_events(
    "/tmp/log.csv", user="user", item="item", value="value", timestamp="timestamp"
)
try:
    store = dasrec.write_interactions(dasrec.clean(events, dedupe="last"), place)
    factors = []
    for cluster in ("threads", *clusters):
        with connect(cluster):
            model = dasrec.ImplicitALS(factors=16, iterations=3, rng=0).fit(store)
        factors.append(np.asarray(model.user_factors_))
        same = np.array_equal(factors[0], factors[-1])
        print(f"{cluster}: factors {'are the same' if same else 'DIFFER'}")
        if not same:
            sys.exit(1)
finally:
    files, path = fsspec.url_to_fs(place)
    if files.exists(path):
        files.rm(path, recursive=True)
