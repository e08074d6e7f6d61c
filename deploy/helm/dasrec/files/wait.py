"""Wait until a scheduler has workers: wait.py ADDRESS WORKERS SECONDS."""

import sys
import time

from distributed import Client

address, workers, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end = time.monotonic() + seconds
while True:
    try:
        # a short time each: what a Service drops before it has an endpoint is not sent again soon
        with Client(address, timeout="5s") as client:
            if workers:
                client.wait_for_workers(workers, timeout=max(1, end - time.monotonic()))
        break
    except (OSError, TimeoutError):
        if time.monotonic() > end:
            raise
        time.sleep(1)
