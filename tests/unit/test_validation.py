"""The submission check: a corpus of broken zips, what Pillow really reads of them, and the command."""

from __future__ import annotations

import io
import json
import re
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence, UnidentifiedImageError

import nx47dask
from nx47dask.errors import GateError, InputError, StorageError
from nx47dask.io import Volume, mask_check, validation, write_mask_tiff, write_submission
from nx47dask.io.validation import Finding, validate_submission
from tests.integration.commands import command

SHAPE = (5, 12, 10)
IDS = ("101", "102", "a7")
SURFACE = np.random.default_rng(1).random(SHAPE) < 0.3
DOCS = Path(__file__).resolve().parents[2] / "docs"


def volume(name, shape=SHAPE):
    return Volume(name, "tiff", f"/{name}.tif", "", shape, "uint8", None, "")


IMAGES = [volume(name) for name in IDS]


def tif(data, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, data, **{"photometric": "minisblack", **options})
    return file.getvalue()


GREY = SURFACE.astype(np.uint8) * 255
MASK = tif(GREY, compression="lzw")
GOOD = [(f"{name}.tif", MASK) for name in IDS]


def write_zip(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def pages(*planes, last_photometric="minisblack"):
    """A TIFF whose pages are what is given, equal or not."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for z, plane in enumerate(planes):
            photometric = last_photometric if z == len(planes) - 1 else "minisblack"
            writer.write(plane, photometric=photometric, metadata=None)
    return file.getvalue()


def other_format(name):
    file = io.BytesIO()
    Image.fromarray(GREY[0]).save(file, name)
    return file.getvalue()


def entry(name, mode=0, **values):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    for key, value in values.items():
        setattr(info, key, value)
    return info


def damaged(mask=MASK):
    """The mask with noise where its compressed pages were."""
    with tifffile.TiffFile(io.BytesIO(mask)) as tif_file:
        spans = [(p.dataoffsets[0], p.databytecounts[0]) for p in tif_file.pages]
    data = bytearray(mask)
    for offset, count in spans:
        data[offset : offset + count] = b"\xff" * count
    return bytes(data)


# What stands in the place of the mask of a7, and the level and code of exactly what must be found.
MASKS = {
    "bool": (tif(SURFACE, photometric=None), "error", "inverted"),
    "min-is-white": (tif(GREY, photometric="miniswhite"), "error", "inverted"),
    "1-bit min-is-black": (tif(SURFACE), "error", "dtype"),
    "volumetric tiles": (tif(GREY, volumetric=True, tile=(16, 16, 16)), "error", "volumetric"),
    "volumetric": (tif(GREY, volumetric=True), "error", "volumetric"),
    "int64": (tif(SURFACE.astype(np.int64)), "error", "unreadable"),
    "float64": (tif(SURFACE.astype(np.float64)), "error", "unreadable"),
    "JPEG 2000": (tif(GREY, compression="jpeg2000"), "error", "unreadable"),
    "uint16": (tif(SURFACE.astype(np.uint16)), "error", "dtype"),
    "int32": (tif(SURFACE.astype(np.int32)), "error", "dtype"),
    "float32": (tif(SURFACE.astype(np.float32)), "error", "dtype"),
    "colour": (tif(np.stack([GREY] * 3, -1), photometric="rgb"), "error", "dtype"),
    "palette": (tif(GREY, photometric="palette", colormap=np.zeros((3, 256), np.uint16)), "error", "dtype"),
    "class 2": (tif(SURFACE.astype(np.uint8) + (np.arange(10) < 3)), "error", "class-2"),
    "class 2 alone": (tif(SURFACE.astype(np.uint8) * 2), "error", "class-2"),
    "probabilities": (tif(np.arange(600, dtype=np.uint16).reshape(SHAPE).astype(np.uint8)), "error", "values"),
    "0, 1 and 255": (tif(np.where(np.arange(10) < 3, 1, GREY).astype(np.uint8)), "error", "values"),
    "empty": (tif(np.zeros(SHAPE, np.uint8)), "warning", "empty"),
    "inverted values": (tif(255 - GREY), "warning", "density"),
    "full": (tif(np.full(SHAPE, 255, np.uint8)), "warning", "full"),
    "zstd": (tif(GREY, compression="zstd"), "warning", "compression"),
    "lzma": (tif(GREY, compression="lzma"), "warning", "compression"),
    "page missing": (tif(GREY[:-1]), "error", "page-count"),
    "page too many": (tif(GREY[[0, *range(5)]]), "error", "page-count"),
    "stack in one page": (tif(GREY, imagej=True, truncate=True), "error", "page-count"),
    "transposed": (tif(GREY.transpose(2, 1, 0).copy()), "error", "shape"),
    "cropped": (tif(GREY[:, :-1]), "error", "shape"),
    "pages of two sizes": (pages(*GREY[:4], GREY[4, :6]), "error", "page-size"),
    "a thumbnail": (pages(GREY[0], GREY[0, ::2, ::2], *GREY[1:4]), "error", "page-size"),
    "one page inverted": (pages(*GREY, last_photometric="miniswhite"), "error", "inverted"),
    "one page of another dtype": (pages(*GREY[:4], GREY[4].astype(np.uint16)), "error", "dtype"),
    "mirrored": (tif(GREY, extratags=[(274, 3, 1, 3, False)]), "error", "orientation"),
    "turned": (tif(GREY, extratags=[(274, 3, 1, 6, False)]), "error", "orientation"),
    "not a TIFF": (b"not an image at all", "error", "unreadable"),
    "nothing": (b"", "error", "unreadable"),
    "PNG": (other_format("PNG"), "error", "not-tiff"),
    "truncated pages": (tif(GREY)[:-300], "error", "unreadable"),
    "damaged pages": (damaged(), "error", "unreadable"),
    "bomb": (bytes(4 << 20), "error", "too-large"),
    "huge tiles": (tif(GREY, tile=(4096, 4096), compression="zlib"), "error", "too-large"),
}

ERROR, WARNING = "error", "warning"
ZIP = "submission.zip"
LINK, PIPE, FILE = stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFREG | 0o644
TWO = GOOD[:2]
NESTED = (WARNING, "nested-folder", ZIP)
NO_A7 = (ERROR, "missing-id", "a7")


def packed(method):
    return [*TWO, (entry("a7.tif", FILE, compress_type=method), MASK)]


# What stands in the zip, and level, code and member of exactly what must be found.
MEMBERS = {
    "missing": (TWO, [NO_A7]),
    "no members": ([], [(ERROR, "missing-id", name) for name in IDS]),
    "extra": ([*GOOD, ("9.tif", MASK)], [(ERROR, "extra-id", "9.tif")]),
    "id in a longer one": ([*TWO, ("a77.tif", MASK)], [(ERROR, "extra-id", "a77.tif"), NO_A7]),
    "twice under one name": ([*GOOD, GOOD[0]], [(ERROR, "duplicate-id", "101")]),
    "twice by the first dot": ([*GOOD, ("101.copy.tif", MASK)], [(ERROR, "duplicate-id", "101")]),
    "twice by case": ([*GOOD, ("A7.tif", MASK)], [(ERROR, "duplicate-id", "a7")]),
    "twice by suffix": ([*GOOD, ("101.tiff", MASK)], [(ERROR, "duplicate-id", "101")]),
    "twice in folders": ([*GOOD, ("b/101.tif", MASK)], [NESTED, (ERROR, "duplicate-id", "101")]),
    "wrong case": ([*TWO, ("A7.tif", MASK)], [(ERROR, "wrong-case", "A7.tif")]),
    "suffix tiff": ([*TWO, ("a7.tiff", MASK)], [(ERROR, "suffix", "a7.tiff")]),
    "suffix TIF": ([*TWO, ("a7.TIF", MASK)], [(ERROR, "suffix", "a7.TIF")]),
    "more dots": ([*TWO, ("a7.v2.tif", MASK)], [(WARNING, "dotted-name", "a7.v2.tif")]),
    "folders": ([(f"out/masks/{name}", data) for name, data in GOOD], [NESTED]),
    "this folder": ([*TWO, ("./a7.tif", MASK)], [NESTED]),
    "empty folder": ([*GOOD, ("out/", b"")], [NESTED]),
    "folder with the name of an id": ([*TWO, ("a7/", b"")], [NESTED, NO_A7]),
    "parent folder": ([*TWO, ("../a7.tif", MASK)], [(ERROR, "unsafe-path", "../a7.tif")]),
    "parent inside": ([*TWO, ("x/../../a7.tif", MASK)], [(ERROR, "unsafe-path", "x/../../a7.tif")]),
    "absolute": ([*TWO, ("/kaggle/a7.tif", MASK)], [(ERROR, "unsafe-path", "/kaggle/a7.tif")]),
    "drive": ([*GOOD, ("C:/notes.txt", b"x")], [(ERROR, "unsafe-path", "C:/notes.txt")]),
    "backslash": ([*GOOD, ("out\\b.tif", MASK)], [(ERROR, "unsafe-path", "out\\b.tif")]),
    "link": ([*TWO, (entry("a7.tif", LINK), b"/etc/passwd")], [(ERROR, "symlink", "a7.tif")]),
    "pipe": ([*TWO, (entry("a7.tif", PIPE), b"")], [(ERROR, "special-file", "a7.tif")]),
    "bzip2": (packed(zipfile.ZIP_BZIP2), [(ERROR, "zip-method", "a7.tif")]),
    "lzma": (packed(zipfile.ZIP_LZMA), [(ERROR, "zip-method", "a7.tif")]),
    "deflated": (packed(zipfile.ZIP_DEFLATED), [(WARNING, "compressed", ZIP)]),
    "macOS": ([*GOOD, ("__MACOSX/._101.tif", b"x")], [(WARNING, "system-file", "__MACOSX/._101.tif")]),
    "macOS beside": ([*GOOD, ("._101.tif", b"x")], [(WARNING, "system-file", "._101.tif")]),
    "folder as mask": ([*GOOD, ("b8.tif/", b"")], [NESTED, (ERROR, "folder-as-mask", "b8.tif/")]),
    "macOS folder": ([*GOOD, (".DS_Store", b"x")], [(WARNING, "system-file", ".DS_Store")]),
    "hidden": ([*TWO, (".a7.tif", MASK)], [(WARNING, "system-file", ".a7.tif"), NO_A7]),
    "zip in the zip": ([*GOOD, (ZIP, b"PK")], [(WARNING, "nested-archive", ZIP)]),
    "other file": ([*GOOD, ("readme.md", b"x")], [(WARNING, "unexpected-file", "readme.md")]),
    "JPEG": (
        [*TWO, ("a7.tif", tif(GREY, compression="jpeg"))],
        [(ERROR, "values", "a7.tif"), (WARNING, "compression", "a7.tif")],
    ),
}


def patched(data, signature, offset, new, number=-1):
    """The bytes of a zip with a field of one of its headers overwritten."""
    place = [match.start() for match in re.finditer(re.escape(signature), data)][number] + offset
    return data[:place] + new + data[place + len(new) :]


def encrypted(data):
    return patched(patched(data, b"PK\x01\x02", 8, b"\1\0"), b"PK\x03\x04", 6, b"\1\0")


def wrong_crc(data):
    return patched(data, MASK, len(MASK) // 2, b"\0\1\2\3")


def shared_bytes(data):
    return patched(data, b"PK\x01\x02", 42, struct.pack("<L", 0))


def other_local_name(data):
    return patched(data, b"PK\x03\x04", 30, b"b7")


# What is done to the bytes of a good zip.
BYTES = {
    "truncated": (lambda data: data[:-200], [(ERROR, "broken-zip", ZIP)]),
    "no end": (lambda data: data[: len(data) // 2], [(ERROR, "broken-zip", ZIP)]),
    "not a zip": (lambda data: MASK, [(ERROR, "not-a-zip", ZIP)]),
    "nothing": (lambda data: b"", [(ERROR, "not-a-zip", ZIP)]),
    "encrypted": (encrypted, [(ERROR, "encrypted", "a7.tif")]),
    "bad CRC": (wrong_crc, [(ERROR, "damaged-member", "a7.tif")]),
    "another name inside": (other_local_name, [(ERROR, "damaged-member", "a7.tif")]),
    "shared bytes": (shared_bytes, [(ERROR, "overlap", "101.tif"), (ERROR, "overlap", "a7.tif")]),
    "a gap": (lambda data: data[:400] + data[500:], None),
}


def found(path, images=IMAGES):
    return [(finding.level, finding.code, finding.member) for finding in validate_submission(path, images)]


@pytest.mark.parametrize("case", MASKS)
def test_broken_masks(tmp_path, case):
    data, level, code = MASKS[case]
    path = write_zip(tmp_path / ZIP, [*TWO, ("a7.tif", data)])
    assert found(path) == [(level, code, "a7.tif")]
    assert [entry.name for entry in tmp_path.iterdir()] == [ZIP]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", MEMBERS)
def test_broken_members(tmp_path, case):
    members, expected = MEMBERS[case]
    path = write_zip(tmp_path / ZIP, members)
    assert found(path) == expected
    assert [entry.name for entry in tmp_path.iterdir()] == [ZIP]


@pytest.mark.parametrize("case", BYTES)
def test_broken_zips(tmp_path, case):
    change, expected = BYTES[case]
    path = write_zip(tmp_path / ZIP, GOOD)
    path.write_bytes(change(path.read_bytes()))
    if expected is None:
        assert ERROR in {level for level, _, _ in found(path)}
    else:
        assert found(path) == expected


def test_every_code_is_made_here_and_explained_in_the_docs():
    source = Path(mask_check.__file__).read_text() + Path(validation.__file__).read_text()
    made = {code for name, code in re.findall(r'\b(error|warning|refused)\(\s*"([a-z0-9-]+)"', source)}
    made |= set(re.findall(r'Finding\("(?:error|warning)", "([a-z0-9-]+)"', source))
    documented = re.findall(
        r"^\| `([a-z0-9-]+)` \| (error|warning) \|", (DOCS / "submission.md").read_text(), re.MULTILINE
    )
    cases = {(code, level) for _, level, code in MASKS.values()}
    for _, expected in (*MEMBERS.values(), *BYTES.values()):
        cases |= {(code, level) for level, code, _ in expected or []}
    elsewhere = {("page-limit", WARNING), ("wrong-name", WARNING), ("zip-size", WARNING)}
    assert set(documented) == cases | elsewhere
    assert made == {code for code, _ in documented}


# Good zips


@pytest.mark.parametrize("foreground", [255, 1])
@pytest.mark.parametrize("shape", [SHAPE, (1, 12, 10), (3, 1, 10), (2, 700, 700)])
def test_what_this_project_writes_is_valid(tmp_path, shape, foreground):
    rng = np.random.default_rng(0)
    masks = [tmp_path / f"{name}.tif" for name in IDS]
    for path in masks:
        write_mask_tiff(path, [(rng.random(shape) < 0.4).astype(np.uint8)], shape, foreground=foreground)
    write_submission(tmp_path / ZIP, masks)
    assert found(tmp_path / ZIP, [volume(name, shape) for name in IDS]) == []


OPTIONS = [
    {},
    {"compression": "zlib"},
    {"compression": "packbits"},
    {"bigtiff": True},
    {"imagej": True, "photometric": None},
    {"tile": (16, 16), "compression": "lzw", "predictor": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_other_ways_to_write_a_good_mask_are_valid(tmp_path, options):
    data = tif(GREY, **options)
    np.testing.assert_array_equal(as_scored(data), GREY)
    assert found(write_zip(tmp_path / ZIP, [*TWO, ("a7.tif", data)])) == []


def test_ids_with_dots_are_matched_to_their_own_masks(tmp_path):
    path = write_zip(tmp_path / ZIP, [("s.a.tif", MASK), ("s.b.tif", MASK)])
    assert found(path, [volume("s.a"), volume("s.b")]) == [
        (WARNING, "dotted-name", "s.a.tif"),
        (WARNING, "dotted-name", "s.b.tif"),
    ]


def test_ids_that_differ_by_case_are_two_volumes(tmp_path):
    path = write_zip(tmp_path / ZIP, [("a7.tif", MASK), ("A7.tif", MASK)])
    assert found(path, [volume("A7"), volume("a7")]) == []


# What Pillow, and so the scorer, really makes of the traps


def as_scored(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.stack([np.array(page) for page in ImageSequence.Iterator(image)])


@pytest.mark.parametrize("case", ["bool", "min-is-white"])
def test_inverted_pages_are_read_inverted(case):
    np.testing.assert_array_equal(as_scored(MASKS[case][0]) != 0, ~SURFACE)


@pytest.mark.parametrize("case", ["volumetric", "volumetric tiles", "stack in one page"])
def test_stacks_in_one_page_are_read_as_one_page(case):
    assert as_scored(MASKS[case][0]).shape == (1, *SHAPE[1:])


@pytest.mark.parametrize("case", ["int64", "float64", "JPEG 2000"])
def test_some_files_cannot_be_opened(case):
    with pytest.raises(UnidentifiedImageError):
        as_scored(MASKS[case][0])


def test_class_2_is_read_as_surface():
    scored = as_scored(MASKS["class 2"][0]) != 0
    assert (scored & ~SURFACE).any()


def test_an_orientation_tag_turns_the_pages():
    np.testing.assert_array_equal(as_scored(MASKS["mirrored"][0]), GREY[:, ::-1, ::-1])


def test_pages_of_two_sizes_cannot_be_stacked():
    with pytest.raises(ValueError, match="same shape"):
        as_scored(MASKS["pages of two sizes"][0])


# Limits


def test_a_bomb_is_not_unpacked(tmp_path):
    """Declared honestly, or as so small that only its checksum tells."""
    path = write_zip(tmp_path / ZIP, [*TWO, ("a7.tif", bytes(64 << 20))], zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    assert (ERROR, "too-large", "a7.tif") in found(path)
    path.write_bytes(patched(path.read_bytes(), b"PK\x01\x02", 24, struct.pack("<L", 2000)))
    assert (ERROR, "damaged-member", "a7.tif") in found(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_extra_members_and_duplicates_are_not_unpacked(tmp_path, monkeypatch):
    path = write_zip(tmp_path / ZIP, [*GOOD, ("9.tif", MASK), ("b.tif", MASK), ("a7.x.tif", MASK)])
    opened = []
    read = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, info: opened.append(info.filename) or read(self, info))
    assert {code for _, code, _ in found(path)} == {"extra-id", "duplicate-id"}
    assert opened == ["101.tif", "102.tif"]


def test_slices_too_large_for_pillow_are_a_warning(tmp_path, monkeypatch):
    """No fault of the mask: the scorer could read no mask of that volume."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    path = write_zip(tmp_path / ZIP, GOOD)
    assert found(path) == [(WARNING, "page-limit", f"{name}.tif") for name in IDS]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow only warns
    assert found(path) == []


def test_other_names_and_large_zips_are_warnings(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "mine.zip", GOOD)
    monkeypatch.setattr(validation, "_OUTPUT_BYTES", 1000)
    assert found(path) == [(WARNING, "wrong-name", "mine.zip"), (WARNING, "zip-size", "mine.zip")]


def test_no_room_for_the_copy(tmp_path, monkeypatch):
    def full(source, target, length):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(validation.shutil, "copyfileobj", full)
    path = write_zip(tmp_path / ZIP, GOOD)
    with pytest.raises(StorageError, match="No space left"):
        validate_submission(path, IMAGES)


def test_damaged_bytes_never_escape_as_an_exception(tmp_path):
    """A few hundred random damages: findings, or none where the bytes do not matter."""
    rng = np.random.default_rng(7)
    path = write_zip(tmp_path / ZIP, [("101.tif", tif(GREY, bigtiff=True)), *GOOD[1:]])
    good = path.read_bytes()
    noticed = 0
    for _ in range(300):
        data = bytearray(good)
        for place in rng.integers(0, len(good), 3):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        noticed += bool(validate_submission(path, IMAGES))
    assert noticed > 250


# The command, and the run that checks its own zip


@pytest.fixture
def submission(make_tiff, tmp_path):
    images = [make_tiff(SHAPE, seed, f"{name}.tif") for seed, name in enumerate(IDS)]
    return tmp_path / ZIP, images[0].parent


def test_command_of_a_valid_zip(submission, capsys):
    path, images = submission
    write_zip(path, GOOD)
    assert command("validate", path, "--images", images) == 0
    assert capsys.readouterr().out == "valid: 3 masks\n"
    write_zip(path, [*TWO, ("a7.tif", MASKS["empty"][0])])
    assert command("validate", path, "--images", images) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "warning",
        "empty",
        "a7.tif:",
        *f"all {SURFACE.size} voxels are 0: no surface at all".split(),
    ]
    assert lines[1] == "valid: 3 masks, 1 warning"


