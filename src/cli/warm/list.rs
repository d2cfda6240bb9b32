//! The URLs that a file names: one a line, or a sitemap.
//!
//! Pure: octets in, entries out. A sitemap that lists sitemaps gives those; who fetches decides how deep it goes.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Something that a list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Url(String),
    /// A list of its own (sitemaps.org, "Using Sitemap index files").
    Sitemap(String),
}

/// Reads lines (blank ones, and those that begin with `#`, are left out), or XML, which begins with `<`.
///
/// Errors: it is not UTF-8, or no XML.
pub fn entries(text: &[u8]) -> anyhow::Result<Vec<Entry>> {
    let text = std::str::from_utf8(text)?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('<') {
        return sitemap(text);
    }
    let lines = text.lines().map(str::trim);
    let urls = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(urls.map(|url| Entry::Url(url.to_owned())).collect())
}

/// `<loc>` within `<url>` or `<sitemap>`; what else there is, as images and alternates, has names of its own.
fn sitemap(text: &str) -> anyhow::Result<Vec<Entry>> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<String> = Vec::new();
    let (mut entries, mut location) = (Vec::new(), String::new());
    loop {
        match reader.read_event()? {
            Event::Start(tag) => {
                location.clear();
                open.push(tag.local_name().as_ref().to_owned());
            }
            Event::Text(part) => location += &part,
            Event::CData(part) => location += &part,
            Event::GeneralRef(name) => {
                let reference = format!("&{};", &*name);
                location += &quick_xml::escape::unescape(&reference)?;
            }
            Event::End(_) => {
                let tag = open.pop();
                let parent = open.last().map(String::as_str);
                let url = location.trim();
                match (tag.as_deref(), parent) {
                    (Some("loc"), Some("url")) => entries.push(Entry::Url(url.to_owned())),
                    (Some("loc"), Some("sitemap")) => {
                        entries.push(Entry::Sitemap(url.to_owned()));
                    }
                    _ => {}
                }
                location.clear();
            }
            Event::Eof => return Ok(entries),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Entry {
        Entry::Url(text.to_owned())
    }

    #[test]
    fn lines_are_urls_but_for_comments() {
        let text = b"\xef\xbb\xbf# mine\n\nhttp://a/\r\n  http://b/?x=1&y=2  \n";
        let expected = [url("http://a/"), url("http://b/?x=1&y=2")];
        assert_eq!(entries(text).unwrap(), expected);
        assert!(entries(b"").unwrap().is_empty());
        assert!(entries(b"\xff").is_err());
    }

    #[test]
    fn a_sitemap_gives_its_locations_and_nothing_else() {
        let text = br#"<?xml version="1.0" encoding="UTF-8"?>
            <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="urn:image">
              <url><loc> http://a/?x=1&amp;y=2 </loc><lastmod>2026-01-01</lastmod>
                <image:image><image:loc>http://a/no.png</image:loc></image:image></url>
              <url><loc><![CDATA[http://a/b]]></loc><priority>0.5</priority></url>
            </urlset>"#;
        let expected = [url("http://a/?x=1&y=2"), url("http://a/b")];
        assert_eq!(entries(text).unwrap(), expected);
    }

    #[test]
    fn an_index_gives_sitemaps() {
        let text = b"<sitemapindex><sitemap><loc>http://a/1.xml</loc></sitemap></sitemapindex>";
        let expected = [Entry::Sitemap("http://a/1.xml".to_owned())];
        assert_eq!(entries(text).unwrap(), expected);
        assert!(entries(b"<urlset><url></urlset>").is_err());
    }
}
