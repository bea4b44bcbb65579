"""The ways to merge low-rank prompts, each a pair of pure functions around any strategy."""

from fedprompt.prompt_state import Dense
from server.merge.rules import factors, fresh_basis, product, shared_basis
from server.merge.rules.rule import Projection, Rule

RULES = {
    "product": product.RULE,
    "shared-basis": shared_basis.RULE,
    "fresh-basis": fresh_basis.RULE,
    "factors": factors.RULE,
}

__all__ = ["RULES", "Dense", "Projection", "Rule"]
