"""Each format read back, and each way of being hostile refused with a reason."""

from __future__ import annotations

import io
import json
import os
import socket
import zipfile
import zlib
from pathlib import Path
from typing import Any

import docx
import pytest

from agentmtl.errors import IngestError
from agentmtl.ingest import FileRead, Limits, Skipped, covers, read_paths
from agentmtl.ingest.limits import MIB
from agentmtl.ingest.tables import LineReader
from agentmtl.schema import Document

SMALL = Limits(
    file_bytes=200_000,
    markup_bytes=100_000,
    inflated_bytes=2 * MIB,
    ratio_floor_bytes=MIB // 2,
    line_bytes=50_000,
    entries=200,
    text_chars=150_000,
    pdf_pages=3,
    metadata_chars=1_000,
)


def documents(*paths: Path | str, limits: Limits = SMALL) -> list[Document]:
    return [event for event in read_paths(paths, limits=limits) if isinstance(event, Document)]


def skipped(*paths: Path | str, limits: Limits = SMALL) -> list[Skipped]:
    return [event for event in read_paths(paths, limits=limits) if isinstance(event, Skipped)]


def reason(path: Path, limits: Limits = SMALL) -> str:
    """The one reason for which `path` was skipped whole."""
    events = list(read_paths([path], limits=limits))
    assert len(events) == 1, events
    assert isinstance(events[0], Skipped)
    return events[0].reason


def only(path: Path) -> Document:
    [document] = documents(path)
    return document


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def word_file(path: Path) -> Path:
    document = docx.Document()
    document.add_heading("The River", 1)
    document.add_paragraph("It flows past Kraków.")
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "length", "1,047 km"
    document.add_paragraph("It ends in the sea.")
    document.save(str(path))
    return path


