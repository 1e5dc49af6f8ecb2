#!/usr/bin/env python3
"""A file bus as one writes it in Python: append, flush, fsync, and the offset is the number of lines before.

    line_bus.py FILE EVENTS PROCESSES N [LINES]

N events by each process, each into a log that had LINES lines before. Prints "count seconds p50_us p99_us 0".
"""
import fcntl, json, os, sys, time


def publish(path, event):
    with open(path, "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with open(path) as lines:
            offset = sum(1 for _ in lines)
        log.write(json.dumps(event) + "\n")
        log.flush()
        os.fsync(log.fileno())
    return offset


def publish_each(path, events, report):
    times = []
    for event in events:
        begin = time.perf_counter()
        publish(path, event)
        times.append(time.perf_counter() - begin)
    os.write(report, (json.dumps(times) + "\n").encode())


def main(path, source, processes, count, lines=0):
    with open(source) as file:
        events = [json.loads(line) for _, line in zip(range(int(count)), file)]
    with open(path, "w") as log:
        log.writelines(json.dumps(events[i % len(events)]) + "\n" for i in range(int(lines)))
        log.flush()
        os.fsync(log.fileno())
    report, write = os.pipe()
    begin = time.perf_counter()
    for _ in range(int(processes)):
        if os.fork() == 0:
            publish_each(path, events, write)
            os._exit(0)
    os.close(write)
    with os.fdopen(report) as told:
        times = sorted(taken for line in told for taken in json.loads(line))
    seconds = time.perf_counter() - begin
    if len(times) != int(processes) * int(count):
        sys.exit("line_bus.py: a process failed")
    print(len(times), seconds, times[len(times) // 2] * 1e6, times[len(times) * 99 // 100] * 1e6, 0)


main(*sys.argv[1:])
