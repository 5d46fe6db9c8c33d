"""Shrink a picture (PPM, 8 bits) to a quarter of its width and height. Knows nothing of penstock."""

import json
import sys
from pathlib import Path

STEP = 4
RETRY_LATER = 75


def main() -> None:
    job = json.load(sys.stdin)
    source = Path(job["args"][0])
    if not source.exists():
        print(f"{source} has not arrived yet", file=sys.stderr)
        sys.exit(RETRY_LATER)
    target = source.with_suffix(".small.ppm")
    width, height = shrink(source, target)
    json.dump({"file": str(target), "width": width, "height": height}, sys.stdout)


def shrink(source: Path, target: Path) -> tuple[int, int]:
    """Keep each fourth pixel of each fourth row."""
    kind, width, height, _, pixels = source.read_bytes().split(maxsplit=4)
    if kind != b"P6":
        sys.exit(f"{source} is no binary PPM picture")
    rows = [pixels[row * int(width) * 3 :][: int(width) * 3] for row in range(0, int(height), STEP)]
    small = [b"".join(row[at : at + 3] for at in range(0, len(row), STEP * 3)) for row in rows]
    target.write_bytes(b"P6 %d %d 255\n" % (len(small[0]) // 3, len(small)) + b"".join(small))
    return len(small[0]) // 3, len(small)


if __name__ == "__main__":
    main()
