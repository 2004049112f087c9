"""What hangs on what in a project: prerequisites between flags, and the segments that conditions name.

Cycles and chains that are too long are refused when they would come into being; who is still needed is told before it
goes away. A key that does not exist (yet) is no fault here, only a warning of the command.
"""

from collections.abc import Callable, Iterable, Mapping

from relay.engine.environment import MAX_CHAIN
from upstream.domain.conditions import segments_in
from upstream.domain.entities import Flag, FlagConfig, Segment

Edges = Mapping[str, tuple[str, ...]]


def prerequisite_edges(flags: Iterable[Flag]) -> dict[str, tuple[str, ...]]:
    """Return flag key -> keys of the flags that it requires."""
    return {flag.key: tuple(prerequisite.flag for prerequisite in flag.prerequisites) for flag in flags}


def segment_edges(segments: Iterable[Segment]) -> dict[str, tuple[str, ...]]:
    """Return segment key -> keys of the segments that its condition names."""
    return {segment.key: tuple(segments_in(segment.when)) for segment in segments}


def cycle_from(start: str, edges: Edges) -> tuple[str, ...] | None:
    """Return a path that leads from `start` back to it, ends included, if there is one."""
    reached: dict[str, tuple[str, ...]] = {start: (start,)}
    waiting = [start]
    while waiting:
        node = waiting.pop()
        for following in edges.get(node, ()):
            if following == start:
                return (*reached[node], start)
            if following not in reached:
                reached[following] = (*reached[node], following)
                waiting.append(following)
    return None


def unsettled(edges: Edges) -> set[str]:
    """Return the nodes that are on a cycle, or from which a chain leads that has more than `MAX_CHAIN` nodes.

    One look at the whole, where asking `cycle_from` and `chain_through` for each node would take too long.
    """
    open_ones: dict[str, tuple[str, ...]] = {target: () for targets in edges.values() for target in targets}
    open_ones.update(edges)
    for _ in range(MAX_CHAIN):
        settled = [node for node, targets in open_ones.items() if not any(target in open_ones for target in targets)]
        for node in settled:
            del open_ones[node]
        if not settled or not open_ones:
            break
    return open_ones.keys() & edges.keys()


def chain_through(start: str, edges: Edges) -> int:
    """Return the number of nodes on the longest chain through `start`; the edges must be free of cycles around it."""
    backwards: dict[str, tuple[str, ...]] = {}
    for node, targets in edges.items():
        for target in targets:
            backwards[target] = (*backwards.get(target, ()), node)
    return chain_from(start, edges) + _longest(start, backwards.get) - 1


def chain_from(start: str, edges: Edges) -> int:
    """Return the number of nodes on the longest chain that begins with `start`."""
    return _longest(start, edges.get)


def _longest(start: str, following: Callable[[str], tuple[str, ...] | None]) -> int:
    """Return the number of nodes on the longest chain from `start`, walking level by level."""
    level, depth = {start}, 0
    while level and depth <= MAX_CHAIN:
        level = {target for node in level for target in following(node) or ()}
        depth += 1
    return depth


def dependents(key: str, flags: Iterable[Flag]) -> tuple[str, ...]:
    """Return the keys of the flags, not archived, that require the flag."""
    return tuple(
        sorted(
            flag.key
            for flag in flags
            if flag.archived_at is None and any(prerequisite.flag == key for prerequisite in flag.prerequisites)
        ),
    )


def segment_users(
    key: str,
    segments: Iterable[Segment],
    configs: Iterable[FlagConfig],
    flag_keys: Mapping[str, str],
) -> tuple[str, ...]:
    """Return who names the segment: `flag KEY` for its rules in any environment, `segment KEY` for conditions."""
    users = {
        f"flag {flag_keys[config.flag_id]}"
        for config in configs
        if config.flag_id in flag_keys and any(key in segments_in(rule.when) for rule in config.rules)
    }
    users |= {f"segment {segment.key}" for segment in segments if key in segments_in(segment.when)}
    return tuple(sorted(users))
