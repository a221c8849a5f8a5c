"""The report: one page in a file of its own, made of the rows and thought records of a folder of runs."""
