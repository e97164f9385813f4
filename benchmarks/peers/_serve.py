"""A worker's loop: one JSON object in, one out, a method of the worker for each command."""

import json
import sys
import traceback


def serve(worker) -> None:
    """Answer commands from standard input until "quit"; what libraries print goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        fields = json.loads(line)
        command = fields.pop("command")
        if command == "quit":
            return
        try:
            reply = getattr(worker, command)(**fields)
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=out, flush=True)
