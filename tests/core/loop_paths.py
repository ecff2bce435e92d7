"""The shortest ways round the loops of a kernel's machine code.

A loop with branches has no one number of instructions. What is counted here is the way round it that has the fewest of those
that do what is asked for, such as one 16-byte store: without a bias or an activation, if leaving them out is shorter, and with
the wide access where a narrow one is the exception. So counts are lower bounds of what a kernel issues.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import re
from collections.abc import Mapping

Instructions = list[tuple[int, str]]

_TARGET = re.compile(r"\b(?:BRA|CALL\.REL\.NOINC)\b.*?0x([0-9a-f]+)")
_ENDS = re.compile(r"\b(EXIT|RET|BRX|JMX)\b")


@dataclasses.dataclass
class Block:
    """Instructions without a branch before the last; followers: the numbers of the blocks that may come next."""

    texts: list[str]
    followers: list[int]


@dataclasses.dataclass(frozen=True)
class Round:
    """The shortest way round a loop."""

    instructions: int
    begin: int  # the number of the loop's first block
    loop: tuple[str, ...]  # all of its instructions, on the way or not


def blocks(code: Instructions) -> list[Block]:
    jumps = {address: int(match.group(1), 16) for address, text in code if (match := _TARGET.search(text))}
    begins = set(jumps.values())
    found: list[Block] = []
    number_at: dict[int, int] = {}
    after_branch = True
    for address, text in code:
        if after_branch or address in begins:
            number_at[address] = len(found)
            found.append(Block([], []))
        found[-1].texts.append(text)
        after_branch = address in jumps or bool(_ENDS.search(text))
    last_addresses = [address for (address, _), (next_, _) in itertools.pairwise(code) if next_ in number_at]
    for number, (block, address) in enumerate(zip(found, [*last_addresses, code[-1][0]], strict=True)):
        text = block.texts[-1]
        if address in jumps and jumps[address] in number_at:
            block.followers.append(number_at[jumps[address]])
        # A condition may be a predicate before the instruction, or one of its operands.
        conditional = text.startswith("@") or re.search(r"\bBRA(\.\w+)* !?U?P\d", text) or "BRA.DIV" in text
        leaves = address in jumps or _ENDS.search(text)
        if (conditional or not leaves) and number + 1 < len(found):
            block.followers.append(number + 1)
    return found


def _loop(found: list[Block], leaders: list[list[int]], head: int, last: int) -> set[int]:
    """The blocks from which `last` is reached without passing `head`; empty where the kernel's first block is one."""
    inside, waiting = {head, last}, [last]
    while waiting:
        number = waiting.pop()
        if number == head:
            continue
        for before in leaders[number]:
            if before not in inside:
                inside.add(before)
                waiting.append(before)
    return inside if 0 not in inside else set()


def _counts(found: list[Block], wanted: Mapping[str, int]) -> list[tuple[int, ...]]:
    """Of each pattern in each block."""
    searches = [re.compile(pattern).search for pattern in wanted]
    return [tuple(sum(search(text) is not None for text in block.texts) for search in searches) for block in found]


def rounds(code: Instructions, wanted: Mapping[str, int]) -> list[Round]:
    """Of each innermost loop that can be gone round with so many instructions of each pattern, in the code's order."""
    found = blocks(code)
    leaders: list[list[int]] = [[] for _ in found]
    for number, block in enumerate(found):
        for follower in block.followers:
            leaders[follower].append(number)
    counts = _counts(found, wanted)
    loops: dict[int, set[int]] = {}
    for head in range(len(found)):
        for last in leaders[head]:
            if last >= head and (inside := _loop(found, leaders, head, last)):
                loops[head] = loops.get(head, set()) | inside
    results: list[tuple[set[int], Round]] = []
    for head, inside in sorted(loops.items(), key=lambda loop: len(loop[1])):
        if any(other < inside for other, _ in results):
            continue
        there = map(any, zip(*(counts[number] for number in inside), strict=True))
        if any(number > 0 and not is_there for number, is_there in zip(wanted.values(), there, strict=True)):
            continue
        length = _shortest(found, counts, inside, head, tuple(wanted.values()))
        if length is not None:
            texts = tuple(text for number in sorted(inside) for text in found[number].texts)
            results.append((inside, Round(length, head, texts)))
    return sorted((result for _, result in results), key=lambda result: result.begin)


def way_out(code: Instructions, behind: str, wanted: Mapping[str, int]) -> int | None:
    """Instructions of the shortest way from a block with the pattern `behind`, which is not counted, to the kernel's end."""
    found = blocks(code)
    inside = set(range(len(found)))
    starts = [number for number, block in enumerate(found) if any(re.search(behind, text) for text in block.texts)]
    ends = {number for number, block in enumerate(found) if re.search(r"\bEXIT\b", block.texts[-1])}
    ways = [_shortest(found, _counts(found, wanted), inside, start, tuple(wanted.values()), ends) for start in starts]
    return min((way for way in ways if way is not None), default=None)


def _shortest(
    found: list[Block],
    counts: list[tuple[int, ...]],
    inside: set[int],
    head: int,
    wanted: tuple[int, ...],
    ends: set[int] | None = None,
) -> int | None:
    """Instructions from `head` to where it begins again, with those wanted; or from behind it to one of `ends`."""

    def passed(state: tuple[int, ...], block: int) -> tuple[int, ...]:
        return tuple(min(limit, so_far + of) for so_far, of, limit in zip(state, counts[block], wanted, strict=True))

    none = (0,) * len(wanted)
    start = (len(found[head].texts), head, passed(none, head)) if ends is None else (0, head, none)
    queue, best = [start], {start[1:]: start[0]}
    while queue:
        length, block, state = heapq.heappop(queue)
        if length > best[block, state]:
            continue
        if state == wanted and (head in found[block].followers if ends is None else block in ends):
            return length
        for follower in found[block].followers:
            if follower not in inside or follower == head:
                continue
            place = follower, passed(state, follower)
            longer = length + len(found[follower].texts)
            if longer < best.get(place, longer + 1):
                best[place] = longer
                heapq.heappush(queue, (longer, *place))
    return None
