"""Reads a folder's event files with TensorBoard and prints their scalars as one JSON object.

    python3 tests/tensorboard.py FOLDER

{"tag": [[step, value], ..], ..}. Exits with 77 where the package tensorboard is missing.
"""

import json
import sys

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)

events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