def pdf_bytes(pages: list[bytes], filters: str = "", info: str = "") -> bytes:
    """A PDF whose pages have these (encoded) content streams."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>".encode()]
    objects.append(b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
    for n, page in enumerate(pages):
        resources = "/Resources<</Font<</F1 3 0 R>>>>/MediaBox[0 0 600 800]"
        objects.append(f"<</Type/Page/Parent 2 0 R{resources}/Contents {5 + 2 * n} 0 R>>".encode())
        objects.append(f"<</Length {len(page)}{filters}>>\nstream\n".encode() + page + b"\nendstream")
    objects.append(f"<<{info}>>".encode())
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    rows = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer\n<</Size %d/Root 1 0 R/Info %d 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        size,
        size - 1,
        len(out),
    )
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % size + rows + trailer


def shown(text: str) -> bytes:
    return f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET".encode()


def test_plain_text(tmp_path: Path) -> None:
    document = only(write(tmp_path / "a.txt", "\ufeffAda Lovelace\r\n\r\nShe wrote\0 notes.\x1b[31m\r"))
    assert document.text == "Ada Lovelace\n\nShe wrote notes.[31m"
    assert (document.title, document.source_id, document.origin, document.file) == (
        "Ada Lovelace",
        *["a.txt"] * 3,
    )
    assert len(document.file_sha256) == 64


def test_utf16_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert only(write(tmp_path / "a.txt", "Łódź".encode("utf-16"))).text == "Łódź"


def test_markdown(tmp_path: Path) -> None:
    source = (
        "---\nauthor: Ada\nyear: 1843\ndraft: false\n---\n# The *Engine*\n\nIt [counts](http://x) `n`.\n\n"
        "- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<div>raw <b>html</b></div>\n\n```\ncode\n```\n"
    )
    document = only(write(tmp_path / "a.md", source))
    assert document.title == "The Engine"
    assert document.metadata == {"author": "Ada", "year": 1843, "draft": False}
    for piece in ("The Engine\n\nIt counts n.", "- one", "- two", "1 | 2", "raw html", "code"):
        assert piece in document.text


def test_markdown_rule_is_not_front_matter(tmp_path: Path) -> None:
    document = only(write(tmp_path / "a.md", "---\nJust a line.\n---\nText.\n"))
    assert "Just a line." in document.text
    assert document.metadata == {}


def test_html(tmp_path: Path) -> None:
    page = (
        "<html><head><title>The\n Page</title><style>x</style></head><body><nav>menu</nav><h1>Head</h1>"
        "<p>One\n<b>bold</b> word.</p><ul><li>a</li><li>b</li></ul><script>evil()</script><!-- no -->"
    )
    document = only(write(tmp_path / "a.html", page))
    assert document.title == "The Page"
    assert document.text == "Head\n\nOne bold word.\n\na\nb"


def test_html_encoding_is_taken_from_its_declaration_only(tmp_path: Path) -> None:
    page = "<meta charset='iso-8859-1'><p>Kön"
    assert only(write(tmp_path / "a.htm", page.encode("latin-1"))).text == "Kön"
    assert "byte" in reason(write(tmp_path / "b.htm", "<p>Kön".encode("latin-1")))
    assert "declares" in reason(write(tmp_path / "c.htm", b"<meta charset='klingon'>\xff"))


def test_docx(tmp_path: Path) -> None:
    document = only(word_file(tmp_path / "a.docx"))
    assert document.text == "The River\n\nIt flows past Kraków.\n\nlength | 1,047 km\n\nIt ends in the sea."
    assert document.title == "The River" or document.title  # the template carries a title of its own


def test_pdf(tmp_path: Path) -> None:
    pages = [zlib.compress(shown("The first page.")), zlib.compress(shown("The second."))]
    path = write(tmp_path / "a.pdf", pdf_bytes(pages, "/Filter/FlateDecode", "/Title(A report)"))
    document = only(path)
    assert (document.text, document.title) == ("The first page.\n\nThe second.", "A report")


def test_csv(tmp_path: Path) -> None:
    rows = 'id,title,text,year,zip,score\n7,One,"a\nb, c",1995,00123,-0.5\n,Two,second,,x,1e5\n'
    one, two = documents(write(tmp_path / "r.csv", "\ufeff" + rows))
    assert (one.source_id, one.origin, one.title, one.text) == ("7", "r.csv#7", "One", "a\nb, c")
    assert one.metadata == {"year": 1995, "zip": "00123", "score": -0.5}
    assert (two.source_id, two.origin, two.metadata) == ("r.csv#2", "r.csv#2", {"zip": "x", "score": "1e5"})
    assert only(write(tmp_path / "s.csv", "text;n\nhello;1\n")).metadata == {"n": 1}


def test_jsonl_and_its_metadata(tmp_path: Path) -> None:
    record: dict[str, Any] = {
        "id": 5,
        "text": "a\ud800b",
        "title": "T\n t",
        "tags": ["x", 1],
        "deep": {"b": [1]},
    }
    record |= {"big": 10**30, "nan": float("nan"), "inf": [float("inf")], "none": None, "huge": "y" * 2_000}
    document = only(write(tmp_path / "r.jsonl", json.dumps(record) + "\n\n"))
    assert (document.source_id, document.text, document.title) == ("5", "a\ufffdb", "T t")
    assert document.metadata == {"tags": ["x", 1], "deep": '{"b":[1]}', "big": str(10**30), "none": None}


@pytest.mark.parametrize(
    "form", ['[{"text": "a"}, {"text": "b"}]', '{"n": 2, "rows": [{"text": "a"}, {"text": "b"}]}']
)
def test_json_lists(tmp_path: Path, form: str) -> None:
    assert [d.origin for d in documents(write(tmp_path / "r.json", form))] == ["r.json#1", "r.json#2"]


def test_json_single_record_and_no_record(tmp_path: Path) -> None:
    assert only(write(tmp_path / "r.json", '{"text": "a", "id": "x"}')).origin == "r.json#x"
    assert "neither" in reason(write(tmp_path / "s.json", "3"))
    assert "not valid JSON" in reason(write(tmp_path / "t.json", '{"text": '))


def test_bad_records_cost_only_themselves(tmp_path: Path) -> None:
    lines = [
        b'{"text": "ok"}',
        b"{broken",
        b"[1]",
        b'{"id": "x"}',
        b'{"text": 3}',
        b'{"text": " "}',
        b'{"text": "\xff"}',
    ]
    lines += [
        b'{"text": "t", "n": ' + b"9" * 5_000 + b"}",
        b'{"text": "d", "m": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    ]
    lines += [b'{"text": "last", "id": true}', b'{"text": "fine"}']
    events = list(read_paths([write(tmp_path / "r.jsonl", b"\n".join(lines))], limits=SMALL))
    assert [e.text for e in events if isinstance(e, Document)] == ["ok", "fine"]
    bad = {e.record: e.reason for e in events if isinstance(e, Skipped)}
    words = [
        "valid JSON",
        "list",
        "no text",
        "not a string",
        "empty",
        "UTF-8 at byte",
        "digits",
        "deep",
        "id is neither",
    ]
    numbers = [2, 3, "x", 5, 6, 7, 8, 9, 10]
    assert list(bad) == [f"r.jsonl#{n}" for n in numbers]
    assert all(word in why for word, why in zip(words, bad.values(), strict=True)), bad
    assert events[-1] == FileRead("r.jsonl", events[0].file_sha256, False, 2)  # type: ignore[union-attr]


def test_bad_csv_rows_cost_only_themselves(tmp_path: Path) -> None:
    rows = (
        b"id,text\n1,good\n2\n3,x,y\n4," + b"z" * 60_000 + b'\n5,\xff\n6,\n7,fine\n8,"' + b"open\n" * 15_000
    )
    events = list(read_paths([write(tmp_path / "r.csv", rows)], limits=SMALL))
    assert [e.text for e in events if isinstance(e, Document)] == ["good", "fine"]
    reasons = [e.reason for e in events if isinstance(e, Skipped)]
    expected = ["1 cells", "3 cells", "longer than", "UTF-8", "no text", "longer than"]
    assert all(word in why for word, why in zip(expected, reasons, strict=False)), reasons
    assert "no column named text" in reason(write(tmp_path / "s.csv", "a,b\n1,2\n"))
    assert "same name" in reason(write(tmp_path / "t.csv", "text,a,a\n1,2,3\n"))


class CountingStream(io.RawIOBase):
    """Gives `size` bytes of one line, then a short one, and remembers the largest read asked for."""

    def __init__(self, size: int) -> None:
        self.left, self.largest = size, 0

    def readline(self, size: int | None = -1, /) -> bytes:
        self.largest = max(self.largest, size or 0)
        if self.left <= 0:
            self.left, line = self.left - 1, b"next\n" if self.left == 0 else b""
            return line
        taken = min(size or 0, self.left)
        self.left -= taken
        return b"x" * (taken - 1) + b"\n" if self.left == 0 else b"x" * taken


def test_a_200_mb_line_is_passed_over_in_pieces() -> None:
    stream = CountingStream(200 * MIB)
    lines = LineReader(stream, 3 * MIB)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="longer than"):
        next(lines)
    lines.reset()
    assert (next(lines), lines.number) == ("next\n", 2)
    assert stream.largest <= 3 * MIB + 1


def test_the_record_after_a_long_line_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", '{"text": "' + "x" * 500_000 + '"}\n{"text": "after"}\n')
    assert [d.origin for d in documents(path)] == ["r.jsonl#2"]
    assert [s.record for s in skipped(path)] == ["r.jsonl#1"]


def test_duplicates(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", '{"id": "a", "text": "1"}\n{"id": "a", "text": "2"}\n')
    assert len(documents(path)) == 1
    write(tmp_path / "x/docs/a.txt", "one")
    write(tmp_path / "y/docs/a.txt", "two")
    [event] = skipped(tmp_path / "x/docs", tmp_path / "y/docs")
    assert (event.file, event.reason[:9]) == ("docs/a.txt", "duplicate")


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", ".hidden.txt", ".git/c.txt", "c/d/e.md"):
        write(tmp_path / "docs" / name, f"text of {name}")
    assert [d.file for d in documents(tmp_path / "docs")] == ["docs/a/z.txt", "docs/b.txt", "docs/c/d/e.md"]


def test_glob(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "c/a.txt", "c/d/a.txt"):
        write(tmp_path / "docs" / name, name)
    assert [d.file for d in documents(f"{tmp_path}/docs/*.txt")] == ["docs/a.txt"]
    every = ["docs/a.txt", "docs/c/a.txt", "docs/c/d/a.txt"]
    assert [d.file for d in documents(f"{tmp_path}/docs/**/*.txt")] == every
    assert [d.file for d in documents(f"{tmp_path}/docs/c*")] == every[1:]
    with pytest.raises(IngestError):
        read_paths([f"{tmp_path}/docs/*.pdf"])


def test_missing_paths_raise_at_the_call(tmp_path: Path) -> None:
    for paths in ([], [tmp_path / "gone"]):
        with pytest.raises(IngestError) as caught:
            read_paths(paths)
        assert caught.value.hint


def test_covers(tmp_path: Path) -> None:
    folder = write(tmp_path / "docs/a.txt", "x").parent
    assert covers([folder], "docs/gone.md")
    assert not covers([folder], "docs2/gone.md")
    assert covers([folder / "a.txt"], "a.txt")
    assert not covers([folder / "a.txt"], "docs/a.txt")
    assert covers([f"{folder}/*.md"], "docs/gone.md")
    assert not covers([f"{folder}/*.md"], "docs/sub/gone.md")
    assert covers([tmp_path / "vanished"], "vanished/x.txt")


def test_unchanged_files_are_hashed_but_not_parsed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "same")
    sha256 = only(path).file_sha256
    known = {("a.txt", sha256)}
    events = list(read_paths([path], is_unchanged=lambda file, digest: (file, digest) in known))
    assert events == [FileRead("a.txt", sha256, unchanged=True, documents=0)]
    path.write_text("other")
    assert len(list(read_paths([path], is_unchanged=lambda file, digest: (file, digest) in known))) == 2


def test_links_are_never_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret/key.txt", "outside")
    docs = write(tmp_path / "docs/a.txt", "inside").parent
    (docs / "file.txt").symlink_to(secret)
    (docs / "folder.txt").symlink_to(secret.parent)
    (docs / "loop.txt").symlink_to(docs)
    assert [d.text for d in documents(docs)] == ["inside"]
    assert [s.file for s in skipped(docs)] == ["docs/file.txt", "docs/folder.txt", "docs/loop.txt"]
    assert "symbolic link" in reason(docs / "file.txt")
    assert "symbolic link" in reason(docs / "folder.txt")


def test_a_folder_swapped_for_a_link_during_the_walk_is_not_entered(tmp_path: Path) -> None:
    write(tmp_path / "secret/b.txt", "outside")
    docs = write(tmp_path / "docs/a.txt", "inside").parent
    inner = write(docs / "sub/b.txt", "moved").parent
    events = read_paths([docs], limits=SMALL)
    assert isinstance(next(events), Document)
    inner.rename(tmp_path / "away")
    inner.symlink_to(tmp_path / "secret")
    assert not [e for e in events if isinstance(e, Document)]


def test_special_files_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    bound = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)  # a socket's path is limited to some hundred bytes
    bound.bind("socket.txt")
    assert {s.reason for s in skipped(tmp_path)} == {"is not a regular file"}
    bound.close()
    assert "suffix" in reason(Path("/dev/zero"))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    Path(os.fsdecode(os.fsencode(docs) + b"/\xff.txt")).write_text("x")
    [event] = skipped(docs)
    assert "UTF-8" in event.reason
    event.file.encode()


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = write(tmp_path / "docs/a.txt", "x").parent
    write(docs / "b.txt", "y")
    real = os.open

    def refuse(path: Any, *rest: Any, **named: Any) -> int:
        if path == "a.txt":
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    events = list(read_paths([docs]))
    assert events[0] == Skipped("docs/a.txt", "cannot be read: Permission denied")
    assert isinstance(events[1], Document)


def test_simple_refusals(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "a.txt", "")) == "empty"
    assert reason(write(tmp_path / "b.txt", " \n\0")) == "empty"
    assert reason(write(tmp_path / "c.txt", b"ab\xff")) == "is not valid UTF-8 at byte 2"
    assert "unknown suffix '.exe'" in reason(write(tmp_path / "d.exe", "x"))
    assert "larger than" in reason(write(tmp_path / "e.txt", "x" * 300_000))
    assert "more than 150000 characters" in reason(write(tmp_path / "f.txt", "x" * 160_000))
    deep = tmp_path / "deep"
    write(deep.joinpath(*["d"] * 5, "a.txt"), "x")
    [event] = skipped(deep, limits=Limits(folder_depth=3))
    assert "folders deep" in event.reason


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def test_docx_bombs_are_measured_while_inflating(tmp_path: Path) -> None:
    zeros = bytes(5 * MIB)
    assert "unpacks to more" in reason(archive(tmp_path / "a.docx", {"word/document.xml": zeros}))
    assert "times its size" in reason(
        archive(tmp_path / "b.docx", {"x": bytes(MIB)}), Limits(ratio_floor_bytes=99_000)
    )
    assert "members" in reason(archive(tmp_path / "c.docx", {f"m{n}": b"" for n in range(300)}))
    assert "neither stored" in reason(archive(tmp_path / "d.docx", {"x": zeros}, zipfile.ZIP_BZIP2))
    lying = archive(tmp_path / "e.docx", {"word/document.xml": zeros})
    declared = len(zeros).to_bytes(4, "little")
    lying.write_bytes(lying.read_bytes().replace(declared, (100).to_bytes(4, "little")))
    assert "damaged" in reason(lying)


def test_docx_entity_expansion_and_damage(tmp_path: Path) -> None:
    path = word_file(tmp_path / "a.docx")
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    evil = members["word/document.xml"].replace(b"?>", b"?>" + laughs, 1)
    assert "document type" in reason(archive(tmp_path / "b.docx", {**members, "word/document.xml": evil}))
    assert "damaged" in reason(write(tmp_path / "c.docx", path.read_bytes()[:-300]))
    assert "damaged" in reason(write(tmp_path / "d.docx", "not a zip"))
    assert "cannot be parsed" in reason(archive(tmp_path / "e.docx", {"x.xml": b"<x/>"}))
    assert "encrypted" in reason(write(tmp_path / "f.docx", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600)))


def test_pdf_bombs(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(5 * MIB))
    flate = "/Filter/FlateDecode"
    assert "unpacks to more" in reason(write(tmp_path / "a.pdf", pdf_bytes([bomb], flate)))
    nested = pdf_bytes([zlib.compress(bomb)], "/Filter[/FlateDecode /FlateDecode]")
    assert "compressed twice" in reason(write(tmp_path / "b.pdf", nested))
    image = pdf_bytes([bomb], flate + "/Subtype/Image")
    assert "cannot be parsed: LimitReachedError" in reason(write(tmp_path / "c.pdf", image))
    assert "pages" in reason(write(tmp_path / "d.pdf", pdf_bytes([shown("x")] * 4)))


def test_pdf_without_text_encrypted_or_damaged(tmp_path: Path) -> None:
    import pypdf

    assert "no text" in reason(write(tmp_path / "a.pdf", pdf_bytes([b""])))
    writer = pypdf.PdfWriter(io.BytesIO(pdf_bytes([shown("Secret.")])))
    writer.encrypt("password", algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    assert "encrypted" in reason(write(tmp_path / "b.pdf", buffer.getvalue()))
    assert "cannot be parsed" in reason(write(tmp_path / "c.pdf", "%PDF-1.4 nothing"))


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    for name in ("a.pdf", "b.docx", "c.json", "d.jsonl", "e.html", "f.csv", "g.txt"):
        write(docs / name, b"\xff\xfe\xfd garbage")
    write(docs / "z.txt", "fine")
    assert [d.text for d in documents(docs)] == ["fine"]
    assert len({s.file for s in skipped(docs)}) == 7


@pytest.mark.parametrize("piece", ["<a ", "<!--", "<div>", "</a", "<![CDATA[", "&"])
def test_markup_that_slows_parsers_down(tmp_path: Path, piece: str) -> None:
    """Each of these costs the standard library's HTML parser time quadratic in the size."""
    assert list(read_paths([write(tmp_path / "a.html", "<p>x</p>" + piece * 15_000)], limits=SMALL))
