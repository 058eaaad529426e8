"""Persons as samples: annotations with joints, crops around them, views that move pixels and joints together."""
