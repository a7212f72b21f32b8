#!/usr/bin/env python3
"""Loads and saves 2 GB checkpoints of both layouts, and dd with as many bytes, in turn; medians and ratios.

  benchmarks/io/checkpoint_io.py FOLDER [--program NAME=PATH ...] [--rounds 7]

The program is build/release/bin/benchmark_checkpoint_io; several are measured in turn, to compare two states, all but
the last with one thread only.
FOLDER is on the disk to be measured (not tmpfs) and has 9 GB free; what is made there is removed at the end.

load, cold: before each run the file's pages are written back and dropped (posix_fadvise DONTNEED), for dd too; the
            readers' order changes from round to round. A virtual machine may have given memory that was free for some
            seconds back to its host, and 2 GB of it come back in 3 s: so before each run as much as the file, the parameters
            and 1 GiB is touched (8 GB of memory are needed).
load, warm: the file is in the page cache. dd reads it into 4 MiB of memory that stay in the processor's cache; a load
            has to fill 2 GB or more, so "copy" is beside it: read() into fresh memory of the file's size.
save:       until everything is on the disk. dd writes the same bytes from a file in memory, once with conv=fsync
            through the page cache, once with oflag=direct and conv=fsync.
"""
import argparse
import ctypes
import functools
import json
import mmap
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

CASES = [("meta", "float32"), ("meta", "bfloat16"), ("hf", "float32"), ("hf", "bfloat16")]
BLOCK = 4 << 20


def fetch_free_memory(count):
    """Lets the host of a virtual machine give back what the page cache and the parameters will take."""
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    view = ctypes.c_char.from_buffer(memory)
    ctypes.memset(ctypes.addressof(view), 1, count)
    del view
    memory.close()


def drop(path):
    """The file's pages out of the cache; true when none is left."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def warm(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(BLOCK):
            pass


def dd(*arguments):
    begin = time.perf_counter()
    subprocess.run(["dd", "bs=4M", "status=none", *arguments], check=True)
    return time.perf_counter() - begin


def copy_to_memory(path):
    """Seconds for read() of the whole file into memory that was touched before."""
    size = os.path.getsize(path)
    memory = bytearray(size)
    memory[::4096] = b"x" * len(range(0, size, 4096))
    view = memoryview(memory)
    begin = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        at = 0
        while at < size:
            at += file.readinto(view[at:])
    return time.perf_counter() - begin


def ours(program, *arguments):
    out = subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


class Table:
    def __init__(self):
        self.rows = {}

    def add(self, name, seconds):
        self.rows.setdefault(name, []).append(seconds)

    def print(self, title, size, best_of):
        best = min(statistics.median(self.rows[name]) for name in best_of)
        print(f"\n{title}, {size / 1e9:.2f} GB")
        for name, times in self.rows.items():
            median = statistics.median(times)
            print(f"  {name:28} {median:6.2f} s  {size / median / 1e6:7.0f} MB/s  ({len(times)} runs, "
                  f"{min(times):.2f} to {max(times):.2f} s)  {100 * best / median:4.0f} % of the best dd", flush=True)


def weights(folder):
    return next(path for path in pathlib.Path(folder).iterdir() if path.suffix in (".pth", ".safetensors"))


def threads_text(count):
    return f"{count} thread{'s' * (count > 1)}"


def measure_case(programs, folder, layout, dtype, rounds, threads):
    checkpoint = str(folder / "checkpoint")
    target = folder / "dd.out"
    memory = pathlib.Path("/dev/shm") / f"checkpoint_io.{os.getpid()}"
    saving, cold, hot = Table(), Table(), Table()
    extra = {}

    def run(table, name, *words):
        result = ours(*words)
        table.add(name, result["seconds"])
        extra[name, words[1]] = max(extra.get((name, words[1]), 0.0), result["more_memory_mb"])

    def read_cold(flags):
        cold.add(" ".join(["dd", *flags]), dd(f"if={path}", "of=/dev/null", *flags))

    def threads_of(name):
        return threads if name == list(programs)[-1] else threads[:1]

    try:
        for number in range(rounds):  # an interrupt ends them
            for name, program in programs.items():
                shutil.rmtree(checkpoint, ignore_errors=True)
                os.sync()
                run(saving, name, program, "save", layout, dtype, checkpoint)
            path = weights(checkpoint)
            if not memory.exists():
                shutil.copyfile(path, memory)
            for flags in (["conv=fsync"], ["oflag=direct", "conv=fsync"]):
                if number % 3 > 0 and len(flags) == 1:
                    continue  # takes five times as long as all others
                target.unlink(missing_ok=True)
                os.sync()
                saving.add("dd " + " ".join(flags), dd(f"if={memory}", f"of={target}", *flags))
            target.unlink()
            os.sync()
            readers = [functools.partial(read_cold, flags) for flags in ([], ["iflag=direct"])]
            readers += [functools.partial(run, cold, f"{name}, {threads_text(count)}", program, "load", checkpoint, str(count))
                        for name, program in programs.items() for count in threads_of(name)]
            for reader in readers[number % len(readers):] + readers[:number % len(readers)]:
                drop(path)
                fetch_free_memory(path.stat().st_size * (2 if dtype == "float32" else 3) + (1 << 30))
                reader()
            warm(path)
            hot.add("dd", dd(f"if={path}", "of=/dev/null"))
            hot.add("copy", copy_to_memory(path))
            for name, program in programs.items():
                for count in threads_of(name):
                    run(hot, f"{name}, {threads_text(count)}", program, "load", checkpoint, str(count))
    except KeyboardInterrupt:
        print("interrupted: what follows is from fewer rounds")
    finally:
        memory.unlink(missing_ok=True)
    size = path.stat().st_size
    saving.print(f"save {layout} {dtype}", size, ["dd conv=fsync", "dd oflag=direct conv=fsync"])
    cold.print(f"load {layout} {dtype}, cold", size, ["dd", "dd iflag=direct"])
    hot.print(f"load {layout} {dtype}, warm", size, ["dd"])
    for (name, what), megabytes in extra.items():
        print(f"  {what}, {name}: {megabytes:.0f} MB beyond the parameters")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--program", nargs="+", default=["caravan=build/release/bin/benchmark_checkpoint_io"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--case", help="only this one, as meta-float32")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    folder = arguments.folder / f"checkpoint_io.{os.getpid()}"
    folder.mkdir(parents=True)
    programs = dict(entry.split("=", 1) for entry in arguments.program)
    try:
        for layout, dtype in CASES:
            if arguments.case in (None, f"{layout}-{dtype}"):
                measure_case(programs, folder, layout, dtype, arguments.rounds, arguments.threads)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
