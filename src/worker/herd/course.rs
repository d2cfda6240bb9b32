//! The way of one request that is not in the store to its answer: a table of what it hears and does next.
//!
//! Pure: no socket, no clock, no store. `exchange/join` does what it says and tells it what came of that; the
//! simulation lets many go their way at once, over several workers that die.
//!
//! | heard | next |
//! |---|---|
//! | nobody else is concerned, here | ask |
//! | another request here is on its way | wait for it |
//! | it is the first here | claim the key, over all workers |
//! | the claim is ours | ask, as leader; look in the store before, if something has come into it |
//! | another worker has it | follow that |
//! | that one does not know of it, or has died | take over, look in the store, and ask |
//! | what is stored has changed since, a worker has died, or there is a new era | begin anew, with those who ask for what is now |
//! | what is arriving | read it |
//! | it is for one client alone, or cannot be shared | ask, at once |
//! | it has come into the store | look there |
//! | whoever asked has left | look in the store, and begin anew: perhaps as the next leader |
//! | there is no answer to be had | one more try, then the same answer |

use super::Outcome;
use crate::http::page::AnswerReason;
use crate::shared::Claim;

/// How often a request waits for an answer that it cannot use, before it asks for itself.
const MOST_WAITS: u8 = 2;
/// How often it turns to another worker, before it asks without a claim.
const MOST_TURNS: u8 = 4;
/// How often it begins anew because whoever asked has left.
const MOST_FAILURES: u8 = 100;

/// What a request has come to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Of the herd in this worker: nobody waits for what it asks for, nor it for anybody.
    Alone {
        is_late: bool,
    },
    Behind,
    First,
    /// Of the claims of all workers. `is_late`: something has come into the store since it looked.
    Claimed {
        is_late: bool,
    },
    Theirs(Claim),
    /// The worker of that claim does not know of it, or is dead.
    Unknown(Claim),
    TookOver,
    /// Somebody else did.
    TooLate,
    /// The head is there, and the content arrives.
    Arrives,
    Told(Outcome),
    /// It has waited as long as a request may.
    Waited,
    /// The store has nothing that answers it.
    Absent,
    /// The same, and it leads those who asked before a change, a death or a new era: what comes now is for those who ask now.
    Moved,
}

/// What it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Takes a place in this worker's herd.
    Enter,
    Wait,
    Claim,
    Follow(Claim),
    TakeOver(Claim),
    /// Looks in the store; if the answer is there, that is the end.
    Look,
    /// Asks the origin server: for all, if it is the first here.
    Ask,
    /// Asks for itself, whatever place it has.
    AskAlone,
    Read,
    /// Gives the answer that the one who asked was given.
    Refuse(AnswerReason),
}

/// How far a request has come.
#[derive(Debug)]
pub struct Course {
    /// What follows when the store has nothing.
    then: Step,
    waits: u8,
    turns: u8,
    failures: u8,
    /// It has heard of a failure, or of a death, that leaves it to others to go on.
    has_seen_failure: bool,
}

impl Default for Course {
    fn default() -> Course {
        Course {
            then: Step::Enter,
            waits: 0,
            turns: 0,
            failures: 0,
            has_seen_failure: false,
        }
    }
}

impl Course {
    pub fn next(&mut self, heard: Heard) -> Step {
        match heard {
            Heard::Alone { is_late: false } | Heard::Claimed { is_late: false } => Step::Ask,
            Heard::Alone { is_late: true } | Heard::Claimed { is_late: true } => {
                self.look(Step::Ask)
            }
            Heard::Behind => Step::Wait,
            Heard::First | Heard::TooLate => Step::Claim,
            Heard::Theirs(_) if self.turns >= MOST_TURNS => Step::Ask,
            Heard::Theirs(claim) => {
                self.turns += 1;
                Step::Follow(claim)
            }
            Heard::Unknown(claim) => Step::TakeOver(claim),
            Heard::TookOver => {
                self.has_seen_failure = true;
                self.look(Step::Ask)
            }
            Heard::Arrives => Step::Read,
            Heard::Waited => Step::AskAlone,
            Heard::Told(outcome) => self.told(outcome),
            Heard::Absent => self.then,
            Heard::Moved => self.begin_anew(),
        }
    }

    /// Whether what it asks for is what another one has failed to get.
    pub fn has_seen_failure(&self) -> bool {
        self.has_seen_failure
    }

    fn told(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Outcome::Unshared | Outcome::NotKept => Step::AskAlone,
            Outcome::Failed => {
                self.has_seen_failure = true;
                let then = self.begin_anew();
                self.look(then)
            }
            Outcome::Stored | Outcome::Error(_) => {
                self.waits += 1;
                self.look(match self.waits < MOST_WAITS {
                    true => Step::Enter,
                    false => Step::AskAlone,
                })
            }
            // One more of those who waited tries; what all of them try does not help an origin server that is down.
            Outcome::Unreachable(reason) => {
                self.waits += 1;
                match self.waits < MOST_WAITS {
                    true => self.look(Step::Enter),
                    false => Step::Refuse(reason),
                }
            }
        }
    }

    fn begin_anew(&mut self) -> Step {
        self.failures += 1;
        match self.failures < MOST_FAILURES {
            true => Step::Enter,
            false => Step::AskAlone,
        }
    }

    fn look(&mut self, then: Step) -> Step {
        self.then = then;
        Step::Look
    }
}
