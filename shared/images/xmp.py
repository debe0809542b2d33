"""Turns Printroom's text into an XMP packet with a checksum, and back. Knows nothing of files.

WebP, JPEG and JPEG XL have no checksums. The seal is a CRC-32 over the text and the rest of the file: with it a
damaged file is found without decoding it, as a PNG's own checksums find one. What other programs may add (EXIF,
further fields of XMP) is not sealed.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from xml.sax.saxutils import escape

try:
    from isal.isal_zlib import crc32
except ImportError:  # the producer installs without it
    from zlib import crc32

#: IPTC's word for an image that a trained model made (https://cv.iptc.org/newscodes/digitalsourcetype/).
TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_NAMESPACE = "urn:printroom:image#"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

#: Characters that XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}"><rdf:Description rdf:about="" {fields}'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)
_FIELDS = (
    'xmlns:printroom="{namespace}"><printroom:recipe>{truth}</printroom:recipe>'
    "<printroom:seal>{seal:08x}</printroom:seal>"
)

#: What other programs look for; it is not sealed.
_SOURCE = (
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"{more}'
    "<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>"
)

_WRAPPER = ("<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>", "<?xpacket end='r'?>")


def write_xmp(truth: str, sealed: Iterable[bytes | memoryview], *, source: str | None = None) -> bytes:
    """Return the packet of a text, without the wrapper that `wrap_xmp` puts around it.

    Args:
        source: the digital source type, a URI that needs no escaping; None leaves it out.
        truth: JSON. A character that XML cannot hold is written as JSON's escape, which says the same.
        sealed: the file but for its EXIF and its XMP, in the parts a reader finds it in.
    """
    legal = _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", truth)
    fields = _FIELDS.format(namespace=_NAMESPACE, truth=escape(legal), seal=_seal(legal, sealed))
    return _packet(fields, source)


def source_xmp(source: str) -> bytes:
    """Return the packet that tells the digital source type alone, for a file that keeps its text elsewhere."""
    return _packet(">", source)


def _packet(fields: str, source: str | None) -> bytes:
    """Return a packet of fields, which begin with namespaces and a `>`, and of the source type before them."""
    if source is not None:
        namespaces, _, elements = fields.partition(">")
        fields = _SOURCE.format(more=f" {namespaces}>" if namespaces else ">", source=source) + elements
    return _PACKET.format(rdf=_RDF, fields=fields).encode()


def read_xmp(packet: bytes, sealed: Iterable[bytes | memoryview]) -> str | None:
    """Return the text of a packet, or None where it has none of ours.

    Raises: ValueError where the packet is damaged, or the seal does not fit.
    """
    if _NAMESPACE.encode() not in packet:
        return None
    if b"<!" in packet:
        raise ValueError("damaged XMP: a declaration, which Printroom never writes")
    try:
        # No declarations, so no entities of the packet's own to expand.
        root = ET.fromstring(packet)  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"damaged XMP: {error}") from error
    truth, seal = (_field(root, name) for name in ("recipe", "seal"))
    if truth is None:
        return None
    if seal != f"{_seal(truth, sealed):08x}":
        raise ValueError("damaged image: its pixels or its recipe do not match their seal")
    return truth


def wrap_xmp(packet: bytes) -> bytes:
    """Return a packet between the marks by which scanners find it."""
    begin, end = _WRAPPER
    return begin.encode() + packet + end.encode()


def pointer_xmp(digest: str, *, source: str | None = None) -> bytes:
    """Return the packet that says: the packet with this MD5 stands in further segments (JPEG's extended XMP).

    Not every program follows: what such a program looks for stands here too.
    """
    fields = (
        f'xmlns:xmpNote="http://ns.adobe.com/xmp/note/"><xmpNote:HasExtendedXMP>{digest}'
        "</xmpNote:HasExtendedXMP>"
    )
    return _packet(fields, source)


def _field(root: ET.Element, name: str) -> str | None:
    """Return a field of ours, as an element or, as other programs write it anew, as an attribute."""
    tag = f"{{{_NAMESPACE}}}{name}"
    found = next(root.iter(tag), None)
    if found is not None:
        return found.text or ""
    return next((element.attrib[tag] for element in root.iter() if tag in element.attrib), None)


def _seal(truth: str, sealed: Iterable[bytes | memoryview]) -> int:
    seal: int = crc32(truth.encode())
    for part in sealed:
        seal = crc32(part, seal)
    return seal
