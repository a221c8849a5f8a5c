"""Write a corpus of reasoning texts to a file, for task=token_text: one JSON object a line.

python -m toyqs.tasks.reasoning.written patterns.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from toyqs.files import write_text
from toyqs.tasks.reasoning.reasoning import Reasoning


def main(words: Sequence[str]) -> int:
    """Write the corpus of task=reasoning to the file that a command line names; return the exit code."""
    if len(words) != 1 or words[0].startswith("-"):
        print("toyqs: give one file to write, such as patterns.jsonl", file=sys.stderr)
        return 2
    texts = Reasoning().corpus
    lines = [json.dumps({"text": f"{x.prompt} {x.response}", "kind": x.kind}) for x in texts]
    try:
        write_text(Path(words[0]), "\n".join(lines) + "\n")
    except OSError as error:
        print(f"toyqs: {words[0]}: cannot be written: {error.strerror or error}", file=sys.stderr)
        return 2
    print(f"{len(texts)} texts in {words[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
