"""The bench of evidence: studies of accuracy, one file each, trained by one resumable queue.

    python -m benchmarks.evidence status                 # what is there, what is missing, what it costs
    python -m benchmarks.evidence run --minutes 60       # fill what is missing; can be cut at any moment
    python -m benchmarks.evidence render                 # tables, plots, results.csv, figures in README and docs

See ``README.md`` beside this file for the protocol and for how to add a study.
"""
