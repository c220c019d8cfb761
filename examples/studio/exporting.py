"""Writing a document as PDF."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fpdf import FPDF
from fpdf.errors import FPDFException
from fpdf.fonts import TTFFont

from holdfast import NonRetriableError

from .events import ExportPdf

_MARGIN = 22
_BUILT_IN = "helvetica"
_OWN = "document"
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    file: str
    """Its name in the directory of exports."""
    pages: int
    bytes: int


def _silent(fraction: float, text: str) -> None: ...


class Exporter:
    """Writes documents into a directory."""

    def __init__(self, directory: Path, font: Path | None = None) -> None:
        self._directory = directory
        self._font = font

    def path(self, name: str) -> Path:
        """Where the export of a run is."""
        return self._directory / f"{name}.pdf"

    def export(self, document: ExportPdf, name: str, progress: Progress = _silent) -> Exported:
        """Write a document. The file appears whole or not at all.

        Args:
            document: What is to be in it.
            name: The file's name, without its end.
            progress: Told after each section how much of it is set.

        Raises:
            NonRetriableError: a character of it is not in the font.
            OSError: the directory can't be written to.
        """
        pdf = self._render(document, progress)
        content = bytes(pdf.output())
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._discard_drafts(name)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        try:
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            with contextlib.suppress(OSError):  # what remains of a failed write; the failure itself is raised
                draft.unlink(missing_ok=True)
        return Exported(path.name, pdf.page_no(), len(content))

    def discard(self, name: str) -> None:
        """Remove whatever a run has left that failed for good: it was perhaps killed while it wrote, or right after."""
        self._discard_drafts(name)
        self.path(name).unlink(missing_ok=True)

    def _discard_drafts(self, name: str) -> None:
        """Remove what processes left that died while they wrote."""
        for abandoned in self._directory.glob(f"{name}.*.draft"):
            abandoned.unlink(missing_ok=True)

    def _render(self, document: ExportPdf, progress: Progress) -> FPDF:
        pdf = FPDF(format="A4")
        pdf.set_title(document.title)
        pdf.set_margins(_MARGIN, _MARGIN)
        pdf.set_auto_page_break(auto=True, margin=_MARGIN)
        family = self._use_font(pdf)
        pdf.add_page()
        texts = [document.title, *(text for section in document.sections for text in (section.heading, section.text))]
        missing = _missing(pdf, family, "".join(texts))
        if missing is not None:
            raise NonRetriableError(f"the character {missing!r} is not in the font; name one that has it in PDF_FONT")
        _paragraph(pdf, family, document.title, size=24, bold=True, after=6)
        for number, section in enumerate(document.sections, 1):
            _paragraph(pdf, family, section.heading, size=14, bold=True, after=2)
            _paragraph(pdf, family, section.text, size=11, after=5)
            progress(number / (len(document.sections) + 1), f"Section {number} of {len(document.sections)}")
        return pdf

    def _use_font(self, pdf: FPDF) -> str:
        if self._font is None:
            return _BUILT_IN
        try:
            for style in ("", "B"):
                pdf.add_font(_OWN, style, self._font)
        except (OSError, FPDFException) as error:
            raise NonRetriableError(f"the font {self._font} of PDF_FONT can't be used: {error}") from error
        return _OWN


def _missing(pdf: FPDF, family: str, text: str) -> str | None:
    """The first character that the font can't show; it would be left out without a word."""
    font = pdf.fonts.get(family)  # a built-in one shows up there only once it is used
    if isinstance(font, TTFFont):
        return next((c for c in text if not c.isspace() and ord(c) not in font.cmap), None)
    return next((c for c in text if ord(c) > 255), None)


def _paragraph(pdf: FPDF, family: str, text: str, *, size: int, after: int, bold: bool = False) -> None:
    if not text:
        return
    pdf.set_font(family, "B" if bold else "", size)
    pdf.multi_cell(0, size * 0.5, text, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(after)
