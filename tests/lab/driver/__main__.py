"""Runs the lab's jobs, two at a time, and says of each `ok` or `not ok`; exits with 1 if one failed."""

import argparse
import functools
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from console import Failed
from jobs import DEFAULT, GROUPS, JOBS, Job
from monitors import L1Lost, start_caraway, start_qemu, start_tcg


# Each L1 has one emulated processor, which keeps one of this machine's busy.
AT_ONCE = 2


def run(job: Job, start, ryll: Path, out: Path) -> str | None:
    """Why the job failed, or nothing. An L1 that was lost says nothing about it: one more try."""
    for attempt in ("first", "second"):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        guest = start(job.boot, out)
        try:
            job.steps(guest, ryll)
            return None
        except Failed as failure:
            return str(failure)
        except L1Lost as loss:
            print(f"# {attempt} run: {loss}", flush=True)
        finally:
            guest.stop()
    return "L1 was lost twice: the lab failed, not the job"


def tail(log: Path, lines: int) -> str:
    if not log.exists():
        return ""
    text = log.read_bytes().decode(errors="replace").replace("\r", "")
    kept = [line for line in text.splitlines() if line != "lab: beat"]
    return "".join(f"#   {line}\n" for line in kept[-lines:])


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--list-images", action="store_true", help="name the images that the jobs want, and end")
    options.add_argument("--image", action="append", default=[], metavar="NAME=DIR", help="what was built")
    options.add_argument("--ryll", type=Path)
    options.add_argument("--monitor", choices=["caraway", "qemu", "tcg"], default="caraway")
    options.add_argument("--caraway", type=Path)
    options.add_argument("--results", type=Path, help="where to keep logs and pictures, of passed jobs too")
    words = {**GROUPS, **{name: [name] for name in JOBS}}
    options.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(words)}; {', '.join(DEFAULT)} without one")
    chosen = options.parse_args()
    unknown = [word for word in chosen.jobs if word not in words]
    if unknown:
        options.error(f"no job {', '.join(unknown)}: there are {', '.join(words)}")

    names = list(dict.fromkeys(name for word in chosen.jobs for name in words[word])) or DEFAULT
    wanted = {"l1", "l2", *(JOBS[name].boot.disk for name in names)}
    if chosen.list_images:
        print(*sorted(wanted))
        return 0
    images = {name: Path(directory) for name, _, directory in (given.partition("=") for given in chosen.image)}
    if missing := wanted - images.keys():
        options.error(f"no --image {', '.join(missing)}")
    starters = {"caraway": functools.partial(start_caraway, chosen.caraway), "qemu": start_qemu, "tcg": start_tcg}
    start = functools.partial(starters[chosen.monitor], images)
    # Short, for the sockets in it; kept when something failed.
    results = chosen.results or Path(tempfile.mkdtemp(prefix="lab-"))

    def passes(name: str) -> bool:
        begun = time.monotonic()
        why = run(JOBS[name], start, chosen.ryll, results / name)
        if why is None:
            print(f"ok {name} ({time.monotonic() - begun:.0f} s)", flush=True)
            return True
        report = f"not ok {name}: {why}\n"
        for log, lines in (("serial.log", 25), ("share/stderr", 15), ("l1.log", 5), ("qemu.log", 5)):
            report += f"# {results / name / log}:\n{tail(results / name / log, lines)}"
        print(report, end="", flush=True)
        return False

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = list(pool.map(passes, names)).count(False)
    print(f"{len(names) - failed} passed, {failed} failed")
    if not failed and not chosen.results:
        shutil.rmtree(results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
