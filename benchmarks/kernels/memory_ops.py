#!/usr/bin/env python3
"""The ops that memory should limit, of two builds in turns on the same cores, as a Markdown table: medians of GB/s and of
their ratio to the triad of the same round, and nanoseconds per element with data in the first-level cache.

  cmake --preset release -DCARAVAN_BUILD_BENCHMARKS=ON && cmake --build build/release --target benchmark_memory_ops
  benchmarks/kernels/memory_ops.py --baseline OTHER/bin/benchmark_memory_ops --threads 1 2 --rounds 21
"""

import argparse
import pathlib
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "end_to_end"))
from compare_step import Turn  # noqa: E402  a folder beside this one

PROGRAM = HERE.parents[1] / "build/release/bin/benchmark_memory_ops"


def cells_of(turn, name):
    """Rate, ratio to the triad, the same with fetched lines, and nanoseconds per element: arithmetic, memory at best."""
    moved, fetched = turn.about["bytes"][name]
    triad_moved, triad_fetched = turn.about["bytes"]["triad"]
    rates = turn.values("round", "rates", name)
    triads = turn.values("round", "rates", "triad")
    ratio = statistics.median(own / triad for own, triad in zip(rates, triads))
    with_fetched = ratio * (1 + fetched / moved) / (1 + triad_fetched / triad_moved)
    memory = (moved + fetched) / (statistics.median(triads) * (1 + triad_fetched / triad_moved))
    inside = turn.answers["round"][0]["in_cache"]
    arithmetic = f"{turn.median('round', 'in_cache', name):.3f}" if name in inside else ""
    return f" {statistics.median(rates):.1f} | {100 * ratio:.0f} % | {100 * with_fetched:.0f} % | {arithmetic} | {memory:.3f} |"


def report(turns, rounds):
    print(f"\n{turns[0].about['threads']} thread(s), {rounds} rounds, {turns[0].about['backend']}, "
          f"{turns[0].median('round', 'gigahertz'):.2f} GHz; " +
          ", ".join(f"{turn.name}: commit {turn.about['commit']}" for turn in turns) + "\n")
    header = "".join(f" {turn.name}, GB/s | of triad | with fetched lines | ns in cache | ns of memory |" for turn in turns)
    print(f"| op |{header}")
    print("|---|" + "---|" * (5 * len(turns)))
    for name in turns[0].about["bytes"]:
        print(f"| {name} |" + "".join(cells_of(turn, name) for turn in turns))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=PROGRAM, help="benchmark_memory_ops")
    parser.add_argument("--baseline", help="another build of it, to compare with")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    for threads in options.threads:
        turns = [Turn("after" if options.baseline else "now", [options.program, str(threads)])]
        if options.baseline:
            turns.insert(0, Turn("before", [options.baseline, str(threads)]))
        for _ in range(options.rounds):
            for turn in turns:
                turn.ask("round")
        report(turns, options.rounds)
        for turn in turns:
            turn.end()


if __name__ == "__main__":
    main()
