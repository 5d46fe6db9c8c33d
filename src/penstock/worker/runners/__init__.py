"""How a job is executed: in a thread, on the event loop, in a child process, as an external command."""
