"""Average B alone: A is frozen from a seed all sites share, so averaging B averages A B exactly."""

from server.merge.rules.rule import Rule, identity_lift, identity_project, no_merge_error

RULE = Rule(identity_lift, identity_project, no_merge_error)
