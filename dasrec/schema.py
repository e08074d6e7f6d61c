"""Every name that is stored or that a user meets in a table; docs/format.md explains them."""

from __future__ import annotations

from typing import Final

FORMAT_VERSION = 1

# canonical columns of an event
USER, ITEM, VALUE, TIMESTAMP = "user", "item", "value", "timestamp"
EVENT_COLUMNS = (USER, ITEM, VALUE, TIMESTAMP)

# groups and arrays of an interaction store
USER_ITEMS: Final = "user_items"
ITEM_USERS: Final = "item_users"
USER_IDS, ITEM_IDS = "user_ids", "item_ids"
DATA, INDICES, INDPTR, TIMESTAMPS = "data", "indices", "indptr", "timestamps"
CUTS = "cuts"

# what a version says of features and forgotten users, beside sizes and hashes
FEATURES, FORGOTTEN = "features", "forgotten"

# dimensions of labelled results
FACTOR, ITERATION, RANK, N, STEP = "factor", "iteration", "rank", "n", "step"
MODEL, METRIC, REASON = "model", "metric", "reason"
PART = "part"
TIME, USER_BIN, ITEM_BIN = "time", "user_bin", "item_bin"
BY_GROUP = ("user_group", "item_group")

# names of a dense label along the user or the item dimension
USER_ID, ITEM_ID, REASON_ID = "user_id", "item_id", "reason_id"

# what a pointer may point to
INTERACTIONS_KIND, MODEL_KIND = "interactions", "model"

OTHER_SIDE = {USER_ITEMS: ITEM_USERS, ITEM_USERS: USER_ITEMS}
