//! The words that the tables are written in: a row is a behaviour, its steps are requests.
//!
//! Nothing here speaks to anybody; `engine` does. Text in a step may hold `{path}` (the row's own path), `{base}` (scheme
//! and authority that the client uses), and times such as `{now-60}`, which `times` fills in.

/// What the RFC makes of a behaviour, in its own capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// MUST and MUST NOT: right or wrong.
    Must,
    /// SHOULD: baton does it where nothing is said against it.
    Should,
    /// MAY: what a cache is for.
    May,
}

pub struct Row {
    pub level: Level,
    /// Where it says so: `9111 5.2.2.1`.
    pub section: &'static str,
    /// Unique within its group; the group's list of what is to be done names it.
    pub name: String,
    pub steps: Vec<Step>,
}

pub fn must(section: &'static str, name: impl Into<String>, steps: &[Step]) -> Row {
    row(Level::Must, section, name.into(), steps)
}

pub fn should(section: &'static str, name: impl Into<String>, steps: &[Step]) -> Row {
    row(Level::Should, section, name.into(), steps)
}

pub fn may(section: &'static str, name: impl Into<String>, steps: &[Step]) -> Row {
    row(Level::May, section, name.into(), steps)
}

fn row(level: Level, section: &'static str, name: String, steps: &[Step]) -> Row {
    Row {
        level,
        section,
        name,
        steps: steps.to_vec(),
    }
}

/// A response with these fields answers the next request, too.
pub fn reused(section: &'static str, name: impl Into<String>, fields: &str) -> Row {
    may(section, name, &[get().says(fields), get().cached()])
}

/// A response with these fields answers no other request unasked.
pub fn not_reused(section: &'static str, name: impl Into<String>, fields: &str) -> Row {
    must(section, name, &[get().says(fields), get().reaches()])
}

/// Who must have answered a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The origin server was asked, and the client has its answer.
    ByOrigin,
    /// Nobody was asked; the content is that of the latest answer, or of the step with this number.
    FromCache(Option<usize>),
    /// The origin server was asked with a condition, and what was stored is the answer.
    Validated,
    /// What was stored came at once; the origin server was asked all the same.
    ThenAsked,
    /// Nobody was asked, and the proxy answers for itself.
    ByProxy,
    /// The origin server was asked in vain; what was stored is the answer.
    InPlaceOfError,
    /// The origin server's response ends early, and so does the client's.
    CutShort,
    /// Whoever; other expectations say what matters.
    ByAnybody,
}

/// What the origin server does when this step's request reaches it.
#[derive(Clone, Debug)]
pub enum Answer {
    Plain {
        status: u16,
        fields: String,
        /// None: content that no other step has.
        body: Option<String>,
        /// What goes before it.
        interim: String,
    },
    /// These octets, and then the end of the connection where the flag says so.
    Octets(String, bool),
    /// The end of the connection.
    Nothing,
}

