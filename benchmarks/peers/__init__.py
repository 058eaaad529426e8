"""The peers' own training steps, timed beside ours; see README.md here."""
