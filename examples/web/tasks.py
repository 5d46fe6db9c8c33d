"""The slow part of a web application."""

import os
import time

from penstock import Penstock, current_job

app = Penstock("sqlite:///web.db")

PAGES = 5
PAGE_S = float(os.environ.get("REPORT_PAGE_SECONDS", "1"))


@app.task(queue="reports", timeout="5m")
def write_report(city: str) -> str:
    """Stand for work that takes longer than a visitor should wait."""
    job = current_job()
    for page in range(PAGES):
        job.check_cancelled()
        time.sleep(PAGE_S)
        job.progress(page + 1, PAGES, f"page {page + 1}")
    return f"{PAGES} pages about {city}"
