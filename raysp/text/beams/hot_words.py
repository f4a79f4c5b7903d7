"""Hot words and phrases in a beam search: a weight for each time that a text contains one of them.

An automaton (Aho & Corasick 1975) over tokens finds all of them, also where they overlap. A word counts when it ends; a
prefix of a text that ends within a hot word is ranked higher meanwhile, by the part of the weight that corresponds to
the part of the tokens. This lift is not part of a score: it is taken back when the text goes on otherwise.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from raysp.text.beams.search import Chosen, Extensions, Floats, Ints


class HotWords:
    """Weights of hot words. The state of a prefix is the automaton's.

    Args:
        weights: weight of each sequence of tokens.
        vocab_size: number of tokens.
        delimiter: token that separates words and must stand around a hot word, as the begin and the end of a text do;
            None: hot words may be parts of words.
    """

    def __init__(self, weights: Mapping[tuple[int, ...], float], *, vocab_size: int, delimiter: int | None) -> None:
        around = () if delimiter is None else (delimiter,)
        trie = _Trie({(*around, *tokens, *around): weight for tokens, weight in weights.items()}, len(around))
        used = sorted({token for edges in trie.edges for token in edges})
        self.columns = np.zeros(vocab_size, np.int64)  # 0: of tokens without an edge
        self.columns[used] = np.arange(1, len(used) + 1)
        self.next_states = trie.table(used)
        self.gains, self.lifts = np.exp(trie.gains), np.exp(trie.lifts)
        self.around = around

    def start(self) -> list[int]:
        """Return the state of the empty prefix, to which a word may be added."""
        return [int(self.next_states[0, self.columns[self.around[0]]]) if self.around else 0]

    def extend(self, states: Ints, tokens: Ints, *, has_delimiter: bool) -> Extensions:
        """Return the weights of words that end, and the lifts of prefixes within a word."""
        after = self._after(states, self.columns.take(tokens)[:, None])
        return Extensions(self.gains.take(after), self.lifts.take(after), after)

    def lift(self, states: Ints) -> Floats:
        """Return the lifts of the prefixes."""
        return self.lifts.take(states[..., 0])

    def advance(self, states: Ints, chosen: Chosen, carried: Ints) -> Ints:
        """Return the states of the chosen prefixes."""
        after = carried.ravel().take(chosen.sources * carried.shape[2] + chosen.places)
        return np.where(chosen.is_new, after, states[..., 0])[..., None]

    def _after(self, states: Ints, columns: Ints) -> Ints:
        """Return the states after tokens of these columns."""
        after: Ints = self.next_states.ravel().take(states * self.next_states.shape[1] + columns)
        return after

    def end(self, states: Ints) -> Floats:
        """Return the weights of words that end with the text."""
        if not self.around:
            return np.ones(states.shape[:-1])
        weights: Floats = self.gains[self.next_states[states[..., 0], self.columns[self.around[0]]]]
        return weights


class _Trie:
    """A trie of sequences, with links to the longest other suffix of each node that is in it.

    Attributes:
        edges: by node, the next node for each token.
        gains: by node, the sum of the weights of sequences that end with it.
        lifts: by node, the largest part of a weight of a sequence that is not complete.
    """

    def __init__(self, weights: Mapping[tuple[int, ...], float], free: int) -> None:
        self.edges: list[dict[int, int]] = [{}]
        self.gains, self.lifts = [0.0], [0.0]
        for tokens, weight in weights.items():
            self._add(tokens, weight, free)
        self.links = [0] * len(self.edges)
        self.order = self._link()

    def _add(self, tokens: Sequence[int], weight: float, free: int) -> None:
        """Add a sequence, whose first `free` tokens do not lift a prefix."""
        node = 0
        for place, token in enumerate(tokens, 1):
            if token not in self.edges[node]:
                self.edges[node][token] = len(self.edges)
                self.edges.append({})
                self.gains.append(0.0)
                self.lifts.append(0.0)
            node = self.edges[node][token]
            if place < len(tokens):
                self.lifts[node] = max(self.lifts[node], weight * max(0, place - free) / (len(tokens) - free))
        self.gains[node] += weight

    def _link(self) -> list[int]:
        """Set the links, and return the nodes by their depth."""
        # Breadth first: a link leads to a node that is less deep, whose gains and lifts are complete.
        order, waiting = [0], deque(self.edges[0].values())
        while waiting:
            node = waiting.popleft()
            order.append(node)
            self.gains[node] += self.gains[self.links[node]]
            self.lifts[node] = max(self.lifts[node], self.lifts[self.links[node]])
            for token, child in self.edges[node].items():
                link = self.links[node]
                while link and token not in self.edges[link]:
                    link = self.links[link]
                self.links[child] = self.edges[link].get(token, 0)
                waiting.append(child)
        return order

    def table(self, used: Sequence[int]) -> np.ndarray:
        """Return the next node by node and token of `used`, whose columns begin with 1."""
        next_nodes = np.zeros((len(self.edges), len(used) + 1), np.int64)
        columns = {token: column for column, token in enumerate(used, 1)}
        for node in self.order:
            next_nodes[node] = next_nodes[self.links[node]] if node else 0
            for token, child in self.edges[node].items():
                next_nodes[node, columns[token]] = child
        return next_nodes
