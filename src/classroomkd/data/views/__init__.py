"""Replayable augmentation: spaces of views, one file a space."""
