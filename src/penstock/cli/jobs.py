"""`penstock jobs`."""

import click

from penstock.cli.lazy import LazyGroup

__all__ = ["jobs"]


@click.group(
    cls=LazyGroup,
    commands_in={
        "list": ("penstock.cli.listing:list_jobs", "List the newest jobs."),
        "groups": ("penstock.cli.groups:list_groups", "Show which buried jobs failed alike."),
        "show": ("penstock.cli.page:show_job", "Show all that is known of a job."),
        "kick": ("penstock.cli.steering:kick", "Make buried, cancelled, expired or scheduled jobs ready now."),
        "upgrade": ("penstock.cli.steering:upgrade", "Run the task of jobs that a fallback took over again."),
        "edit": ("penstock.cli.editing:edit", "Change a waiting or buried job."),
        "cancel": ("penstock.cli.steering:cancel", "End waiting jobs, ask running ones to stop."),
        "bury": ("penstock.cli.steering:bury", "Take waiting jobs out of circulation."),
        "delete": ("penstock.cli.steering:delete", "Forget jobs that are not running."),
        "reschedule": ("penstock.cli.steering:reschedule", "Let ready or scheduled jobs wait."),
    },
)
def jobs() -> None:
    """List, show and steer jobs."""