/// Further expectations.
#[derive(Clone, Debug)]
pub enum Want {
    Status(u16),
    /// The client's response has this field with just this value.
    Field(String),
    NoField(&'static str),
    /// Some line of the head (interim responses included) or of the field has this text.
    Contains(&'static str, &'static str),
    /// The field has not this text.
    ContainsNot(&'static str, &'static str),
    Content(String),
    /// The content has this text in it.
    Holds(&'static str),
    /// Age lies between.
    Age(u64, u64),
    /// The origin server's request has this field, with this text in it.
    Asks(String),
    AsksWithout(&'static str),
    /// The origin server saw this method.
    AsksBy(&'static str),
    /// So many interim responses came first.
    Interim(usize),
}

#[derive(Clone, Debug)]
pub struct Step {
    pub method: &'static str,
    pub fields: String,
    pub content: Option<&'static str>,
    /// After the row's own path.
    pub suffix: &'static str,
    /// Seconds that pass before it.
    pub later: u64,
    pub answer: Answer,
    pub served: Served,
    pub wants: Vec<Want>,
}

pub fn get() -> Step {
    by("GET")
}

pub fn head() -> Step {
    by("HEAD")
}

pub fn post() -> Step {
    by("POST").content("asked=1")
}

pub fn by(method: &'static str) -> Step {
    Step {
        method,
        fields: String::new(),
        content: None,
        suffix: "",
        later: 0,
        answer: Answer::Plain {
            status: 200,
            fields: String::new(),
            body: None,
            interim: String::new(),
        },
        served: Served::ByOrigin,
        wants: Vec::new(),
    }
}

/// What the client sends.
impl Step {
    /// Field lines, one a line.
    pub fn with(mut self, lines: &str) -> Step {
        self.fields += &fields(lines);
        self
    }

    pub fn content(mut self, content: &'static str) -> Step {
        self.content = Some(content);
        self
    }

    /// Asks for another resource, beside or below the row's own.
    pub fn at(mut self, suffix: &'static str) -> Step {
        self.suffix = suffix;
        self
    }

    /// So many seconds after the step before it.
    pub fn later(mut self, seconds: u64) -> Step {
        self.later = seconds;
        self
    }
}

/// What the origin server answers.
impl Step {
    pub fn says(mut self, lines: &str) -> Step {
        if let Answer::Plain { fields: has, .. } = &mut self.answer {
            *has += &fields(lines);
        }
        self
    }

    pub fn answers(mut self, code: u16) -> Step {
        if let Answer::Plain { status, .. } = &mut self.answer {
            *status = code;
        }
        self
    }

    pub fn body(mut self, content: &str) -> Step {
        if let Answer::Plain { body, .. } = &mut self.answer {
            *body = Some(content.to_owned());
        }
        self
    }

    /// An interim response first: its status and field lines.
    pub fn first(mut self, status: u16, lines: &str) -> Step {
        if let Answer::Plain { interim, .. } = &mut self.answer {
            *interim += &format!("HTTP/1.1 {status} Interim\r\n{}\r\n", fields(lines));
        }
        self
    }

    pub fn octets(mut self, octets: &str) -> Step {
        self.answer = Answer::Octets(octets.to_owned(), false);
        self
    }

    pub fn octets_and_end(mut self, octets: &str) -> Step {
        self.answer = Answer::Octets(octets.to_owned(), true);
        self
    }

    pub fn closes(mut self) -> Step {
        self.answer = Answer::Nothing;
        self
    }
}

/// Who must have answered.
impl Step {
    pub fn reaches(self) -> Step {
        self.served(Served::ByOrigin)
    }

    pub fn cached(self) -> Step {
        self.served(Served::FromCache(None))
    }

    /// From the cache, with the content of that step, counted from 1.
    pub fn cached_from(self, step: usize) -> Step {
        self.served(Served::FromCache(Some(step)))
    }

    /// The origin server is asked with a condition and answers 304.
    pub fn validated(self) -> Step {
        self.answers(304).served(Served::Validated)
    }

    pub fn then_asked(self) -> Step {
        self.served(Served::ThenAsked)
    }

    /// The origin server's answer is an error or none; the stored response covers for it.
    pub fn in_place_of_error(self) -> Step {
        self.served(Served::InPlaceOfError)
    }

    pub fn refused(self, status: u16) -> Step {
        self.served(Served::ByProxy).status(status)
    }

    pub fn cut_short(self) -> Step {
        self.served(Served::CutShort)
    }

    pub fn whoever(self) -> Step {
        self.served(Served::ByAnybody)
    }

    fn served(mut self, served: Served) -> Step {
        self.served = served;
        self
    }
}

/// What else must be so.
impl Step {
    pub fn status(self, status: u16) -> Step {
        self.want(Want::Status(status))
    }

    pub fn has(self, line: &str) -> Step {
        self.want(Want::Field(line.to_owned()))
    }

    pub fn lacks(self, name: &'static str) -> Step {
        self.want(Want::NoField(name))
    }

    pub fn contains(self, name: &'static str, text: &'static str) -> Step {
        self.want(Want::Contains(name, text))
    }

    pub fn says_not(self, name: &'static str, text: &'static str) -> Step {
        self.want(Want::ContainsNot(name, text))
    }

    pub fn gives(self, content: &str) -> Step {
        self.want(Want::Content(content.to_owned()))
    }

    pub fn holds(self, text: &'static str) -> Step {
        self.want(Want::Holds(text))
    }

    pub fn age(self, least: u64, most: u64) -> Step {
        self.want(Want::Age(least, most))
    }

    pub fn asks(self, line: &str) -> Step {
        self.want(Want::Asks(line.to_owned()))
    }

    pub fn asks_without(self, name: &'static str) -> Step {
        self.want(Want::AsksWithout(name))
    }

    pub fn asks_by(self, method: &'static str) -> Step {
        self.want(Want::AsksBy(method))
    }

    pub fn interim(self, count: usize) -> Step {
        self.want(Want::Interim(count))
    }

    fn want(mut self, want: Want) -> Step {
        self.wants.push(want);
        self
    }
}

fn fields(lines: &str) -> String {
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines.map(|line| format!("{line}\r\n")).collect()
}
