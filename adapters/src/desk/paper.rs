//! Papers, written by code: small PDFs of one page, scans of several MiB, JSON files. Invented data only, and each paper says so.
//! Invariant: the same input gives the same bytes, so that a step taken again attaches the same file.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::Value;

use super::{
    calls::File,
    office::{Copy, Holding, Office},
};

/// Reason code for what no register holds (OOTS: object not found).
pub const NOT_HELD: &str = "EDM:ERR:0004";
/// Pages of a scan, and their size in pixels of one byte: an A4 page at about 150 dpi.
const SCAN_PAGES: usize = 3;
const SCAN_WIDTH: usize = 1240;
const SCAN_HEIGHT: usize = 1754;

/// A copy of a document, as the holder gives it.
#[must_use]
pub fn copy(office: &Office, holding: &Holding, value: &Value) -> File {
    let (extension, media_type, bytes) = match holding.copy {
        Copy::Pdf => ("pdf", "application/pdf", pdf(&lines(office, holding, value), 0)),
        Copy::Scan => ("pdf", "application/pdf", pdf(&lines(office, holding, value), SCAN_PAGES)),
        Copy::Json => ("json", "application/json", value.to_string().into_bytes()),
    };
    File {
        name: format!("{}.{extension}", holding.document.to_lowercase()),
        media_type,
        document: holding.document.to_owned(),
        bytes: Bytes::from(bytes),
    }
}

/// What stands on the page.
fn lines(office: &Office, holding: &Holding, value: &Value) -> Vec<String> {
    let mut lines = vec![office.display_name.to_owned(), holding.title.to_owned(), String::new()];
    if let Value::Object(fields) = value {
        lines.extend(fields.iter().map(|(name, field)| format!("{name}: {}", plain(field))));
    }
    lines.extend([String::new(), "Invented data of the Tramite demo. Not a certificate.".to_owned()]);
    lines
}

/// A value without the quotes of a string.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A PDF 1.4 file: one page of text, then so many pages that are an image each.
#[must_use]
pub fn pdf(lines: &[String], scans: usize) -> Vec<u8> {
    let mut file = Pdf::default();
    let pages: Vec<usize> = std::iter::once(5).chain((0..scans).map(|scan| 6 + scan * 3)).collect();
    let kids: Vec<String> = pages.iter().map(|page| format!("{page} 0 R")).collect();
    file.object(b"<< /Type /Catalog /Pages 2 0 R >>");
    file.object(format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), pages.len()).as_bytes());
    file.object(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>");
    file.stream("", &text(lines));
    file.object(
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 3 0 R >> >> >>",
    );
    for scan in 0..scans {
        let page = 6 + scan * 3;
        let resources = format!("/Resources << /XObject << /Im {} 0 R >> >>", page + 2);
        let contents = format!("/MediaBox [0 0 595 842] /Contents {} 0 R", page + 1);
        file.object(format!("<< /Type /Page /Parent 2 0 R {contents} {resources} >>").as_bytes());
        file.stream("", b"q 595 0 0 842 0 0 cm /Im Do Q");
        let image = format!(
            "/Type /XObject /Subtype /Image /Width {SCAN_WIDTH} /Height {SCAN_HEIGHT} /ColorSpace /DeviceGray /BitsPerComponent 8 "
        );
        file.stream(&image, &scanned(scan));
    }
    file.finish()
}

/// The content of a page of text.
fn text(lines: &[String]) -> Vec<u8> {
    let mut content = b"BT /F1 12 Tf 16 TL 60 780 Td\n".to_vec();
    for line in lines {
        content.push(b'(');
        for letter in line.chars() {
            match u8::try_from(u32::from(letter)) {
                Ok(byte @ (b'(' | b')' | b'\\')) => content.extend([b'\\', byte]),
                // WinAnsi is Latin-1 for every letter that Italian needs.
                Ok(byte) => content.push(byte),
                Err(_) => content.push(b'?'),
            }
        }
        content.extend(b") Tj T*\n");
    }
    content.extend(b"ET");
    content
}

/// The pixels of a scanned page: paper with grain, and rows of writing.
fn scanned(page: usize) -> Vec<u8> {
    let mut noise: u32 = 0x9E37_79B9 ^ u32::try_from(page).unwrap_or(0);
    let mut pixels = Vec::with_capacity(SCAN_WIDTH * SCAN_HEIGHT);
    for row in 0..SCAN_HEIGHT {
        let written = row % 48 < 14 && (120..SCAN_HEIGHT - 160).contains(&row);
        for column in 0..SCAN_WIDTH {
            // xorshift32: grain that is the same at every run.
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            let grain = noise.to_le_bytes()[0] & 0x0F;
            let ink = written && (110..SCAN_WIDTH - 130).contains(&column) && (column / 9 + row / 48) % 5 != 0;
            pixels.push(if ink { 60 + grain } else { 235 + grain });
        }
    }
    pixels
}

/// A PDF file under construction: objects in order, and where each begins.
#[derive(Default)]
struct Pdf {
    bytes: Vec<u8>,
    begins: Vec<usize>,
}

impl Pdf {
    fn object(&mut self, content: &[u8]) {
        if self.bytes.is_empty() {
            // The second line says that the file is binary.
            self.bytes.extend(b"%PDF-1.4\n%\xE2\xE3\xCF\xD3\n");
        }
        self.begins.push(self.bytes.len());
        self.bytes.extend(format!("{} 0 obj\n", self.begins.len()).as_bytes());
        self.bytes.extend(content);
        self.bytes.extend(b"\nendobj\n");
    }

    fn stream(&mut self, dictionary: &str, content: &[u8]) {
        let mut object = format!("<< {dictionary}/Length {} >>\nstream\n", content.len()).into_bytes();
        object.extend(content);
        object.extend(b"\nendstream");
        self.object(&object);
    }

    fn finish(mut self) -> Vec<u8> {
        let table = self.bytes.len();
        let size = self.begins.len() + 1;
        let mut tail = format!("xref\n0 {size}\n0000000000 65535 f \n");
        for begin in &self.begins {
            // Writing to a String cannot fail.
            let _ = writeln!(tail, "{begin:010} 00000 n ");
        }
        let _ = write!(tail, "trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n");
        self.bytes.extend(tail.as_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_cross_reference_table_points_at_its_object() {
        let bytes = pdf(&["Città (di) prova".to_owned()], 1);
        let text = String::from_utf8_lossy(&bytes[bytes.len() - 400..]).into_owned();
        let entries: Vec<usize> =
            text.lines().filter(|line| line.ends_with(" 00000 n ")).map(|line| line[..10].parse().unwrap()).collect();
        assert_eq!(entries.len(), 8);
        for (number, begin) in (1..).zip(entries) {
            assert!(bytes[begin..].starts_with(format!("{number} 0 obj").as_bytes()), "object {number}");
        }
    }

    #[test]
    fn a_scan_is_several_mib_and_the_same_every_time() {
        let bytes = pdf(&[], SCAN_PAGES);
        assert!(bytes.len() > 5 * 1024 * 1024, "{}", bytes.len());
        assert!(bytes == pdf(&[], SCAN_PAGES));
    }
}
