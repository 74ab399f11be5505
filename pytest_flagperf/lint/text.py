"""What no file of a vendor's may hold: paths, addresses and names of one site, secrets, unpinned images."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

from pytest_flagperf.importing.findings import shown
from pytest_flagperf.lint.problem import Problem


# Every repetition has a bound: a line of a megabyte takes seconds, not days.
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[^\s\"'<>]+", re.IGNORECASE)
_URL_HOST = re.compile(r"[a-z][a-z0-9+.-]{0,20}://(?P<login>[^/\s@]{0,200}@)?", re.IGNORECASE)
# Directories where one site keeps its data and its users; /dev, /usr, /opt and /lib are the vendor's business.
_PATH = re.compile(
    r"(?<![\w./~:@$}-])/(?:home|root|Users|data\d*|mnt|raid|nfs|share[ds]?|scratch|ssd\d*|work|datasets?|"
    r"lustre|gpfs|cpfs)/[\w.+@-]+(?:/[\w.+@-]+)*"
)
_ADDRESS = re.compile(r"(?<![\w.-])(\d{1,3}(?:\.\d{1,3}){3})(?![\w.-]*\.\w|\w)(?P<port>:\d{2,5})?")
_VERSION = re.compile(r"(?:version|driver|release|\bv)\W{0,3}$", re.IGNORECASE)
_HOST = re.compile(
    r"(?:://|[\"'\s=@])((?:[a-z0-9-]{1,63}\.){1,8}[a-z0-9-]{1,63})(:\d{2,5})?(?=[/\"'\s:]|$)", re.IGNORECASE
)
_INTERNAL = re.compile(
    r"\.(?:local|internal|intranet|lan|corp|localdomain)$|-int\.|\.int\.|(?:^|\.)intra\.", re.IGNORECASE
)
_PROXY = re.compile(r"\b(?:https?|all|ftp|no)_proxy\b[\"']?\s*[=:]", re.IGNORECASE)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_SECRET = re.compile(
    r"(?:^|[^A-Za-z])(?P<name>(?:[A-Za-z0-9]{1,20}[_-]){0,4}(?:password|passwd|passphrase|secret|token|api_?key|access_?key))"
    r"[\"']?\s*[=:]\s*(?P<value>\"[^\"]{0,200}\"?|'[^']{0,200}'?|[^\s\"',;}]{1,200})",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"[\"']?(?:$|\$|\{|<|\*|\.\.\.|none|null|true|false)", re.IGNORECASE)
_KNOWN_TOKEN = re.compile(r"\b(?:gh[pousr]_\w{30,}|hf_\w{30,}|AKIA[0-9A-Z]{16}|glpat-[\w-]{20,}|sk-[A-Za-z0-9]{20,})")
_SET_PASSWORD = re.compile(r"\bchpasswd\b")
_PRIVILEGED = re.compile(r"--privileged\b(?!\s*=\s*false)|\bprivileged\"?\s*[=:]\s*true", re.IGNORECASE)
_NAMESPACE = re.compile(r"--(?:net|network|ipc|pid|uts|userns)[=\s\"',]+host\b")
_IMAGE = re.compile(r"(?:^|[\s\"'{,])image[\"']?\s*[=:]\s*[\"']?(?P<image>[^\s\"',}]+)")
_FROM = re.compile(r"\s*FROM\s+(?:--\S+\s+){0,4}(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE)
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_CITED = re.compile(r"\s*(?:source|note)\s*=")

PROSE = (".md", ".rst", ".txt")


def check(path: Path, text: str) -> Iterator[Problem]:
    """The problems of one text file, whatever it is for."""
    stages: set[str] = set()
    section = ""
    prose, code = path.suffix in PROSE, path.suffix == ".py"
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("["):
            section = line.strip("[] \r")
        found = [*_secrets(line, code=code), *_sites(line, code=code)]
        cited = path.suffix == ".toml" and (bool(_CITED.match(line)) or section.endswith(".sources"))
        if not cited:
            found += _addresses(line)
        # A page of text may name what it warns of, and so may a comment.
        if not (prose or cited or line.lstrip().startswith("#")):
            found += [*_paths(line), *_rights(line), *_images(path, line, stages)]
        for code_name, message in found:
            yield Problem(path, number, code_name, message)


def _secrets(line: str, *, code: bool) -> Iterator[tuple[str, str]]:
    """Secrets, by the names they have: the values are not repeated."""
    if _KEY.search(line):
        yield "FP024", "a private key: remove it, and make another one, since this one is known now"
    for match in _SECRET.finditer(line):
        value = match["value"]
        quoted = value[:1] in ("'", '"')
        # In Python an unquoted value is an expression, and max_token = 512 is a number of tokens.
        if _PLACEHOLDER.match(value) or (code and not quoted) or (value.isdigit() and "token" in match["name"].lower()):
            continue
        yield "FP024", f"{shown(match['name'])} is written down: take it from the environment where it is needed"
    if _KNOWN_TOKEN.search(line):
        yield "FP024", "an access token: remove it, and revoke it"
    if _SET_PASSWORD.search(line):
        yield "FP024", "sets a password"
    if any(":" in (match["login"] or "") for match in _URL_HOST.finditer(line)):
        yield "FP024", "a URL with a password"


def _sites(line: str, *, code: bool) -> Iterator[tuple[str, str]]:
    if _PROXY.search(line):
        yield "FP023", "a proxy of one site: whoever needs one has it in the environment"
    for match in _HOST.finditer(line):
        # In Python, threading.local is no host.
        if code and not match[0].startswith("://"):
            continue
        if _INTERNAL.search(match[1]):
            yield "FP022", f"{shown(match[1])} is reached by its owner only"
        elif match[2] and not match[0].startswith("://") and line[match.end() :].startswith("/"):
            yield "FP022", f"{shown(match[1] + match[2])} is a registry of one site"


def _addresses(line: str) -> Iterator[tuple[str, str]]:
    for match in _ADDRESS.finditer(line):
        try:
            address = ipaddress.IPv4Address(match[1])
        except ValueError:
            continue
        if address.is_loopback or address.is_unspecified or address.is_multicast or match[1].startswith("255."):
            continue
        before = line[: match.start()]
        # Drivers have versions of four numbers; addresses are private, or have a port or a scheme.
        named = match["port"] or before.endswith(("://", "@"))
        if named or (address.is_private and not _VERSION.search(before)):
            yield "FP021", f"{match[1]} is an address of one site"


def _paths(line: str) -> Iterator[tuple[str, str]]:
    for match in _PATH.finditer(_URL.sub(" ", line)):
        yield "FP020", f"{shown(match[0])} is a path of one host"


def _rights(line: str) -> Iterator[tuple[str, str]]:
    if _PRIVILEGED.search(line):
        yield "FP026", "--privileged: list the device nodes that are needed under container.devices instead"
    for match in _NAMESPACE.finditer(line):
        yield "FP027", f"{shown(match[0])}: the container gets the host's namespace"


def _images(path: Path, line: str, stages: set[str]) -> Iterator[tuple[str, str]]:
    docker = "dockerfile" in path.name.lower()
    match = _FROM.match(line) if docker else _IMAGE.search(line)
    if match is None or (path.suffix == ".py" and not docker):
        return
    image = match["image"]
    if docker and match["stage"]:
        stages.add(match["stage"])
    if image == "scratch" or image in stages or image.startswith("$") or _DIGEST.search(image):
        return
    tag = image.rpartition("/")[2].partition(":")[2]
    what = "has no tag" if not tag else "is whatever is newest" if tag in ("latest", "newest") else "has no digest"
    yield "FP025", f"{shown(image)} {what}: name it as NAME@sha256:DIGEST"
