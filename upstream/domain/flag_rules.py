"""Decides about the rules of a flag in one environment, one at a time: added, changed, removed, put in order.

A rule keeps its id for life, because clauses of the kind `percentage_of` bucket with it.
"""

from collections import Counter
from dataclasses import asdict, replace

from upstream.domain.configs import ConfigEdit
from upstream.domain.entities import FlagConfig, JsonObject, Rule
from upstream.domain.errors import not_found
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.flag_commands import AddRule, DeleteRule, ReorderRules, UpdateRule
from upstream.domain.serving import MAX_RULES

_SERVES = frozenset({"serve", "variation", "value"})


def rule_of(config: FlagConfig, rule_id: str) -> Rule:
    """Return a rule of a config.

    Raises:
        Rejected: NOT_FOUND.
    """
    found = next((rule for rule in config.rules if rule.id == rule_id), None)
    if found is None:
        raise not_found("rule", rule_id)
    return found


def add_rule(command: AddRule, view: View, facts: Facts) -> Decision:
    """Add a rule at a position, or as the last one."""
    edit = ConfigEdit(command, view, facts)
    rules = list(edit.config.rules)
    position = len(rules) if command.position is None else command.position
    if not 0 <= position <= len(rules):
        edit.problems.add("position", f"There are {len(rules)} rules here; a position is from 0 to {len(rules)}.")
    if len(rules) >= MAX_RULES:
        edit.problems.add("", f"A flag has at most {MAX_RULES} rules in an environment.")
    rules.insert(position, edit.reader.rule("", _own(command.rule, edit)))
    return edit.decided(replace(edit.config, rules=tuple(rules)))


def update_rule(command: UpdateRule, view: View, facts: Facts) -> Decision:
    """Change the named members of a rule."""
    edit = ConfigEdit(command, view, facts)
    rule = rule_of(edit.config, command.rule)
    raw = asdict(rule)
    if _SERVES & command.changes.keys():
        del raw["serve"]
    changed = edit.reader.rule("", {**raw, **_own(command.changes, edit)})
    rules = tuple(changed if each.id == rule.id else each for each in edit.config.rules)
    return edit.decided(replace(edit.config, rules=rules))


def _own(given: JsonObject, edit: ConfigEdit) -> JsonObject:
    """Return what a request says of a rule, of which the id is no part."""
    if "id" in given:
        edit.problems.add("id", "A rule gets its id when it is made, and keeps it.")
    if len(_SERVES & given.keys()) > 1:
        edit.problems.add("", "A rule has exactly one of `serve`, `variation` and `value`.")
    return {name: value for name, value in given.items() if name != "id"}


def delete_rule(command: DeleteRule, view: View, facts: Facts) -> Decision:
    """Take a rule away."""
    edit = ConfigEdit(command, view, facts)
    rule = rule_of(edit.config, command.rule)
    return edit.decided(replace(edit.config, rules=tuple(each for each in edit.config.rules if each is not rule)))


def reorder_rules(command: ReorderRules, view: View, facts: Facts) -> Decision:
    """Put the rules into another order."""
    edit = ConfigEdit(command, view, facts)
    present = {rule.id: rule for rule in edit.config.rules}
    for index, rule_id in enumerate(command.rules):
        if rule_id not in present:
            edit.problems.add(f"rules[{index}]", f"There is no rule {rule_id!r} here.")
    for rule_id, count in Counter(command.rules).items():
        if count > 1 and rule_id in present:
            edit.problems.add("rules", f"The rule {rule_id!r} is listed {count} times.")
    for rule_id in present.keys() - set(command.rules):
        edit.problems.add("rules", f"The rule {rule_id!r} is missing; list every rule that is here.")
    rules = tuple(present[rule_id] for rule_id in command.rules if rule_id in present)
    return edit.decided(replace(edit.config, rules=rules))
