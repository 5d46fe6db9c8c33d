"""Many jobs fail alike: a person sees them as one group, mends the cause, tries one job, and lets the others follow.

Watch the first trial fail because nothing was mended yet, and the others run one after another over two seconds.
"""

from stage import Worker, folder, say, stage, until

from penstock import Penstock

app = Penstock()


@app.task(max_attempts=1)
def write_letter(customer: str) -> str:
    if customer == "nobody":
        raise LookupError("nobody has no address")
    return f"{(folder() / 'letterhead').read_text()}Dear {customer}"


def main() -> None:
    with stage(app) as place, Worker():
        customers = [*(f"customer {number}" for number in range(8)), "nobody"]
        letters = write_letter.enqueue_many([(customer,) for customer in customers])
        until(lambda: all(letter.state() == "buried" for letter in letters), "all are buried")
        for group in sorted(app.groups(task=write_letter), key=lambda group: -group.count):
            say(f"{group.count} buried in {group.error.where or group.task}: {group.error.type}")
        largest = max(app.groups(task=write_letter), key=lambda group: group.count)
        say(f"a trial, nothing mended: {app.trial(largest, timeout=60).state}")
        (place / "letterhead").write_text("Penstock & Sons\n")
        say(f"a trial, the letterhead is there: {app.trial(largest, timeout=60).state}")
        app.kick(largest, spread="2s")
        until(lambda: sum(letter.state() == "succeeded" for letter in letters) == largest.count, "they are written")
        ends = sorted(letter.info().ended_ms or 0 for letter in letters[:-1])
        say(f"{largest.count} letters are written; the retried ones ended over {(ends[-1] - ends[1]) / 1000:.1f} s")
        say(f"left to look at: {[letter.info().error.message for letter in letters if letter.state() == 'buried']}")


if __name__ == "__main__":
    main()
