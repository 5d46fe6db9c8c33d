"""`penstock demo`: a folder of source files is counted by jobs, and one worker process is killed half way."""
