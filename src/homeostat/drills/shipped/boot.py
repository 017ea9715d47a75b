"""First program on a host reached by SSH: checks that drills are permitted and unpacks the shipped files.

It is sent as the text of `python3 -c` and read by any python3, so that an old one is told what is missing.
Nothing is written on a host whose own file does not say that drills are on. What is needed comes as a zip on
standard input, only when it is not there yet, and lies in `STATE_DIR/shipped/DIGEST`, for its owner alone.
The digest is compared each time. What other versions have sent goes when nothing runs from it.
"""

import hashlib
import io
import json
import os
import shutil
import stat
import sys
import time
import zipfile
from typing import Any, Dict, List

OLDEST = (3, 9)
"""The Python that injectors and the process watch need; the undo keeper alone runs on 3.8."""

FRESH_S = 600
"""Seconds that a folder stays after somebody came for it: a program may be about to start from it."""


class Unfit(Exception):
    """Why nothing can be done here: the name of the error, and its line."""


def words_of(host: str, path: str) -> Dict[str, Any]:
    """The mapping in the host's own file, which nobody else may write."""
    try:
        with open(path) as file:
            found, text = os.fstat(file.fileno()), file.read()
    except FileNotFoundError:
        remedy = '{"enabled": true, "injectors": ["node_kill"]}'
        raise Unfit(
            "NotAllowed",
            "%s: drills are not permitted there: it has no %s; to permit them, create it with %s"
            % (host, path, remedy),
        )
    except OSError as error:
        raise Unfit("NotAllowed", "%s: %s cannot be read there: %s" % (host, path, error.strerror))
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise Unfit(
            "NotAllowed", "%s: %s there can be written by others; chmod go-w, chown root" % (host, path)
        )
    try:
        words = json.loads(text)
    except ValueError as error:
        raise Unfit("NotAllowed", "%s: %s on that host is not valid JSON: %s" % (host, path, error))
    if not isinstance(words, dict):
        raise Unfit("NotAllowed", "%s: %s on that host is not a JSON object" % (host, path))
    return words


def state_of(host: str, words: Dict[str, Any]) -> str:
    """The state folder: what the file says, else a fixed one."""
    given = words.get("state_dir")
    if given is None:
        own = os.path.expanduser("~/.local/state/homeostat-drills")
        given = "/var/lib/homeostat-drills" if os.geteuid() == 0 else own
    if not isinstance(given, str) or not os.path.isabs(given):
        raise Unfit("BadInput", "%s: state_dir: %r is not accepted; an absolute path" % (host, given))
    return given


def private(host: str, path: str) -> str:
    """Make a folder, or see that nobody else can put anything into it."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise Unfit("NotAllowed", "%s: %s cannot be made there: %s" % (host, path, error.strerror))
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise Unfit("NotAllowed", "%s: %s there must be a folder that only its owner writes" % (host, path))
    return path


def digest_of(files: Dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(("%s %d\n" % (name, len(files[name]))).encode() + files[name])
    return total.hexdigest()


def files_in(folder: str) -> Dict[str, bytes]:
    """Everything below a folder by name; what python keeps beside it is none of it."""
    files = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each != "__pycache__"]
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, folder)] = file.read()
    return files


def unpack(body: bytes, folder: str, digest: str) -> None:
    """Whole or not at all."""
    fresh = "%s.%d" % (folder, os.getpid())
    os.mkdir(fresh, 0o700)
    try:
        zipfile.ZipFile(io.BytesIO(body)).extractall(fresh)
        if digest_of(files_in(fresh)) != digest:
            raise Unfit("RetryLater", "what arrived is not what was sent; try again")
        if digest_of(files_in(folder)) != digest:  # nobody else has brought it meanwhile
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sweep(shipped: str, digest: str) -> None:
    """Remove what others were sent here and nothing runs from; a keeper, guard or worker keeps its own."""
    try:
        os.utime(os.path.join(shipped, digest))
        running = command_lines()
        for name in os.listdir(shipped):
            age_s = time.time() - os.lstat(os.path.join(shipped, name)).st_mtime
            used = any(os.fsencode("shipped/" + name) in line for line in running)
            if name != digest and age_s > FRESH_S and not used:
                shutil.rmtree(os.path.join(shipped, name), ignore_errors=True)
    except OSError:
        pass  # somebody else sweeps, or it cannot be: another time


def command_lines() -> List[bytes]:
    """Of every process that can be seen."""
    lines = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                lines.append(file.read())
        except OSError:
            pass  # it has ended
    return lines


def boot(host: str, path: str, digest: str) -> str:
    """The folder with what was sent."""
    if sys.version_info < OLDEST:
        found, oldest = "%d.%d" % sys.version_info[:2], "%d.%d" % OLDEST
        remedy = "%s: its python3 is %s; install %s and name it in ssh.python" % (host, found, oldest)
        raise Unfit("NotAllowed", remedy)
    os.umask(0o077)
    words = words_of(host, path)
    shipped = os.path.join(state_of(host, words), "shipped")
    folder = os.path.join(shipped, digest)
    there = digest_of(files_in(folder)) == digest
    # What was broken while drills were on may still be undone; each verb asks the file again.
    if words.get("enabled") is not True and not there:
        raise Unfit(
            "NotAllowed",
            "%s: drills.enabled is false in its %s; to permit drills, set it to true there" % (host, path),
        )
    private(host, os.path.dirname(shipped))
    private(host, shipped)
    if not there:
        print(json.dumps({"needed": digest}), flush=True)
        unpack(sys.stdin.buffer.read(), folder, digest)
    sweep(shipped, digest)
    return folder


def main() -> None:
    """`python3 -c TEXT HOST FILE DIGEST`: lines of JSON; the last has `folder` or `error`."""
    try:
        print(json.dumps({"folder": boot(*sys.argv[1:])}))
    except Unfit as error:
        print(json.dumps({"error": {"kind": error.args[0], "message": error.args[1]}}))
    except OSError as error:
        print(json.dumps({"error": {"kind": "GiveUp", "message": "%s: %s" % (sys.argv[1], error)}}))


if __name__ == "__main__":
    main()
