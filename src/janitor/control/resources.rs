//! What there is on the control socket for HTTP: which method and parameters of which resource are which [`Request`].
//!
//! One table. Parameters become the fields of the JSON object that the same request is without HTTP, so that what is added to
//! the protocol is a line here. Pure: no octet is read or written here; `http` calls it.

use serde_json::{Map, Value, json};

use crate::cache::Set;
use crate::http::Method;
use crate::janitor::listing::Sort;
use crate::janitor::operations::{check_field, check_url, normal_prefix};
use crate::janitor::protocol::Request;

struct Resource {
    path: &'static str,
    /// POST changes something; GET may be asked with HEAD, too.
    method: Method,
    /// As the protocol has it; none: what this table says.
    does: Option<&'static str>,
    parameters: &'static [Parameter],
    what: &'static str,
}

/// One of a query, and which field of the JSON object it becomes.
#[derive(Debug)]
struct Parameter {
    name: &'static str,
    field: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// Its name alone, or `true` or `false`.
    Flag,
    /// May come again.
    Texts,
    /// `Name: value`; may come again.
    Fields,
}

/// Why there is no request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Refusal {
    #[error("there is no {0}")]
    NoResource(String),
    #[error("{path} takes {allow}")]
    Method {
        path: &'static str,
        allow: &'static str,
    },
    #[error("{0}")]
    Parameters(String),
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What there is to be asked.
    Index,
    Request(Request),
}

const IMPORT: &str = "/cache/import";

static RESOURCES: [Resource; 9] = [
    Resource {
        path: "/cache",
        method: Method::Get,
        does: None,
        parameters: &[],
        what: "what there is to be asked",
    },
    Resource {
        path: "/cache/stats",
        method: Method::Get,
        does: Some("stats"),
        parameters: &[],
        what: "how much is kept, how much may be, and how often it was of use",
    },
    Resource {
        path: "/cache/objects",
        method: Method::Get,
        does: Some("ls"),
        parameters: &[
            parameter("prefix", Kind::Text),
            called("tag", "tags", Kind::Texts),
            parameter("stale", Kind::Flag),
            parameter("larger", Kind::Number),
            parameter("sort", Kind::Text),
            parameter("limit", Kind::Number),
        ],
        what: "a line for each response that is kept",
    },
    Resource {
        path: "/cache/object",
        method: Method::Get,
        does: Some("show"),
        parameters: &[parameter("url", Kind::Text)],
        what: "what is kept of a URL: fields, age, files",
    },
    Resource {
        path: "/cache/explain",
        method: Method::Get,
        does: Some("explain"),
        parameters: &[
            parameter("url", Kind::Text),
            parameter("method", Kind::Text),
            called("header", "fields", Kind::Fields),
        ],
        what: "what a request would get now, and why",
    },
    Resource {
        path: "/cache/verify",
        method: Method::Post,
        does: Some("verify"),
        parameters: &[],
        what: "reads everything, compares every checksum, and removes what is damaged",
    },
    Resource {
        path: "/cache/purge",
        method: Method::Post,
        does: Some("purge"),
        parameters: &[
            parameter("url", Kind::Text),
            parameter("prefix", Kind::Text),
            called("tag", "tags", Kind::Texts),
            parameter("regex", Kind::Text),
            parameter("all", Kind::Flag),
            parameter("soft", Kind::Flag),
        ],
        what: "removes what is kept of a URL, of many, or everything",
    },
    Resource {
        path: "/cache/export",
        method: Method::Get,
        does: Some("export"),
        parameters: &[],
        what: "everything that is kept, as one file",
    },
    Resource {
        path: IMPORT,
        method: Method::Post,
        does: Some("import"),
        parameters: &[],
        what: "puts what such a file has where it is missing, or older",
    },
];

const fn parameter(name: &'static str, kind: Kind) -> Parameter {
    called(name, name, kind)
}

const fn called(name: &'static str, field: &'static str, kind: Kind) -> Parameter {
    Parameter { name, field, kind }
}

/// Whether the body is an archive, of any length, and none of ours.
pub(super) fn takes_archive(method: &Method, target: &[u8]) -> bool {
    *method == Method::Post && target == IMPORT.as_bytes()
}

