"""A submission.zip made elsewhere: N checkpoints, read without running anything that is in it.

Nothing is unpacked to disk, and no member is read beyond a limit. What a checkpoint may be, `checkpoint` says.
Needs no torch.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

CHECKPOINT = "unlearned_checkpoint_{}.pth"
FOLDER = "kaggle/tmp"  # where the organisers' own line, zip submission.zip /kaggle/tmp/*.pth, puts them
MAX_BYTES = 256 << 20  # of a checkpoint, unpacked; a ResNet-18 with 10 outputs has 45 MB
MOST_MODELS = 10_000


class SubmissionError(ValueError):
    """A submission that cannot be scored. The message says why."""


@dataclass(frozen=True)
class Submission:
    """A zip whose list of members is in order; what is in them has not been looked at.

    Attributes:
        members: name in the zip of checkpoint 0, 1 and so on.
    """

    path: Path
    members: tuple[str, ...]

    @property
    def n_models(self) -> int:
        return len(self.members)


def open_submission(path: Path | str) -> Submission:
    """Read the list of members of a submission.

    Raises:
        SubmissionError: the file is not a zip of the checkpoints 0 to N - 1 alone, in one place, each of
            a size that can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise SubmissionError(f"There is no file {path}.")
    if not path.stat().st_size:
        raise SubmissionError(
            f"{path} is empty: the notebook found empty.txt or made no checkpoints. Hand in the zip of a full run."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise SubmissionError(f"{path} is not a whole zip file ({error}). Make it again.") from error
    named: dict[int, str] = {}
    for member in members:
        number = _number_of(path, member.filename)
        if number in named:
            raise SubmissionError(f"{path} holds {CHECKPOINT.format(number)} twice. Make it again.")
        _check_member(path, member)
        named[number] = member.filename
    _check_numbers(path, named)
    if len({name.rpartition("/")[0] for name in named.values()}) > 1:
        raise SubmissionError(f"{path} holds checkpoints in several folders. Put all of them into one.")
    return Submission(path, tuple(named[number] for number in range(len(named))))


def read_member(path: Path | str, index: int) -> bytes:
    """Return the bytes of one checkpoint.

    Raises:
        SubmissionError: there is no such checkpoint, or it cannot be unpacked.
    """
    submission = open_submission(path)
    if not 0 <= index < submission.n_models:
        raise SubmissionError(f"{path} holds no {CHECKPOINT.format(index)}.")
    return _unpacked(submission.path, submission.members[index])


def _number_of(path: Path, name: str) -> int:
    """Return the number of the checkpoint that a member holds."""
    folder, _, file_name = name.rpartition("/")
    match = re.fullmatch(re.escape(CHECKPOINT).replace(r"\{\}", r"(0|[1-9]\d{0,4})"), file_name)
    if not match:
        raise SubmissionError(
            f"{path} holds {name!r}: expected {CHECKPOINT.format(0)}, {CHECKPOINT.format(1)} and so on, "
            "and nothing else."
        )
    nested = folder and not (folder == FOLDER or folder.endswith(f"/{FOLDER}"))
    if nested or name.startswith("/") or ".." in folder.split("/"):
        raise SubmissionError(
            f"{path} holds {name!r}: checkpoints must lie at the top of the zip, or in {FOLDER} as the "
            "organisers' notebook puts them."
        )
    return int(match[1])


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    if stat.S_ISLNK(member.external_attr >> 16):
        raise SubmissionError(f"{path}: {member.filename} is a link. Put the checkpoints themselves into the zip.")
    if member.file_size > MAX_BYTES:
        raise SubmissionError(
            f"{path}: {member.filename} unpacks to {member.file_size:,} bytes, more than the {MAX_BYTES:,} that "
            "a checkpoint may have."
        )
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The other methods unpack without a bound on memory.
        raise SubmissionError(
            f"{path}: {member.filename} is encrypted or not packed by deflate. Use zip's default."
        )


def _check_numbers(path: Path, named: dict[int, str]) -> None:
    if not named:
        raise SubmissionError(f"{path} holds no checkpoint.")
    missing = [number for number in range(len(named)) if number not in named]
    if missing or len(named) > MOST_MODELS:
        raise SubmissionError(
            f"{path} holds {len(named)} checkpoints with numbers up to {max(named)}: they must be numbered from 0 "
            f"without a gap; {CHECKPOINT.format(missing[0] if missing else MOST_MODELS)} is the first problem."
        )


def _unpacked(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            content = file.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise SubmissionError(f"{name} cannot be unpacked from {path} ({error}). Make the zip again.") from error
    if len(content) > MAX_BYTES:
        raise SubmissionError(f"{name} unpacks to more than {MAX_BYTES:,} bytes.")
    return content
