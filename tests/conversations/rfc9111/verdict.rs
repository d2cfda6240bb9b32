//! Whether what came of a step is what the step wants. Text in, text out; it asks nobody.

use super::words::{Answer, Served, Step, Want};
use crate::support::{Request, Response};

/// What a step came to.
pub struct Came {
    pub response: Response,
    pub interim: Vec<Response>,
    /// What reached the origin server meanwhile.
    pub requests: Vec<Request>,
    /// Status and content of the answer that it should be, if somebody's answer it is.
    pub expected: (u16, String),
}

/// The error says what was expected and what came.
pub fn judge(step: &Step, came: &Came, fill: impl Fn(&str) -> String) -> Result<(), String> {
    served(step, came).map_err(|what| format!("{what}; {}", came.in_short()))?;
    for want in &step.wants {
        wanted(want, came, &fill).map_err(|what| format!("{what}; {}", came.in_short()))?;
    }
    Ok(())
}

fn served(step: &Step, came: &Came) -> Result<(), String> {
    let asked = !came.requests.is_empty();
    let conditional = came.requests.last().is_some_and(|request| {
        request.field("if-none-match").is_some() || request.field("if-modified-since").is_some()
    });
    let wrong = match step.served {
        Served::ByOrigin if !asked => "should reach the origin server",
        Served::ByOrigin if came.is_hit() => "Cache-Status says hit",
        Served::FromCache(_) if asked => "should be answered from the cache",
        Served::FromCache(_) if !came.is_hit() => "Cache-Status does not say hit",
        Served::Validated if !asked => "should ask the origin server whether it is still good",
        Served::Validated if !conditional => "should ask with a condition",
        Served::ThenAsked if !asked => "should ask the origin server in the background",
        Served::ByProxy if asked => "should not reach the origin server",
        Served::InPlaceOfError if !asked => "should ask the origin server first",
        _ => "",
    };
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    let wants = |is: fn(&Want) -> bool| step.wants.iter().any(is);
    let own = matches!(step.served, Served::ByProxy | Served::ByAnybody);
    let octets = matches!(step.answer, Answer::Octets(..) | Answer::Nothing);
    if own || octets && step.served == Served::ByOrigin {
        return Ok(());
    }
    let (status, content) = &came.expected;
    if !wants(|want| matches!(want, Want::Status(_))) && came.response.status != *status {
        return Err(format!("status should be {status}"));
    }
    let has_none = step.method == "HEAD" || matches!(came.response.status, 204 | 304);
    if !wants(|want| matches!(want, Want::Content(_) | Want::Holds(_)))
        && !has_none
        && came.response.text() != *content
    {
        return Err(format!("content should be {content:?}"));
    }
    Ok(())
}

fn wanted(want: &Want, came: &Came, fill: impl Fn(&str) -> String) -> Result<(), String> {
    let response = &came.response;
    match want {
        Want::Status(status) => check(response.status == *status, || {
            format!("status should be {status}")
        }),
        Want::Field(line) => {
            let line = fill(line);
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let found = response.field(name);
            check(found.as_deref() == Some(value.trim()), || {
                format!("should have {line:?}, has {found:?}")
            })
        }
        Want::NoField(name) => check(response.field(name).is_none(), || {
            format!("should have no {name}, has {:?}", response.field(name))
        }),
        Want::Contains(name, text) => {
            let all = came.interim.iter().chain([response]);
            let found: Vec<String> = all.filter_map(|response| response.field(name)).collect();
            check(found.iter().any(|value| value.contains(text)), || {
                format!("{name} should say {text:?}, says {found:?}")
            })
        }
        Want::ContainsNot(name, text) => {
            let found = response.field(name).unwrap_or_default();
            check(!found.contains(text), || {
                format!("{name} should not say {text:?}, says {found:?}")
            })
        }
        Want::Content(content) => {
            let content = fill(content);
            check(response.text() == content, || {
                format!("content should be {content:?}")
            })
        }
        Want::Holds(text) => check(response.text().contains(text), || {
            format!("content should have {text:?} in it")
        }),
        Want::Age(least, most) => {
            let age = response.field("age");
            let fits = age
                .as_deref()
                .and_then(|age| age.parse::<u64>().ok())
                .is_some_and(|age| (*least..=*most).contains(&age));
            check(fits, || {
                format!("Age should be {least} to {most}, is {age:?}")
            })
        }
        Want::Interim(count) => check(came.interim.len() == *count, || {
            format!(
                "{count} interim responses expected, {} came",
                came.interim.len()
            )
        }),
        Want::Asks(_) | Want::AsksWithout(_) | Want::AsksBy(_) => asked(want, came, fill),
    }
}

/// What the origin server saw.
fn asked(want: &Want, came: &Came, fill: impl Fn(&str) -> String) -> Result<(), String> {
    match want {
        Want::Asks(line) => {
            let line = fill(line);
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let request = came.requests.last();
            let found = request.and_then(|request| request.field(name));
            let fits = found
                .as_deref()
                .is_some_and(|found| found.contains(value.trim()));
            check(fits, || format!("should ask with {line:?}, has {found:?}"))
        }
        Want::AsksWithout(name) => {
            let found = came.requests.last().and_then(|request| request.field(name));
            check(found.is_none(), || {
                format!("should ask without {name}, has {found:?}")
            })
        }
        Want::AsksBy(method) => {
            let found = came.requests.last().map(|request| request.method.clone());
            check(found.as_deref() == Some(*method), || {
                format!("should ask by {method}, asks by {found:?}")
            })
        }
        _ => Ok(()),
    }
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(otherwise()),
    }
}

impl Came {
    /// By baton's own member of Cache-Status, which is the last one.
    fn is_hit(&self) -> bool {
        let status = self.response.field("cache-status").unwrap_or_default();
        let own = status.rsplit_once("baton").map(|(_, own)| own);
        own.is_some_and(|own| own.contains("; hit"))
    }

    fn in_short(&self) -> String {
        let text: String = self.response.text().chars().take(60).collect();
        let asked: Vec<&str> = self
            .requests
            .iter()
            .map(|request| request.method.as_str())
            .collect();
        format!(
            "came {} {text:?}, Cache-Status {:?}, origin asked {asked:?}",
            self.response.status,
            self.response.field("cache-status").unwrap_or_default(),
        )
    }
}
