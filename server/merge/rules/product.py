"""Average the dense products A B, then keep the best approximation of rank r."""

from fedprompt.prompt_state import Dense, PromptState
from server.merge.rules.rule import Projection, Rule, no_merge_error


def project(averaged: Dense, current: PromptState) -> Projection:
    """Return factors of ``current``'s rank whose products are nearest to the averaged ones."""
    return Projection(*current.project(averaged))


RULE = Rule(PromptState.lift, project, no_merge_error, mixed_ranks=True)
