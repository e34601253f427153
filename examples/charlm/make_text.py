#!/usr/bin/env python3
"""Makes text.txt: Jane Austen's "Pride and Prejudice" (1813, public domain) from Debian's package r-cran-janeaustenr.

    apt-get download r-cran-janeaustenr && dpkg-deb -x r-cran-janeaustenr_*.deb package
    python make_text.py package/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb > text.txt

The package keeps each novel as a vector of lines; paragraphs become single lines here. Needs nothing from PyPI.
"""
import struct
import sys
import zlib

TITLE = b"PRIDE AND PREJUDICE"


def records(data):
    """The objects of R's lazy-load database, one after the other: four bytes of length, then a zlib stream."""
    while len(data) > 4:
        stream = zlib.decompressobj()
        yield stream.decompress(data[4:])
        data = stream.unused_data


def strings(record):
    """The elements of a character vector in R's serialisation: flags whose low byte is 9 (CHARSXP), length, bytes."""
    found, at = [], 0
    while at + 8 <= len(record):
        flags, length = struct.unpack_from(">ii", record, at)
        if flags & 0xFF == 9 and flags >> 20 == 0 and 0 <= length <= len(record) - at - 8:
            found.append(record[at + 8:at + 8 + length].decode("utf-8"))
            at += 8 + length
        else:
            at += 1 if found == [] else 4
    return found


def main():
    data = open(sys.argv[1], "rb").read()
    lines = strings(next(r for r in records(data) if TITLE in r[:4000]))
    paragraphs = "\n".join(lines).split("\n\n")
    text = "\n".join(" ".join(p.split()) for p in paragraphs if p.strip())
    start = text.index("It is a truth universally acknowledged")
    sys.stdout.write(text[start:] + "\n")


main()
