"""One small program for each contender: its tasks, how it enqueues, and how its worker is started.

Each runs in an environment of its own and is the whole of what a reader needs to judge whether its queue is treated
fairly: `tuned` marks what the documentation of that queue advises for many short jobs; without it all is as it comes.
"""