/// The resources and their parameters, as JSON.
pub(super) fn index() -> Value {
    let resources = RESOURCES.iter().map(|resource| {
        let parameters = resource.parameters.iter();
        let parameters: Vec<&str> = parameters.map(|parameter| parameter.name).collect();
        json!({
            "path": resource.path,
            "methods": resource.allow().split(", ").collect::<Vec<_>>(),
            "parameters": parameters,
            "what": resource.what,
        })
    });
    Value::Array(resources.collect())
}

/// What is meant by a method, by a path with its query, and by a body, which is empty or a JSON object.
pub(super) fn read(method: &Method, target: &[u8], body: &[u8]) -> Result<Asked, Refusal> {
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    let resource = RESOURCES.iter().find(|it| it.path.as_bytes() == path);
    let resource = resource.ok_or_else(|| {
        let path = String::from_utf8_lossy(path).into_owned();
        Refusal::NoResource(path)
    })?;
    let is_right = match method {
        Method::Head => resource.method == Method::Get,
        method => *method == resource.method,
    };
    if !is_right {
        return Err(Refusal::Method {
            path: resource.path,
            allow: resource.allow(),
        });
    }
    let asked = resource
        .object(query, body)
        .and_then(|object| match resource.does {
            None => Ok(Asked::Index),
            Some(does) => request(does, object).map(Asked::Request),
        });
    asked.map_err(Refusal::Parameters)
}

impl Resource {
    fn allow(&self) -> &'static str {
        match self.method {
            Method::Get => "GET, HEAD",
            _ => "POST",
        }
    }

    /// Errors: something that it does not know, that comes twice, or that is no JSON object.
    fn object(&self, query: &[u8], body: &[u8]) -> Result<Map<String, Value>, String> {
        let mut object = Map::new();
        let pairs = query.split(|octet| *octet == b'&');
        for pair in pairs.filter(|_| !query.is_empty()) {
            let (name, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (&pair[..at], Some(&pair[at + 1..])),
                None => (pair, None),
            };
            let name = decode(name)?;
            let known = self.parameters.iter().find(|it| it.name == name);
            let value = value.map(decode).transpose()?;
            known
                .ok_or_else(|| self.unknown(&name))?
                .put(value, &mut object)?;
        }
        if body.is_empty() {
            return Ok(object);
        }
        if self.method != Method::Post {
            return Err(format!("{} takes no body", self.path));
        }
        let further: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|error| format!("the body is no JSON object: {error}"))?;
        for (field, value) in further {
            if !self.parameters.iter().any(|it| it.field == field) {
                return Err(self.unknown(&field));
            }
            if object.insert(field.clone(), value).is_some() {
                return Err(format!("{field} is in the query and in the body"));
            }
        }
        Ok(object)
    }

    fn unknown(&self, name: &str) -> String {
        let known = self.parameters.iter().map(|it| it.name);
        let known: Vec<&str> = known.collect();
        match known.is_empty() {
            true => format!("{} takes no {name:?}, and nothing else", self.path),
            false => format!("{} takes {}, and no {name:?}", self.path, known.join(", ")),
        }
    }
}

impl Parameter {
    fn put(&self, value: Option<String>, object: &mut Map<String, Value>) -> Result<(), String> {
        let Parameter { name, field, kind } = self;
        let missing = || format!("{name} has no value");
        let value = match kind {
            Kind::Flag => Value::Bool(match value.as_deref() {
                None | Some("true") => true,
                Some("false") => false,
                Some(_) => return Err(format!("{name} is true or false")),
            }),
            Kind::Text | Kind::Texts => Value::String(value.ok_or_else(missing)?),
            Kind::Number => {
                let value = value.ok_or_else(missing)?;
                let is_decimal = value.bytes().all(|octet| octet.is_ascii_digit());
                let number = value.parse::<u64>().ok().filter(|_| is_decimal);
                number.ok_or_else(|| format!("{name} is no number"))?.into()
            }
            Kind::Fields => {
                let value = value.ok_or_else(missing)?;
                let (field, value) = value
                    .split_once(':')
                    .ok_or_else(|| format!("{name} is no field: \"Name: value\" is wanted"))?;
                check_field(field, value.trim()).map_err(|error| error.to_string())?;
                json!([field, value.trim()])
            }
        };
        let repeats = matches!(kind, Kind::Texts | Kind::Fields);
        match object.get_mut(*field) {
            Some(Value::Array(values)) if repeats => values.push(value),
            Some(_) => return Err(format!("{name} comes twice")),
            None => {
                let value = if repeats { json!([value]) } else { value };
                object.insert((*field).to_owned(), value);
            }
        }
        Ok(())
    }
}

