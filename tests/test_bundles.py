"""A session handed in: the archive is the same each time, names what was changed in it, and is safe to open."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import socket
import tarfile
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_flagperf import bundles
from pytest_flagperf.cli import main
from pytest_flagperf.commands import verify
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.evidence.findings import Findings
from tests import made_session
from tests.made_session import CASE


HOST = f"session/{CASE}/round1/host-1"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle from another machine: neither the session nor the vendor folder it was made of is here any more."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    session = made_session.make(elsewhere)
    path = bundles.make(session, tmp_path_factory.mktemp("here") / "session.tar.gz").path
    shutil.rmtree(elsewhere)
    return path


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def pack(path: Path, files: Mapping[str, bytes], *more: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            archive.addfile(plain(name, len(content)), io.BytesIO(content))
        for member, content in more:
            archive.addfile(member, io.BytesIO(content))
    return path


def plain(name: str, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def with_manifest(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with a manifest as a forger makes it."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = [
        {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
        if name != "manifest.json"
    ]
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def problems(path: Path) -> list[str]:
    return [str(one) for one in verify.of_bundle(path).findings.problems]


def test_a_bundle_from_another_machine_verifies(bundle, capsys):
    assert main(["verify", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "3 results, 3 rounds" in out
    assert "verified: every figure that can be computed again follows from the raw files" in out
    assert f"sha256 {hashlib.sha256(bundle.read_bytes()).hexdigest()}" in out


def test_a_bundle_brings_the_vendor_file_that_utilization_and_power_are_judged_by(bundle):
    names = contents(bundle)
    (vendor,) = [name for name in names if name.endswith("vendor.toml")]
    assert names[vendor] == made_session.VENDOR.encode()
    # Without it mfu is not judged; with it an edited mfu is found.
    result = f"session/{CASE}/result.json"
    document = json.loads(names[result])
    document["rounds"][0]["metrics"]["mfu"]["value"] *= 1.01
    names[result] = json.dumps(document).encode()
    assert any("round 1 mfu" in one for one in problems(pack(bundle.parent / "mfu.tar.gz", with_manifest(names))))


def test_the_same_session_gives_the_same_bytes(tmp_path):
    session = made_session.make(tmp_path)
    first = bundles.make(session, tmp_path / "first.tar.gz")
    moved = shutil.copytree(session, tmp_path / "copy" / session.name)
    os.utime(moved / "session.json", (1, 1))
    second = bundles.make(moved, tmp_path / "second.tar.gz")
    assert first.sha256 == second.sha256 == bundles.sha256_of(tmp_path / "second.tar.gz")


# --- one digit


KINDS = {
    "session.json": "session/session.json",
    "ledger.jsonl": "session/ledger.jsonl",
    "result.json": f"session/{CASE}/result.json",
    "case.json": f"session/{CASE}/round1/case.json",
    "times.json": f"session/{CASE}/round1/times.json",
    "events of rank 0": f"{HOST}/rank0.events.jsonl",
    "events of rank 1": f"{HOST}/rank1.events.jsonl",
    "monitor.jsonl": f"{HOST}/monitor.jsonl",
    "results.jsonl": "session/operators/main/results.jsonl",
    "operators.csv": "session/operators.csv",
    "operators.json": "session/operators.json",
    "vendor file": "vendor.toml",
}


def digits(content: bytes, count: int, seed: int) -> list[bytes]:
    """The content with one digit changed, at ``count`` places drawn at random."""
    places = [index for index, byte in enumerate(content) if chr(byte).isdigit()]
    chosen = random.Random(seed).sample(places, min(count, len(places)))
    return [content[:at] + str((int(chr(content[at])) + 1) % 10).encode() + content[at + 1 :] for at in chosen]


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_digit_anywhere_is_named_by_its_file(bundle, tmp_path, kind):
    files = contents(bundle)
    (name,) = [one for one in files if one == KINDS[kind] or one.endswith(f"/{KINDS[kind]}")]
    for number, edited in enumerate(digits(files[name], 8, seed=len(kind))):
        path = pack(tmp_path / "edited.tar.gz", {**files, name: edited})
        found, where = Findings(), tmp_path / f"unpacked{number}"
        where.mkdir()
        bundles.unpack(path, where, found)
        assert [one.file for one in found.problems] == [name]
        assert "it was changed" in found.problems[0].message


def test_the_whole_verification_names_a_changed_file_too(bundle, tmp_path, capsys):
    files = contents(bundle)
    log = files[f"{HOST}/rank0.events.jsonl"]
    path = pack(tmp_path / "edited.tar.gz", {**files, f"{HOST}/rank0.events.jsonl": log.replace(b"64000", b"65000")})
    assert main(["verify", "--json", str(path)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verified"] is False
    found = {(one["file"], one["figure"]) for one in document["problems"]}
    assert (f"{HOST}/rank0.events.jsonl", "") in found
    assert (f"{CASE}/result.json", "round 1 p_train") in found


@pytest.mark.parametrize(
    ("name", "old", "new", "figure"),
    [
        (f"{HOST}/rank0.events.jsonl", b"64000", b"65000", "round 1 p_whole"),
        (f"{HOST}/rank1.events.jsonl", b'"core_time": 32.0', b'"core_time": 33.0', "round 1 p_core"),
        (f"{HOST}/monitor.jsonl", b'"utilization": 0.9', b'"utilization": 0.8', "round 1 device_utilization"),
        (f"session/{CASE}/round1/times.json", b"1047.5", b"1048.5", "round 1 e2e_time"),
        (f"session/{CASE}/round1/case.json", b'"learning_rate": 0.1', b'"learning_rate": 0.2', "learning_rate"),
        ("session/ledger.jsonl", b'"seed": 1', b'"seed": 4', "round 1 seed"),
        (f"session/{CASE}/result.json", b'"met": true', b'"met": false', "target top1 met"),
    ],
)
def test_with_a_manifest_made_anew_the_figure_is_named(bundle, tmp_path, name, old, new, figure):
    files = contents(bundle)
    assert old in files[name]
    forged = with_manifest({**files, name: files[name].replace(old, new)})
    found = problems(pack(tmp_path / "forged.tar.gz", forged))
    assert any(figure in one for one in found), found
    # The file is named: as the one with the figure, or as the source that it does not follow from.
    file = name.removeprefix("session/").rpartition("/")[2]
    assert any(file in one or file.replace("rank0", "rank*").replace("rank1", "rank*") in one for one in found), found


def test_a_forged_vendor_file_is_not_what_the_results_name(bundle, tmp_path):
    files = contents(bundle)
    (name,) = [one for one in files if one.endswith("vendor.toml")]
    forged = with_manifest({**files, name: files[name].replace(b"fp32 = 60.0", b"fp32 = 70.0")})
    found = problems(pack(tmp_path / "forged.tar.gz", forged))
    assert any(one.startswith(f"{name}: sha256") for one in found), found


def test_a_digest_that_the_reviewer_kept_tells_any_other_archive(bundle, tmp_path, capsys):
    kept = bundles.sha256_of(bundle)
    assert main(["verify", str(bundle), "--sha256", kept.upper()]) == 0
    forged = pack(tmp_path / "forged.tar.gz", with_manifest(contents(bundle)))
    assert main(["verify", str(forged)]) == 0
    assert main(["verify", str(forged), "--sha256", kept]) == 1
    assert f"and was to be {kept}: another archive" in capsys.readouterr().out
    with pytest.raises(SystemExit) as usage:
        main(["verify", str(bundle), "--sha256", "abc"])
    assert usage.value.code == 2


def test_files_that_are_missing_or_added_are_named(bundle, tmp_path):
    files = contents(bundle)
    name = f"{HOST}/rank0.log"
    found = problems(pack(tmp_path / "less.tar.gz", {key: one for key, one in files.items() if key != name}))
    assert f"{name}: the manifest lists it, and it is not there" in found
    found = problems(pack(tmp_path / "more.tar.gz", {**files, "session/extra.txt": b"1"}))
    assert "session/extra.txt: the manifest does not list it" in found


# --- archives that mean harm


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = plain(name)
    member.type, member.linkname = kind, target
    return member


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    member = plain(name)
    member.type, member.devmajor, member.devminor = kind, 1, 3
    return member


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (plain("../escaped"), "no path that a bundle has"),
        (plain("session/../../escaped"), "no path that a bundle has"),
        (plain("/tmp/escaped"), "no path that a bundle has"),
        (plain("session/./x"), "no path that a bundle has"),
        (plain("session\\..\\x"), "no path that a bundle has"),
        (plain("elsewhere/x"), "no path that a bundle has"),
        (plain("session"), "no path that a bundle has"),
        (plain("session/session.json"), "there twice"),
        (plain("session/session.json/x"), "in the way"),
        (link("session/x", "/etc/passwd"), "no plain file"),
        (link("session/x", "session.json", tarfile.LNKTYPE), "no plain file"),
        (special("session/x", tarfile.CHRTYPE), "no plain file"),
        (special("session/x", tarfile.FIFOTYPE), "no plain file"),
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(bundle, tmp_path, member, what):
    path = pack(tmp_path / "harmful.tar.gz", contents(bundle), (member, b""))
    with pytest.raises(bundles.Unsafe, match=what):
        verify.of_bundle(path)
    assert not (tmp_path / "escaped").exists()
    assert not Path("/tmp/escaped").exists()


def test_an_archive_of_more_than_there_is_room_for_is_refused_while_it_is_read(bundle, tmp_path):
    zeros = pack(tmp_path / "zeros.tar.gz", {**contents(bundle), "session/zeros": bytes(50 * 2**20)})
    assert zeros.stat().st_size < 2**20
    where = tmp_path / "unpacked"
    where.mkdir()
    with pytest.raises(bundles.Unsafe, match="holds more than"):
        bundles.unpack(zeros, where, Findings(), most_bytes=10 * 2**20)
    assert list(where.iterdir()) == []


def test_a_header_that_claims_to_be_gigabytes_long_is_not_read(tmp_path):
    # A name in a PAX header is read as a whole; this one says that it has 3 GiB.
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 3 * 2**30
    path = tmp_path / "long.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.PAX_FORMAT) + bytes(10_240)))
    where = tmp_path / "unpacked"
    where.mkdir()
    with pytest.raises(bundles.Unsafe, match="longer than any honest one"):
        bundles.unpack(path, where, Findings())


@pytest.mark.parametrize("name", ["session/" + "a/" * 5000 + "b", "session/" + 3000 * "x"])
def test_a_path_of_thousands_of_directories_is_refused(tmp_path, name):
    with pytest.raises(bundles.Unsafe, match="is no path that a bundle has"):
        problems(pack(tmp_path / "deep.tar.gz", {name: b""}))


def test_directories_are_counted_like_files(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "MOST_FILES", 5)
    members = [special(f"session/{number}", tarfile.DIRTYPE) for number in range(6)]
    with pytest.raises(bundles.Unsafe, match="more than 5 files"):
        problems(pack(tmp_path / "many.tar.gz", {}, *((one, b"") for one in members)))


def test_headers_for_all_members_are_refused(tmp_path):
    path = tmp_path / "headers.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as archive:
        archive.addfile(plain("session/a"))
    with pytest.raises(bundles.Unsafe, match="headers for all members"):
        problems(path)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_flipped_byte_of_the_compressed_file_is_told(bundle, tmp_path, at, capsys):
    content = bytearray(bundle.read_bytes())
    for place in range(int(len(content) * at), int(len(content) * at) + 8):
        content[place] ^= 0xFF
    path = tmp_path / "flipped.tar.gz"
    path.write_bytes(content)
    assert main(["verify", str(path)]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.9])
def test_a_torn_archive_is_no_bundle(bundle, tmp_path, cut, capsys):
    path = tmp_path / "torn.tar.gz"
    content = bundle.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    assert main(["verify", str(path)]) == 1
    assert "cannot be read as a bundle" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"hello", gzip.compress(b"hello"), b"PK\x03\x04"])
def test_what_is_no_archive_is_told(tmp_path, content, capsys):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    assert main(["verify", str(path)]) == 1
    assert "x.tar.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "manifest", [None, b"{", b"[]", b'{"schema_version": 2, "session": "", "made_with": "", "files": []}']
)
def test_a_bundle_without_a_manifest_that_can_be_read_is_told(bundle, tmp_path, manifest):
    files = {name: one for name, one in contents(bundle).items() if name != "manifest.json"}
    if manifest is not None:
        files["manifest.json"] = manifest
    with pytest.raises(ReplayError, match=r"manifest\.json|version 2"):
        verify.of_bundle(pack(tmp_path / "x.tar.gz", files))


# --- what is packed


def test_links_and_sockets_are_left_out_and_told(tmp_path, capsys, monkeypatch):
    session = made_session.make(tmp_path)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("kept to ourselves")
    (session / "link").symlink_to(secret / "key")
    (session / "directory").symlink_to(secret)
    os.mkfifo(session / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        monkeypatch.chdir(session)  # the name of a socket has room for 107 bytes
        one.bind("socket")
    assert main(["bundle", str(session), "--output", str(tmp_path / "b.tar.gz")]) == 0
    told = capsys.readouterr().err
    names = contents(tmp_path / "b.tar.gz")
    assert not [name for name in names if "key" in name or b"kept to ourselves" in names[name]]
    for name in ("link", "directory", "fifo", "socket"):
        assert f"left out, as it is no plain file: {name}" in told
        assert f"session/{name}" not in names


def test_a_session_that_does_not_follow_is_packed_with_a_warning(tmp_path, capsys):
    session = made_session.make(tmp_path)
    path = session / CASE / "result.json"
    path.write_text(path.read_text().replace('"met": true', '"met": false'))
    assert main(["bundle", str(session), "--output", str(tmp_path / "b.tar.gz")]) == 1
    captured = capsys.readouterr()
    assert "target top1 met" in captured.err
    assert "flagperf verify will object to this bundle" in captured.err
    assert (tmp_path / "b.tar.gz").is_file()


def test_a_vendor_file_that_was_edited_since_is_not_packed_in_the_place_of_the_one_in_force(tmp_path, capsys):
    session = made_session.make(tmp_path)
    vendor = tmp_path / "vendors" / "acme" / "vendor.toml"
    vendor.write_text(vendor.read_text().replace("60.0", "70.0"))
    assert main(["bundle", str(session), "--output", str(tmp_path / "b.tar.gz")]) == 0
    assert "the vendor file of acme with the digest" in capsys.readouterr().err
    assert not [name for name in contents(tmp_path / "b.tar.gz") if name.endswith("vendor.toml")]


def test_a_bundle_is_not_written_into_its_own_session(tmp_path):
    session = made_session.make(tmp_path)
    with pytest.raises(ConfigurationError, match="lies in the session itself"):
        bundles.make(session, session / "b.tar.gz")


def test_the_default_name_is_that_of_the_session(tmp_path, monkeypatch, capsys):
    session = made_session.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", str(session)]) == 0
    path = tmp_path / f"{session.name}.tar.gz"
    assert f"sha256 {bundles.sha256_of(path)}" in capsys.readouterr().out
    assert path.stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.glob(".*"))


def test_what_is_no_session_is_told(tmp_path, capsys):
    assert main(["bundle", str(tmp_path)]) == 1
    assert "is no session" in capsys.readouterr().err
    assert main(["verify", str(tmp_path)]) == 1
    assert main(["verify", str(tmp_path / "nothing.tar.gz")]) == 1
    with pytest.raises(SystemExit):
        main(["verify", str(tmp_path), "--sha256", "0" * 64])


@pytest.mark.slow
@pytest.mark.pytorch
def test_a_real_session_of_training_and_operators_verifies_as_a_bundle(
    suite: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[..., pytest.RunResult] = pytester.runpytest_subprocess
    operators = str(Path(__file__).parent.parent / "suites" / "operators" / "test_gemm.py")
    done = run("suite", operators, "-m", "training or smoke", "--rounds=2", "--flagperf-dir=results", "--budget=0.05")
    assert done.parseoutcomes().get("passed", 0) >= 2, done.stdout.str()
    (session,) = (pytester.path / "results").iterdir()
    bundle = bundles.make(session, pytester.path / "b.tar.gz")
    session.rename(pytester.path / "moved")
    outcome = verify.of_bundle(bundle.path).findings
    assert outcome.problems == []
    assert outcome.rounds >= 2


def test_a_bundle_that_cannot_be_written_is_told(tmp_path, capsys, monkeypatch):
    session = made_session.make(tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundles, "_add", full)
    assert main(["bundle", str(session), "--output", str(tmp_path / "x.tar.gz")]) == 1
    said = capsys.readouterr().err
    assert "x.tar.gz cannot be written: [Errno 28] No space left on device" in said
    assert [path.name for path in tmp_path.glob("*.gz*")] == []


def test_a_file_whose_name_no_text_can_hold_is_told(tmp_path, capsys):
    session = made_session.make(tmp_path)
    Path(os.fsdecode(os.fsencode(session) + b"/\xff")).write_bytes(b"")
    assert main(["bundle", str(session), "--output", str(tmp_path / "x.tar.gz")]) == 1
    assert "cannot be written" in capsys.readouterr().err
