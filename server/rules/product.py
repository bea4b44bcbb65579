"""Average the dense products A B, then keep the best approximation of rank r."""

from fedprompt.dense import Dense, products
from fedprompt.factors import nearest
from fedprompt.wire import Arrays
from server.rules.rule import Projection, Rule, no_merge_error


def project(averaged: Dense, current: Arrays) -> Projection:
    """Return factors of ``current``'s rank whose products are nearest to the averaged ones."""
    return Projection(*nearest(averaged, current))


RULE = Rule(products, project, no_merge_error, mixed_ranks=True)