/// RFC 3986 section 2.1: pct-encoded = "%" HEXDIG HEXDIG. A plus is a plus, as everywhere in a URI.
fn decode(text: &[u8]) -> Result<String, String> {
    let broken = || format!("{:?} is encoded wrongly", String::from_utf8_lossy(text));
    let digit = |octet: Option<u8>| {
        let digit = octet.and_then(|octet| char::from(octet).to_digit(16));
        digit
            .and_then(|digit| u8::try_from(digit).ok())
            .ok_or_else(broken)
    };
    let mut octets = text.iter().copied();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'%' => digit(octets.next())? << 4 | digit(octets.next())?,
            octet => octet,
        });
    }
    String::from_utf8(decoded).map_err(|_| broken())
}

/// The request that the object is, with what the command line makes of the same.
fn request(does: &str, mut object: Map<String, Value>) -> Result<Request, String> {
    if does == "explain" {
        object.entry("method").or_insert_with(|| json!("GET"));
        object.entry("fields").or_insert_with(|| json!([]));
    }
    let does = match does {
        "purge" => purge(&mut object)?,
        does => does,
    };
    object.insert("do".to_owned(), does.into());
    let mut request: Request =
        serde_json::from_value(Value::Object(object)).map_err(|error| error.to_string())?;
    complete(&mut request)?;
    Ok(request)
}

/// What is to be purged is said once; everything is a request of its own, or, where it stays, what begins with nothing.
fn purge(object: &mut Map<String, Value>) -> Result<&'static str, String> {
    let is_all = match object.remove("all") {
        None => false,
        Some(Value::Bool(is_all)) => is_all,
        Some(_) => return Err("all is true or false".to_owned()),
    };
    for field in ["prefix", "regex"] {
        if object.get(field).and_then(Value::as_str) == Some("") {
            return Err(format!("{field} is empty: all means everything"));
        }
    }
    let sets = object.keys().filter(|field| *field != "soft").count();
    match (sets, is_all) {
        (1, false) => return Ok("purge"),
        (0, true) => {}
        _ => return Err("one of url, prefix, tag, regex and all is wanted".to_owned()),
    }
    if object.get("soft") == Some(&Value::Bool(true)) {
        object.insert("prefix".to_owned(), "".into());
        return Ok("purge");
    }
    object.clear();
    Ok("purge-all")
}

/// URLs and prefixes in normal form; what cannot be meant is told from what goes wrong.
fn complete(request: &mut Request) -> Result<(), String> {
    let checked = match request {
        Request::Ls(listing) => {
            listing.prefix = listing.prefix.as_deref().map(normal_prefix);
            // The first of what?
            listing.sort = listing.sort.or(listing.limit.map(|_| Sort::Url));
            Ok(())
        }
        Request::Explain { url, method, .. } => match Method::parse(method.as_bytes()) {
            Some(_) => check_url(url),
            None => return Err(format!("{method:?} is no method")),
        },
        Request::Show { url }
        | Request::Purge {
            what: Set::Url(url),
            ..
        } => check_url(url),
        Request::Purge { what, .. } => {
            if let Set::Prefix(prefix) = what {
                *prefix = normal_prefix(prefix);
            }
            what.matcher().map(drop).map_err(anyhow::Error::from)
        }
        Request::Stats
        | Request::Verify
        | Request::PurgeAll
        | Request::Export
        | Request::Import => Ok(()),
    };
    checked.map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests;
