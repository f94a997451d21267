"""Says in words why the spool cannot be written and what to do; an errno alone helps nobody at night."""

import errno
from collections.abc import Mapping
from pathlib import Path

_WAYS_OUT: Mapping[int, str] = {
    errno.ENOSPC: "free space on this volume, or make it larger",
    errno.EDQUOT: "raise the quota of the gateway's user, or free space",
    errno.EROFS: "the volume is read-only, often after an error of its disk: see dmesg, then mount it for writing",
    errno.EIO: "the disk reports an error: see dmesg, and replace the volume if it comes again",
    errno.EACCES: "give the gateway's user the right to write there",
    errno.EPERM: "give the gateway's user the right to write there",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOENT: "the folder was removed under the gateway: start the gateway again, it makes a new one",
    errno.ENOTDIR: "a file stands where a folder should be: move it away",
}


def explain(error: Exception, folder: Path) -> str:
    """One sentence on what went wrong in `folder` and one on the way out."""
    if not isinstance(error, OSError):
        return f"The request spool in {folder} failed: {type(error).__name__}: {error}. Start the gateway again."
    way_out = _WAYS_OUT.get(error.errno or 0, "see the system's log")
    return (
        f"The request spool in {folder} cannot be written ({error.strerror or error}): {way_out}. The gateway goes on by"
        " itself as soon as writing works; LLMOPS_HOME puts the spool elsewhere."
    )
