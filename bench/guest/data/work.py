# SPDX-License-Identifier: Apache-2.0
"""The interpreter at its daily work: attribute access, dictionaries, lists, strings, generators, exceptions, integers."""
import sys


class Node:
    def __init__(self, key, left=None, right=None):
        self.key, self.left, self.right = key, left, right

    def walk(self):
        if self.left:
            yield from self.left.walk()
        yield self.key
        if self.right:
            yield from self.right.walk()


def insert(node, key):
    if node is None:
        return Node(key)
    if key < node.key:
        node.left = insert(node.left, key)
    elif key > node.key:
        node.right = insert(node.right, key)
    return node


def trees(turn):
    root, key = None, turn * 7919 + 1
    for _ in range(300):
        key = (key * 1103515245 + 12345) % 2147483648
        root = insert(root, key % 1000)
    return sum(i * k for i, k in enumerate(root.walk()))


def words(turn):
    text = " ".join("%x" % ((i * 2654435761 + turn) % 4093) for i in range(600))
    count = {}
    for word in text.split():
        count[word] = count.get(word, 0) + 1
    return sum(v * len(k) for k, v in sorted(count.items(), key=lambda p: (-p[1], p[0]))[:100])


def queens(n, row=0, cols=0, left=0, right=0):
    if row == n:
        return 1
    found, free = 0, ~(cols | left | right) & ((1 << n) - 1)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(n, row + 1, cols | bit, (left | bit) << 1, (right | bit) >> 1)
    return found


def floats(turn):
    x, total = 0.5 + turn / 1000, 0.0
    for i in range(2000):
        x = 3.7 * x * (1 - x) if 0 < x < 1 else 0.3
        total += x / (i + 1)
    return int(total * 1e6)


def errors(turn):
    caught, data = 0, {i: str(i) for i in range(50)}
    for i in range(300):
        try:
            caught += int(data[(i * 3 + turn) % 70])
        except KeyError as missing:
            caught += missing.args[0]
    return caught


def main():
    total = 0
    for turn in range(int(sys.argv[1])):
        total = (total * 31 + trees(turn) + words(turn) + queens(5) + floats(turn) + errors(turn)) % (1 << 61)
    print(total)


main()
