"""Retrain from a log; write lists only if the model is better than popularity.

Example: python workflows/retrain.py log.csv out --user user --item item --timestamp timestamp
"""

from __future__ import annotations

import argparse
import sys

import dasrec
from dasrec.cluster import connect


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log")
    parser.add_argument("out", help="folder or URL for the store, the model and the lists")
    parser.add_argument("--user", required=True)
    parser.add_argument("--item", required=True)
    parser.add_argument("--value")
    parser.add_argument("--timestamp", required=True)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--n", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster", default="threads", help="threads, processes:N or an address")
    return parser.parse_args()


def retrain(arguments: argparse.Namespace) -> bool:
    """Run the whole way; say whether the model was better than popularity."""
    events = dasrec.read_events(
        arguments.log,
        user=arguments.user,
        item=arguments.item,
        value=arguments.value,
        timestamp=arguments.timestamp,
    )
    store = dasrec.write_interactions(
        dasrec.clean(events, bad_rows="drop"), f"{arguments.out}/store", overwrite=True
    )
    split = dasrec.split_by_time(store, 0.2)
    model = dasrec.ImplicitALS(factors=arguments.factors, rng=arguments.seed)
    found = {
        each.name: float(
            dasrec.evaluate(each.fit(split.train), split, n=arguments.n)["ndcg"].item()
        )
        for each in (dasrec.Popular(), model)
    }
    print(f"NDCG@{arguments.n}: {found}")
    if found[model.name] <= found["popular"]:
        return False
    model.fit(store).save(f"{arguments.out}/model", overwrite=True)
    dasrec.recommend_all(model, store, n=arguments.n, out=f"{arguments.out}/lists", overwrite=True)
    return True


def main() -> int:
    """Exit with 0 if there are new lists, 1 if popularity was as good, 2 if something was wrong."""
    arguments = parse()
    try:
        with connect(arguments.cluster):
            better = retrain(arguments)
    except dasrec.DasrecError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 2
    print("wrote the model and the lists" if better else "popularity was as good; nothing written")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