def test_command_of_a_broken_zip(submission, capsys):
    path, images = submission
    write_zip(path, [("101.tif", MASK), ("readme.md", b"x"), *((f"{n}.tif", MASK) for n in range(20))])
    assert command("validate", path, "--images", images) == GateError.exit_code
    out, err = capsys.readouterr()
    kinds = [line.split()[:2] for line in out.splitlines()]
    assert kinds == [["error", "extra-id"]] * 9 + [["error", "missing-id"]] * 2 + [["warning", "unexpected-file"]]
    assert "and 12 more" in out
    assert err.endswith("not valid: 22 errors, 1 warning\n")


def test_command_writes_json(submission, tmp_path, capsys):
    path, images = submission
    write_zip(path, TWO)
    assert command("validate", path, "--images", images, "--json", "-") == GateError.exit_code
    record = json.loads(capsys.readouterr().out)
    assert {key: record[key] for key in ("valid", "masks", "errors", "warnings")} == {
        "valid": False, "masks": 3, "errors": 1, "warnings": 0,
    }  # fmt: skip
    assert [Finding(**finding) for finding in record["findings"]] == validate_submission(path, IMAGES)
    command("validate", path, "--images", images, "--json", tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == record


def test_control_codes_in_names_do_not_reach_the_terminal(submission, capsys):
    path, images = submission
    write_zip(path, [*GOOD, ("\x1b[2J9.tif", MASK)])
    assert command("validate", path, "--images", images) == GateError.exit_code
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[2J9.tif" in out


@pytest.mark.parametrize("columns", [60, 120])
def test_table_on_a_terminal(submission, capsys, monkeypatch, columns):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    path, images = submission
    write_zip(path, [*TWO, ("[red]x.txt", b"x")])
    assert command("validate", path, "--images", images) == GateError.exit_code
    lines = capsys.readouterr().out.splitlines()
    assert any("─" in line for line in lines) == (columns == 120)
    order = [next(n for n, line in enumerate(lines) if text in line) for text in ("a7.tif", "[red]x.txt")]
    assert order == sorted(order), "errors come first"


@pytest.mark.parametrize("broken", ["zip", "images"])
def test_missing_paths_are_bad_input(submission, broken, tmp_path):
    path, images = submission
    write_zip(path, GOOD)
    missing = tmp_path / "nowhere"
    arguments = (missing, "--images", images) if broken == "zip" else (path, "--images", missing)
    assert command("validate", *arguments) == InputError.exit_code


def test_run_validates_its_zip(submission, tmp_path, monkeypatch):
    _, images = submission
    options = {"workflow": "v61.1", "serial": True}
    run = nx47dask.run([images], tmp_path / "run", **options)
    assert run.manifest["submission"]["warnings"] == []
    assert found(run.path / "submission.zip", IMAGES) == []
    findings = [Finding("warning", "empty", "a7.tif", "all 0"), Finding("error", "values", "101.tif", "3 values")]
    monkeypatch.setattr("nx47dask.commands.artefacts.validate_submission", lambda path, images: findings[:1])
    run = nx47dask.run([images], tmp_path / "run", resume=True, **options)
    assert run.manifest["submission"]["warnings"] == ["a7.tif: all 0"]
    monkeypatch.setattr("nx47dask.commands.artefacts.validate_submission", lambda path, images: findings)
    with pytest.raises(GateError, match=r"submission\.zip: not valid.*\n  101\.tif: 3 values"):
        nx47dask.run([images], tmp_path / "run", resume=True, **options)
