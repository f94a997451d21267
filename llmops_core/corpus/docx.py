"""DOCX to Markdown-like text, by way of HTML, so that Word files and web pages share one reading of structure.

mammoth knows Word's styles, numbering, tracked changes and footnotes; pictures, headers and footers are left out.
"""

import zipfile
from io import BytesIO
from xml.etree import ElementTree

from llmops_core.corpus.html import html_to_markdown

MAX_XML_BYTES = 32 * 1024 * 1024
"""What the XML of a file may unpack to: about 10,000 pages, and where a zip bomb ends."""
_OLE = b"\xd0\xcf\x11\xe0"
"""Begins both the Word files before 2007 and those with a password."""
_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='heading 7'] => h6:fresh
p[style-name='heading 8'] => h6:fresh
p[style-name='heading 9'] => h6:fresh
"""
"""Beside mammoth's own, which make lists, notes and headings 1 to 6."""
_TITLE = "{http://purl.org/dc/elements/1.1/}title"


def docx_to_markdown(data: bytes) -> tuple[str, str]:
    """Turn a file into (title, text); the title is that of its core properties, else empty.

    Raises `ValueError` with the way out if the file is none, damaged, encrypted or a zip bomb.
    """
    if data.startswith(_OLE):
        raise ValueError("an old Word file, or one with a password: save it as .docx without a password")
    import mammoth

    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            # zipfile never unpacks more of an entry than its directory says.
            size = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith((".xml", ".rels")))
            if size > MAX_XML_BYTES:
                raise ValueError(f"its XML unpacks to {size:,} bytes, the limit is {MAX_XML_BYTES:,}; split it")
            title = _title(archive)
        markup = mammoth.convert_to_html(
            BytesIO(data),
            style_map=_STYLES,
            include_embedded_style_map=False,
            convert_image=mammoth.images.img_element(lambda _: {}),
        ).value
    except ValueError:
        raise
    except (MemoryError, Exception) as error:  # A malformed file makes mammoth raise nearly anything.
        raise ValueError(f"not readable as DOCX: {error or type(error).__name__}; save it again as .docx") from error
    return title, html_to_markdown(markup)[1]


def _title(archive: zipfile.ZipFile) -> str:
    if "docProps/core.xml" not in archive.namelist():
        return ""
    return " ".join((ElementTree.fromstring(archive.read("docProps/core.xml")).findtext(_TITLE) or "").split())
