"""Where a worker begins: in the process that becomes its supervisor."""

from penstock.model.errors import SettingsInvalid
from penstock.settings import Settings
from penstock.worker.forensics import subreaper
from penstock.worker.logs import set_up_logging
from penstock.worker.supervisor import Supervisor

__all__ = ["run"]


def run(settings: Settings) -> int:
    """Work on jobs until told to stop.

    SIGTERM and SIGINT finish what runs, a second one gives it back at once; SIGTSTP stops claiming, SIGHUP replaces the
    processes one by one, SIGTTIN writes all stacks to the log. Call it from the main thread of a process of its own.
    It returns at most two seconds after the shutdown timeout, or after the second signal.

    Returns:
        0 after a clean end; 1 after a failure of the worker itself; 2 if the application or a setting cannot be used;
        3 if the store cannot be used; 4 if a job found this worker unfit; 5 if the application was not imported in
        time.

    Raises:
        SettingsInvalid: no application was named.
    """
    if settings.app is None:
        raise SettingsInvalid(["app is not set: give -A module:app or set $PENSTOCK_APP."])
    set_up_logging(settings.log_level, settings.log_format)
    with subreaper():
        return Supervisor(settings).run()
