"""The worker: a supervisor and its processes, which run jobs.

`entry` is where it begins. Nothing is imported here, because a child of a process needs little of all this.
"""
